"""Settings of the trainer's commands."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_services.server.settings import ServerSettings, setting
from marquee_trainer.publishing.config import PrecomputeConfig

SPLITS = ("random", "temporal", "user-random", "user-last")


@dataclass(frozen=True)
class DataSettings:
    """Which ratings, and how they are split."""

    data: str = setting(
        "sample",
        "Ratings: `sample`, a TensorFlow Datasets config such as `movielens/100k-ratings`, or a "
        "GroupLens folder or zip file.",
    )
    manual_dir: str = setting(
        "", "Folder of archives that are already downloaded, for TensorFlow Datasets."
    )
    train_file: str = setting(
        "",
        "File of the training ratings, within --data or by itself, for example u1.base.",
        alias="train",
    )
    test_file: str = setting(
        "",
        "File of the test ratings, within --data or by itself, for example u1.test; without "
        "--train, all other ratings are for training.",
        alias="test",
    )
    seed: int = setting(0, "Seed of the sample, the splits and the models.", low=0)
    test_fraction: float = setting(
        0.2, "Share of the ratings that is held out for the test.", low=0.01, high=0.9
    )
    split: str = setting(
        "random",
        "How the test part is chosen: at random, by time, or of each user at random or by time; "
        "not used when files name it.",
        choices=SPLITS,
    )


@dataclass(frozen=True)
class TrainSettings(DataSettings):
    """Settings of `marquee train`."""

    store: str = setting(
        ServerSettings.store, "The release store: a folder or a URL.", env="MARQUEE_STORE"
    )
    promote: bool = setting(True, "Put the release in production.")
    retrieval: str = setting(
        "auto",
        "How the servers retrieve from a large catalogue: `exact`, `ann` (approximate nearest "
        "neighbours, needs marquee[ann]), or by its size.",
        choices=("auto", "exact", "ann"),
    )
    first_pages: int = setting(
        PrecomputeConfig.users,
        "Known users, those with the most ratings, whose first page the release holds; 0: none.",
        low=0,
    )
    config: str = setting(
        "", "File of `marquee tune`; by default the package's for data of that size."
    )


@dataclass(frozen=True)
class DemoSettings(DataSettings):
    """Settings of `marquee demo`."""

    store: str = setting(
        "", "The release store; empty for a temporary folder.", env="MARQUEE_STORE"
    )
    config: str = setting(
        "", "File of `marquee tune`; by default the package's for data of that size."
    )
    keep: bool = setting(False, "Leave the services running until Ctrl-C.")
    listen: str = setting("127.0.0.1:0", "Address of the gateway; port 0 picks a free one.")


@dataclass(frozen=True)
class EvaluateSettings(DataSettings):
    """Settings of `marquee evaluate`."""

    json: str = setting("", "File to write the metrics to, as JSON.")
    report: str = setting("", "Folder to write report.html and its plots to.")
    cold_start: bool = setting(
        False,
        "Evaluate users of whom training knows nothing as well; trains everything twice more.",
    )
    with_day: bool = setting(
        False,
        "Evaluate predictions that know the day of the rating as well, which no forecast does; "
        "fits one more model, twice.",
    )
    config: str = setting(
        "", "File of `marquee tune`; by default the package's for data of that size."
    )


@dataclass(frozen=True)
class TuneSettings(DataSettings):
    """Settings of `marquee tune`."""

    models: str = setting("", "Models to tune, by commas; all by default.")
    minutes: float = setting(10.0, "Minutes in all, shared equally by the models.", low=0.0)
    out: str = setting("tuned.json", "File for the configurations; models that it has stay.")
