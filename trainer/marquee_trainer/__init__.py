"""The trainer: loads ratings, fits and evaluates models and their ensemble, publishes releases.

    import marquee_trainer as trainer

    ratings = trainer.load("PATH/ml-100k")
    split = trainer.split(ratings)
    run = trainer.train(ratings, split)
    print(trainer.evaluate(run))
    trainer.publish(run, "releases-store")

May import `marquee_core`, `marquee_services` and the client; none of these imports the trainer.
Start with `library/`, which has the functions above; `training/train.py` runs the steps of
training, and `commands/train.py` is the command.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marquee_core.release.store import ReleaseStore
    from marquee_trainer.data.dataset import RatingsDataset
    from marquee_trainer.data.errors import RatingsError
    from marquee_trainer.data.options import ReadOptions
    from marquee_trainer.data.scale import RatingScale
    from marquee_trainer.data.split import Split
    from marquee_trainer.library.ratings import from_frame, items_frame, load, split, to_frame
    from marquee_trainer.library.run import TrainingRun, evaluate, publish, train
    from marquee_trainer.models.configurations import ConfigurationError
    from marquee_trainer.training.progress import Progress

__all__ = [
    "ConfigurationError",
    "Progress",
    "RatingScale",
    "RatingsDataset",
    "RatingsError",
    "ReadOptions",
    "ReleaseStore",
    "Split",
    "TrainingRun",
    "evaluate",
    "from_frame",
    "items_frame",
    "load",
    "publish",
    "split",
    "to_frame",
    "train",
]

# Training imports TensorFlow, which takes seconds. Names are imported on first use, so that
# `marquee --help` and programs that only read ratings start quickly.
_LAZY = {
    "ConfigurationError": "marquee_trainer.models.configurations",
    "Progress": "marquee_trainer.training.progress",
    "RatingScale": "marquee_trainer.data.scale",
    "RatingsDataset": "marquee_trainer.data.dataset",
    "RatingsError": "marquee_trainer.data.errors",
    "ReadOptions": "marquee_trainer.data.options",
    "ReleaseStore": "marquee_core.release.store",
    "Split": "marquee_trainer.data.split",
    "TrainingRun": "marquee_trainer.library.run",
    "evaluate": "marquee_trainer.library.run",
    "from_frame": "marquee_trainer.library.ratings",
    "items_frame": "marquee_trainer.library.ratings",
    "load": "marquee_trainer.library.ratings",
    "publish": "marquee_trainer.library.run",
    "split": "marquee_trainer.library.ratings",
    "to_frame": "marquee_trainer.library.ratings",
    "train": "marquee_trainer.library.run",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
