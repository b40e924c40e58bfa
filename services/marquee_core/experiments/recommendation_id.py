"""Recommendation ids of lists in an experiment, which encode the arm that a list came from.

    x<experiment: 8>-<index of the arm: 1>-<random: 24>-<authentication code: 16>

Feedback with such an id can be attributed to its arm without a record of the list. The code is an
HMAC (RFC 2104) of the rest of the id and the user's id under the experiment's secret, truncated to
64 bits. A caller can therefore neither invent lists nor claim those of another user or arm.
"""

from __future__ import annotations

import hmac
import random
import re
from dataclasses import dataclass

from marquee_core.experiments.experiment import Experiment

_RANDOM_BITS = 96
_CODE_BYTES = 8
_FORM = re.compile(r"x([0-9a-f]{8})-(\d)-([0-9a-f]{24})-([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class ListOrigin:
    """The origin of a list according to its id, which must be verified by `belongs_to`.

    Attributes:
        experiment_id: The `Experiment.experiment_id`.
        arm: The index of the arm in `Experiment.arms`.
        content: The part of the id that the code authenticates.
        code: The authentication code.
    """

    experiment_id: str
    arm: int
    content: str
    code: str

    def belongs_to(self, experiment: Experiment, user_id: str) -> bool:
        """Returns whether the experiment issued the id to the user."""
        return (
            self.experiment_id == experiment.experiment_id
            and self.arm < len(experiment.arms)
            and hmac.compare_digest(self.code, _code(experiment, self.content, user_id))
        )


def new_recommendation_id(experiment: Experiment, arm: int, user_id: str) -> str:
    """Creates the id of a new list (53 characters).

    Args:
        experiment: The experiment.
        arm: The index of the arm in `Experiment.arms`.
        user_id: The user who receives the list.
    """
    content = f"x{experiment.experiment_id}-{arm}-{random.getrandbits(_RANDOM_BITS):024x}"
    return f"{content}-{_code(experiment, content, user_id)}"


def parse_recommendation_id(text: str) -> ListOrigin | None:
    """Parses the origin of a list from its id; None if the id was not issued in an experiment."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    content, _, code = text.rpartition("-")
    return ListOrigin(found[1], int(found[2]), content, code)


def id_prefix(experiment: Experiment) -> str:
    """Returns the common prefix of the ids of all lists of an experiment."""
    return f"x{experiment.experiment_id}-"


def _code(experiment: Experiment, content: str, user_id: str) -> str:
    message = f"{content}\0{user_id}".encode()
    return hmac.digest(experiment.key, message, "sha256")[:_CODE_BYTES].hex()
