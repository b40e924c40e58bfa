"""The models that the inference service serves."""

from __future__ import annotations

from marquee_core.quiet_tensorflow import import_tensorflow
from marquee_core.scorers.saved_model import SavedModelScorer
from marquee_core.scorers.scorer import LoadScorer

INFERENCE_SCORERS: dict[str, LoadScorer] = dict.fromkeys(
    ("mf", "deep_mf", "residual_mf", "autorec", "user_autorec"), SavedModelScorer.load
)
"""The function that loads each model's scorer from a release, by the model's name."""


def limit_threads(within_operation: int) -> None:
    """Limits TensorFlow's threads; call it before the first TensorFlow operation.

    Args:
        within_operation: Threads within one operation; 0 lets TensorFlow choose.
    """
    tf = import_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(within_operation)
    tf.config.threading.set_inter_op_parallelism_threads(1)
