"""TensorFlow's threads."""

from __future__ import annotations

import tensorflow as tf


def limit_threads(within_operation: int) -> None:
    """Limits TensorFlow's threads; to be called before its first operation.

    Args:
        within_operation: Threads within an operation; 0 lets TensorFlow choose.
    """
    tf.config.threading.set_intra_op_parallelism_threads(within_operation)
    tf.config.threading.set_inter_op_parallelism_threads(1)
