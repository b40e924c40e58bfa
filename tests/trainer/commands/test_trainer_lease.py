"""The lease of a store's only trainer is removed along with a store that it created."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from marquee_core.release.lease import LeaseHeldError
from marquee_trainer.commands import cli
from marquee_trainer.commands.trainer_lease import TRAINER_LEASE, hold_trainer_lease


def test_a_training_that_fails_leaves_no_store(tmp_path: Path) -> None:
    """A mistyped source of ratings does not leave a store without releases."""
    store = tmp_path / "store"
    arguments = ["--data", str(tmp_path / "nope.csv"), "--store", str(store)]
    result = CliRunner().invoke(cli.train, arguments)
    assert result.exit_code == 1
    assert "nope.csv" in result.stderr
    assert not store.exists()


def test_an_existing_store_is_kept(tmp_path: Path) -> None:
    """A trainer only removes a store that it created and that contains nothing but the lease."""
    (tmp_path / "old").mkdir()
    with hold_trainer_lease(str(tmp_path / "old")):
        pass
    assert (tmp_path / "old" / TRAINER_LEASE).exists()
    with hold_trainer_lease(str(tmp_path / "new")):
        (tmp_path / "new" / "releases").mkdir()
    assert (tmp_path / "new" / TRAINER_LEASE).exists()


def test_a_trainer_that_is_refused_removes_nothing(tmp_path: Path) -> None:
    """The store belongs to the trainer that holds the lease."""
    store = str(tmp_path / "store")
    with hold_trainer_lease(store):
        with pytest.raises(LeaseHeldError), hold_trainer_lease(store):
            pass
        assert (tmp_path / "store" / TRAINER_LEASE).exists()
    assert not (tmp_path / "store").exists()
