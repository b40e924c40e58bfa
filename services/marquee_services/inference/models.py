"""The models that the inference service serves."""

from __future__ import annotations

from pathlib import Path

from marquee_core.quiet_tensorflow import import_tensorflow
from marquee_core.scorers.dot_product import DotProductScorer
from marquee_core.scorers.saved_model import SavedModelScorer
from marquee_core.scorers.scorer import LoadScorer, ReleaseData, Scorer


def load_scorer(folder: Path, data: ReleaseData) -> Scorer:
    """Loads a model: its arrays if its scores are dot products, otherwise its SavedModel.

    Raises:
        ArtifactError: A file is missing or damaged, or does not fit the data.
    """
    if DotProductScorer.is_saved(folder):
        return DotProductScorer.load(folder, data)
    return SavedModelScorer.load(folder, data)


INFERENCE_SCORERS: dict[str, LoadScorer] = dict.fromkeys(
    ("mf", "deep_mf", "residual_mf", "autorec", "user_autorec"), load_scorer
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
