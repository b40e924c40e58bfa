"""The models that the inference service serves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from marquee_core.scorers.dot_product import DotProductScorer
from marquee_core.scorers.perceptron import PerceptronScorer
from marquee_core.scorers.quiet_tensorflow import import_tensorflow
from marquee_core.scorers.scorer import LoadScorer, ReleaseData, Scorer

_ARRAY_SCORERS = (DotProductScorer, PerceptronScorer)


def load_scorer(folder: Path, data: ReleaseData) -> Scorer:
    """Loads a model from its arrays if a NumPy scorer supports it, otherwise from its SavedModel.

    TensorFlow takes seconds to import and hundreds of megabytes of memory, so it is imported only
    for a model that needs it.

    Raises:
        ArtifactError: A file is missing or damaged, or does not match the data.
    """
    for scorer in _ARRAY_SCORERS:
        if scorer.is_saved(folder):
            return scorer.load(folder, data)
    from marquee_core.scorers.saved_model import SavedModelScorer

    return SavedModelScorer.load(folder, data)


def loaders(tensorflow_threads: int) -> dict[str, LoadScorer]:
    """Returns the function that loads each model's scorer from a release, by the model's name.

    Args:
        tensorflow_threads: Threads of TensorFlow within one operation, if a model needs it; 0 lets
            TensorFlow choose.
    """

    def load(folder: Path, data: ReleaseData) -> Scorer:
        if not any(scorer.is_saved(folder) for scorer in _ARRAY_SCORERS):
            limit_threads(tensorflow_threads)
        return load_scorer(folder, data)

    return dict.fromkeys(INFERENCE_SCORERS, load)


INFERENCE_SCORERS: dict[str, LoadScorer] = dict.fromkeys(
    ("mf", "deep_mf", "residual_mf", "autorec", "user_autorec"), load_scorer
)
"""Like the result of `loaders`, but with TensorFlow's default number of threads."""


def limit_threads(within_operation: int) -> None:
    """Limits TensorFlow's threads; has no effect after the first TensorFlow operation.

    Args:
        within_operation: Threads within one operation; 0 lets TensorFlow choose.
    """
    threading = import_tensorflow().config.threading
    for limit, count in (
        (threading.set_intra_op_parallelism_threads, within_operation),
        (threading.set_inter_op_parallelism_threads, 1),
    ):
        with suppress(RuntimeError):  # TensorFlow has started, so its threads are fixed.
            limit(count)
