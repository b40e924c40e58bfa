"""The neural models: simple, deep and residual MF, and item- and user-based AutoRec.

They are saved as SavedModels, with the signatures of `marquee_core.scorers.saved_model`, and as
arrays, from which the inference service scores if there are any. May import TensorFlow,
`models.neighbours` and `models.model`. Start with `mf.py`.
"""

from marquee_core.scorers.quiet_tensorflow import import_tensorflow

# Called before the modules here import TensorFlow and Keras, to suppress their start-up messages.
import_tensorflow()
