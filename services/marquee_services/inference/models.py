"""The models that the inference service serves."""

from __future__ import annotations

import tensorflow as tf

from marquee_core.scorers.saved_model import SavedModelScorer
from marquee_core.scorers.scorer import LoadScorer

# By name on the wire, what reads the model's artifacts.
INFERENCE_SCORERS: dict[str, LoadScorer] = dict.fromkeys(
    ("mf", "deep_mf", "residual_mf", "autorec", "user_autorec"), SavedModelScorer.load
)


def limit_threads(within_operation: int) -> None:
    """Limits TensorFlow's threads; to be called before its first operation.

    Args:
        within_operation: Threads within an operation; 0 lets TensorFlow choose.
    """
    tf.config.threading.set_intra_op_parallelism_threads(within_operation)
    tf.config.threading.set_inter_op_parallelism_threads(1)
