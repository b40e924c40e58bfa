"""The experiments of the release store, as a server last read them."""

from __future__ import annotations

import structlog

from marquee_core.errors import ArtifactError
from marquee_core.experiments.experiment import Experiment
from marquee_core.experiments.store import ExperimentStore, running
from marquee_core.release.store import ReleaseStore

_log = structlog.get_logger()


class FollowedExperiments:
    """The experiments that were last read; they stay in use if the store's file is damaged.

    Attributes:
        all: All experiments in the store, the most recently started first.
        error: Why the last read failed; "" if it did not.
        was_read: Whether there has been an attempt to read them.
    """

    def __init__(self, store: ReleaseStore) -> None:
        """Creates the object for a store, without reading from it."""
        self._store = ExperimentStore(store)
        self.all: list[Experiment] = []
        self.error = ""
        self.was_read = False

    @property
    def running(self) -> Experiment | None:
        """The running experiment; None if there is none."""
        return running(self.all)

    @property
    def release_ids(self) -> set[str]:
        """The ids of the running experiment's releases."""
        experiment = self.running
        return set() if experiment is None else {arm.release_id for arm in experiment.arms}

    def read(self) -> bool:
        """Reads the experiments from the store.

        Returns:
            Whether a different experiment is running now, or none any more.

        Raises:
            OSError: The store cannot be read.
        """
        try:
            found = self._store.all()
        except OSError:
            self.was_read = True
            raise
        except ArtifactError as error:
            self.was_read = True
            # Damaged experiments must not delay promotions.
            if str(error) != self.error:
                _log.error("experiments_refused", why=str(error))
            self.error = str(error)
            return False
        before, self.all, self.error = self.running, found, ""
        self.was_read = True
        now = self.running
        if (before and before.name) == (now and now.name):
            return False
        if before is not None:
            _log.info("experiment_ended", experiment=before.name)
        if now is not None:
            arms = {arm.name: arm.description for arm in now.arms}
            _log.info("experiment_started", experiment=now.name, arms=arms)
        return True
