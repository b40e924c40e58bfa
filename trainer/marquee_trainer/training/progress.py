"""Callbacks through which training reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from marquee_trainer.models.model import Epoch


@dataclass(frozen=True)
class Progress:
    """Callbacks that report training progress; by default they do nothing.

    Attributes:
        on_step: Called when a step begins, with its name and its maximum number of epochs (0 for a
            step without epochs).
        on_epoch: Called after each epoch of the current step.
        on_users: Called as a step without epochs handles users, with the number of users so far and
            of all users.
    """

    on_step: Callable[[str, int], None] = lambda _, __: None
    on_epoch: Callable[[Epoch], None] = lambda _: None
    on_users: Callable[[int, int], None] = lambda _, __: None
