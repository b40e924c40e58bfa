"""The settings of the trainer's commands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from marquee_core.feedback.location import check_log_setting
from marquee_services.server.settings import ServerSettings, Settings, setting
from marquee_trainer.publishing.config import AUTO, RETRIEVAL_KINDS, PrecomputeConfig

# As in `data/repeats.py` and `data/missing.py`, which are not imported because of their imports.
ON_REPEAT = ("auto", "last", "mean", "max", "sum", "error")
ON_MISSING = ("error", "skip")
AUTO_SPLIT = "auto"
SPLITS = ("random", "temporal", "user-random", "user-last")
_CONFIG_HELP = (
    "Hyperparameters: a file that `marquee tune` wrote; by default the file in the package that "
    "was tuned on data of about the same size, if there is one."
)


@dataclass(frozen=True)
class SourceSettings(Settings):
    """The source of the ratings."""

    data: str = setting(
        "sample",
        "Ratings: `sample`; a TensorFlow Datasets config such as `movielens/100k-ratings`; a "
        "GroupLens folder or zip file; a CSV, TSV, JSON lines or Parquet file, or a folder or glob "
        "of such files, optionally compressed (.gz, .zst), local or at any URL that fsspec "
        "supports; or the URL of a database such as sqlite:///ratings.db or "
        "postgresql://host/name.",
    )


@dataclass(frozen=True)
class ReadSettings(Settings):
    """How to read ratings."""

    columns: str = setting(
        "",
        "Columns, by name or by position counted from 1: user=…,item=…,rating=…,time=…; count=… "
        "instead of rating=… for implicit feedback. By default they are recognised by common "
        "names.",
    )
    query: str = setting(
        "",
        "SQL query that returns the ratings, if the source is a database; by default "
        "`SELECT * FROM ratings`.",
    )
    scale: str = setting(
        "", "Rating scale LOW:HIGH, such as 1:10; by default it is detected from the ratings."
    )
    on_repeat: str = setting(
        "auto",
        "How repeated ratings of an item by a user are merged: `last` uses the latest rating, "
        "`mean`, `max` and `sum` combine all of them, and `error` rejects them. `auto` is `sum` "
        "for implicit feedback and `last` otherwise.",
        choices=ON_REPEAT,
    )
    on_missing: str = setting(
        "error",
        "What happens to rows of a table that have no user, item, rating, count or time (empty; "
        "for all but ids also NaN, NA, null): `error` rejects them, `skip` leaves them out.",
        choices=ON_MISSING,
    )
    missing_values: str = setting(
        "",
        "Ratings or counts that mean that there is none, such as 0 or -1, separated by commas; "
        "`negative` for all below 0. Rows with them are left out.",
    )
    items: str = setting(
        "",
        "File of item metadata with columns such as item id, title, year and genres; other columns "
        "become attributes. By default a file next to the ratings, such as movies.csv.",
    )
    item_columns: str = setting(
        "",
        "Columns of the file of item metadata, by name or by position counted from 1: "
        "id=…,title=…,year=…,genres=…. Those that are not given are recognised; the ids by the "
        "name of their column in the ratings, or by the items that they describe.",
    )
    genre_separator: str = setting(
        "", "Separator between genres in the file of items; by default it is detected."
    )
    allow_untitled: bool = setting(
        False, "Accept data in which more than a fifth of the rated items have no metadata."
    )
    manual_dir: str = setting(
        "",
        "Folder of archives that TensorFlow Datasets need not download; empty to download them.",
    )


@dataclass(frozen=True)
class DataSettings(ReadSettings, SourceSettings):
    """The source of the ratings, how to read them, and how to split them."""

    train_file: str = setting(
        "",
        "File of the training ratings, for example u1.base: a name within --data, or a path.",
        alias="train",
    )
    test_file: str = setting(
        "",
        "File of the test ratings, for example u1.test: a name within --data, or a path. Without "
        "--train, all other ratings are used for training.",
        alias="test",
    )
    seed: int = setting(0, "Seed for the sample, the splits and the models.", low=0)
    test_fraction: float = setting(
        0.2, "Share of the ratings that are held out for the test.", low=0.01, high=0.9
    )
    split: str = setting(
        AUTO_SPLIT,
        "How test ratings are chosen: `random`; `temporal`, the latest ratings of all; "
        "`user-random`, at random from each user; `user-last`, the latest of each user; `auto`, "
        "`user-last` if the ratings have timestamps, else `random`. Ignored if --train or --test "
        "is given.",
        choices=(AUTO_SPLIT, *SPLITS),
    )


@dataclass(frozen=True)
class DataCheckSettings(ReadSettings):
    """Settings of `marquee data check`."""

    rows: int = setting(5, "Number of rows to show.", low=0, high=1000)


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Which models to train."""

    config: str = setting("", _CONFIG_HELP)
    models: str = setting(
        "", "Models to train, separated by commas, for example ease,ials,mf; empty for all."
    )
    exclude: str = setting("", "Models to leave out, separated by commas.")
    budget: str = setting(
        "",
        "Time that the whole run may take, such as 90s, 10m or 2h. Models for which there is not "
        "enough time are skipped or trained for fewer epochs. Empty for no limit.",
    )


@dataclass(frozen=True)
class FeedbackSettings(DataSettings):
    """The release store and the feedback log, in addition to the ratings."""

    store: str = setting(
        ServerSettings.store, "Release store: a folder or a URL.", env="MARQUEE_STORE"
    )
    feedback: str = setting(
        "",
        "Feedback log of the gateways: `sqlite` (the file next to the store), sqlite:///PATH or "
        "postgresql://…. Recorded events are merged with the ratings of --data, forgotten users "
        "are left out, and gateways follow the log from where the release ends. Set a URL with a "
        "password by the variable.",
        env="MARQUEE_FEEDBACK",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_log_setting(self.feedback, self.store)


@dataclass(frozen=True)
class TrainSettings(ModelSettings, FeedbackSettings):
    """Settings of `marquee train`."""

    signing_key: str = setting(
        "",
        "PEM file of the Ed25519 private key that signs the release; `marquee releases keygen` "
        "creates one. Empty to publish without a signature.",
        env="MARQUEE_SIGNING_KEY",
    )
    promote: bool = setting(
        True, "Promote the release, that is, put it in production, if it passes the gate."
    )
    gate: bool = setting(
        True,
        "Run the gate before the release is published, so that its manifest holds the verdict; "
        "--no-gate requires --no-promote.",
    )
    require_approval: bool = setting(
        False,
        "Require approval of every release by `marquee releases promote RELEASE --approve`.",
        env="MARQUEE_REQUIRE_APPROVAL",
    )
    metrics_file: str = setting(
        "",
        "File to write the gate's verdict to, as metrics in Prometheus' text format (for the "
        "textfile collector of the node exporter); empty to write none.",
    )
    resume: bool = setting(
        False,
        "Resume an interrupted training on the same ratings with the same options: models that it "
        "fitted are not fitted again, and the result is the same.",
    )
    checkpoints: str = setting(
        "",
        "Folder for the fitted models of a training in progress; by default next to the store, or "
        "in the user's cache if the store is not a folder.",
    )
    check_input: bool = setting(
        True, "Stop before training, with exit code 3, if the ratings fail a check."
    )
    max_repeats: float = setting(
        0.5, "Largest share of rows that repeat a user and an item.", low=0.0, high=1.0
    )
    max_unknown_items: float = setting(
        0.2,
        "Largest share of ratings of items without metadata, where most items have some.",
        low=0.0,
        high=1.0,
    )
    max_drop: float = setting(
        0.5,
        "Largest loss of ratings, users or items since the release in production, as a share.",
        low=0.0,
        high=1.0,
    )
    processes: int = setting(
        1,
        "Number of processes that fit models in parallel and share the cores. Each process "
        "requires memory for the ratings and its models.",
        low=1,
        high=256,
    )
    ray: str = setting(
        "",
        "Fit the models as tasks of a Ray cluster: its address (`auto` finds one, `local` starts "
        "one here). Requires the extra `ray`, here and in the cluster.",
        env="MARQUEE_RAY",
    )
    retrieval: str = setting(
        AUTO,
        "How the servers generate candidates from a large catalogue: `exact`, `ann` (approximate "
        "nearest neighbours; requires the extra `ann`), or `auto`, which chooses by the "
        "catalogue's size and the measured recall.",
        choices=RETRIEVAL_KINDS,
    )
    precomputed_users: int = setting(
        PrecomputeConfig.users,
        "Number of users whose first page of recommendations is precomputed with the release, "
        "those with the most ratings first; 0 to precompute none.",
        low=0,
        alias="first-pages",
        env_alias="MARQUEE_TRAIN_FIRST_PAGES",
    )
    fold_on_request: bool = setting(
        False,
        "Publish neither user CF's neighbours of known users nor their vectors of Bayesian MF, "
        "which are most of the size of a release per user. Servers then compute them in each "
        "request, as for visitors.",
    )
    refit: bool = setting(
        True,
        "Refit the models on all ratings after the evaluation, and publish the refitted ones. With "
        "--no-refit, the models are published as they were evaluated.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget and (self.ray or self.processes > 1):
            raise ValueError("budget: cannot be combined with ray or processes")
        if self.ray and self.processes > 1:
            raise ValueError("ray: cannot be combined with processes")
        if self.promote and not self.gate:
            raise ValueError(
                "gate: a promoted release must pass it; --no-gate requires --no-promote"
            )
        if self.resume and self.budget:
            # A budget selects models by measured times, which differ after an interruption.
            raise ValueError("resume: a training with a budget cannot be resumed")

    @property
    def checkpoint_folder(self) -> Path:
        """The folder for the fitted models of a training in progress."""
        if self.checkpoints:
            return Path(self.checkpoints).expanduser()
        if "://" not in self.store:
            store = Path(self.store).expanduser().absolute()
            return store.with_name(store.name + "-training")
        name = hashlib.sha256(self.store.encode()).hexdigest()[:16]
        return Path("~/.cache/marquee/training").expanduser() / name


@dataclass(frozen=True)
class RetrainSettings(TrainSettings):
    """Settings of `marquee retrain`."""

    every: str = setting(
        "24h", "Time from the start of a round to the start of the next, such as 90m or 24h."
    )
    once: bool = setting(False, "Run one round and exit, for a scheduled job.")
    keep: int = setting(
        10,
        "Number of newest releases that a round keeps in the store, in addition to those in use; 0 "
        "deletes none.",
        low=0,
        env="MARQUEE_RETRAIN_KEEP",
    )


@dataclass(frozen=True)
class DemoSettings(ModelSettings, DataSettings):
    """Settings of `marquee demo`."""

    store: str = setting("", "Release store; empty for a temporary folder.", env="MARQUEE_STORE")
    keep: bool = setting(False, "Keep the services running until Ctrl-C.")
    live: bool = setting(
        False,
        "Simulate users who rate what they are shown: record their feedback, retrain on it, and "
        "compare the ensemble with popularity in an experiment. Requires --data sample; leaves out "
        "the slowest models, unless --models or --exclude is given.",
    )
    listen: str = setting(
        "127.0.0.1:0", "Address that the gateway listens on; port 0 picks a free one."
    )


@dataclass(frozen=True)
class EvaluateSettings(ModelSettings, DataSettings):
    """Settings of `marquee evaluate`."""

    json: str = setting("", "File to write the metrics to, as JSON; empty to write none.")
    report: str = setting("", "Folder to write report.html and its charts to; empty to write none.")
    cold_start: bool = setting(
        False,
        "Also evaluate users without training ratings, by the number of ratings they give; trains "
        "all models twice more.",
    )
    with_day: bool = setting(
        False,
        "Also evaluate predictions that know the day of the rating, which a real forecast cannot; "
        "fits one more model, twice.",
    )


@dataclass(frozen=True)
class TuneSettings(DataSettings):
    """Settings of `marquee tune`."""

    models: str = setting("", "Models to tune, separated by commas; empty for all.")
    minutes: float = setting(10.0, "Time budget in minutes, shared equally by the models.", low=0.0)
    max_trials: int = setting(
        0, "Maximum number of trials of each model in this run; 0 for no limit.", low=0
    )
    ray: str = setting(
        "",
        "Run the trials in parallel by Ray Tune, on a Ray cluster: its address (`auto` finds one, "
        "`local` starts one here). Requires the extra `ray`, here and in the cluster.",
        env="MARQUEE_RAY",
    )
    out: str = setting(
        "tuned.json",
        "File to write the best hyperparameters to. Models that it already holds are kept, and "
        "their search continues from there. All trials are saved next to it, in a file with the "
        "suffix .trials.jsonl (Optuna's journal format).",
    )
