"""`marquee train --feedback`: the release includes recorded feedback, up to a mark in the log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import pytest

from marquee_core.feedback.events import FeedbackEvent, FeedbackKind
from marquee_core.feedback.log import EventLog
from marquee_core.release.contents import open_gateway_files, open_release
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Decision
from marquee_core.service_names import GATEWAY
from marquee_trainer.commands.loading import load_with_feedback
from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.commands.train import run_training
from marquee_trainer.commands.trainer_lease import hold_trainer_lease

# Generous, since importing TensorFlow takes long on a loaded machine.
TIMEOUT_S = 300.0
DATA = "sample:users=200,items=150,ratings=8000"


def rating(user: str, item: str, stars: float) -> FeedbackEvent:
    """Return a recorded rating that is later than all of the sample."""
    return FeedbackEvent(user, item, FeedbackKind.RATING, stars, 4 * 10**15, f"{user}-{item}")


def test_a_release_includes_feedback_up_to_a_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New users and items are added, forgotten users are removed, and the mark is in the log."""
    store = tmp_path / "store"
    with EventLog(f"sqlite:///{tmp_path / 'store-feedback.sqlite'}", TIMEOUT_S) as log:
        log.append([[rating("newcomer", item, 5.0) for item in ("1", "2", "unheard-of")]])
        log.append([[rating("7", "3", 1.0)]])
        log.forget("8", "test")
        settings = TrainSettings(data=DATA, store=str(store), models="ease", feedback="sqlite")
        with hold_trainer_lease(settings.store) as lease:
            run_training(settings, lease)
        assert "4 recorded ratings are merged" in capsys.readouterr().err
        releases = ReleaseStore(str(store))
        production = releases.production()
        assert production is not None
        files, _ = open_release(releases, production.release_id, GATEWAY, tmp_path / "cache")
        manifest = files.manifest
        assert manifest.feedback_position == log.position() == 5
        assert not log.missing_marks([manifest.feedback_mark])
    assert manifest.gate is not None
    assert manifest.gate.decision is Decision.PROMOTE, manifest.gate.lines()
    assert "servers" in [check.name for check in manifest.gate.checks]
    users, catalogue, _, _ = open_gateway_files(files)
    matrix = files.data.matrix
    rated = catalogue.items.ids(matrix.seen(users.index("newcomer")))
    assert sorted(rated) == ["1", "2", "unheard-of"]
    profile = matrix.profiles([users.index("7")])
    stars = dict(zip(catalogue.items.ids(profile.items), profile.ratings.tolist(), strict=True))
    assert stars["3"] == 1.0
    assert users.index("8") == -1
    assert "4 recorded ratings" in manifest.data.source


def test_an_unreadable_log_is_reported_before_training(tmp_path: Path) -> None:
    """Nothing is trained without the requested feedback."""
    settings = TrainSettings(data=DATA, store=str(tmp_path), feedback="sqlite:////proc/log.sqlite")
    with pytest.raises(click.ClickException, match="the feedback log: "):
        load_with_feedback(settings)
    with pytest.raises(ValueError, match="must be `sqlite`"):
        replace(settings, feedback="mysql://host/name")
