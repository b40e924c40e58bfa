"""The neural models, in TensorFlow: simple, deep and residual MF, and AutoRec of items and users.

They are saved as SavedModels with the signatures of `marquee_core.scorers.saved_model`. Start with
`mf.py`.
"""

from marquee_core.scorers.quiet_tensorflow import import_tensorflow

# Before the modules here import TensorFlow and Keras, which would print start-up messages.
import_tensorflow()
