"""Computes and writes the lists of a part."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from marquee_core.tasks.task import Report
from marquee_services.lists.blocks import BlockRanker
from marquee_services.lists.output import ListFiles
from marquee_services.lists.release import LoadedRelease, load_release
from marquee_services.lists.request import ListRequest
from marquee_services.lists.single import SingleLists
from marquee_services.lists.table import errors_as_json, read_metadata, source, to_parquet
from marquee_services.lists.user_list import UserError, UserList

# The number of users that `single.py` handles between reports of progress.
_SINGLE_USERS = 16


@dataclass(frozen=True)
class Part:
    """A part of the users, whose lists are written to one file.

    Attributes:
        number: The number of the part, starting at 0.
        first: The index of the first user, in the release or among the requested users.
        end: The index after the last user.
        user_ids: The ids of requested users; None for users of the release.
    """

    number: int
    first: int
    end: int
    user_ids: tuple[str, ...] | None = None

    @property
    def digest(self) -> str:
        """A digest of the users, which identifies them within a release."""
        what = [str(self.first), str(self.end), *(self.user_ids or ())]
        return hashlib.sha256("\0".join(what).encode()).hexdigest()


@dataclass(frozen=True)
class PartResult:
    """The result of a part.

    Attributes:
        users: The number of users.
        items: The number of rows.
        errors: The errors of users without a list.
        was_written: Whether an earlier run had already written the part.
    """

    users: int
    items: int
    errors: tuple[UserError, ...]
    was_written: bool


@dataclass(frozen=True)
class ListWorker:
    """Computes parts in a separate process; implements `Work`.

    Whenever it has computed users, it reports their number.

    Attributes:
        request: The description of the lists.
        output: The files to write.
    """

    request: ListRequest
    output: ListFiles

    def __call__(self, part: Part, report: Report, /) -> PartResult:
        """Computes and writes a part, unless it has already been written.

        Raises:
            ArtifactError: The release cannot be loaded.
            OSError: The store cannot be read, or the part cannot be written.
        """
        name = self.output.name(part.number)
        expected = {"lists": self.request.digest, "users": part.digest}
        try:
            found = read_metadata(self.output.storage.read(name))
        except FileNotFoundError:
            found = None
        if found is not None and expected.items() <= found.items():
            errors = tuple(UserError(*error) for error in found["errors"])
            return PartResult(part.end - part.first, found["items"], errors, was_written=True)
        answers = self._answers(part, report)
        lists = [one for one in answers if isinstance(one, UserList)]
        errors = tuple(one for one in answers if isinstance(one, UserError))
        items = sum(len(one.items) for one in lists)
        release = self._loaded.gateway
        metadata: dict[str, Any] = {
            **expected,
            "source": source(release, self.request),
            "items": items,
            "errors": errors_as_json(errors),
        }
        with_reasons = self.request.recommend_options.include_reasons
        content = to_parquet(lists, release.catalogue, metadata, with_reasons)
        self.output.storage.replace(name, content)
        return PartResult(len(answers), items, errors, was_written=False)

    @cached_property
    def _loaded(self) -> LoadedRelease:
        return load_release(self.request)

    @cached_property
    def _single(self) -> SingleLists:
        return SingleLists(self._loaded, self.request)

    @cached_property
    def _blocks(self) -> BlockRanker | None:
        if not BlockRanker.can_rank(self._loaded, self.request):
            return None
        return BlockRanker(self._loaded, self.request)

    def _answers(self, part: Part, report: Report) -> list[UserList | UserError]:
        """Returns the answers for the users of a part, in their order."""
        release = self._loaded.gateway
        if part.user_ids is None:
            users = np.arange(part.first, part.end, dtype=np.int32)
            user_ids: Sequence[str] = release.users.ids(users)
        else:
            user_ids = part.user_ids
            users = release.users.indexes(user_ids)
        answers: dict[int, UserList | UserError] = {}
        if self._blocks is not None:
            indptr = release.data.matrix.indptr
            known = np.maximum(users, 0)
            rated = np.flatnonzero((users >= 0) & (indptr[known + 1] > indptr[known]))
            for start in range(0, len(rated), self._blocks.block_users):
                positions = rated[start : start + self._blocks.block_users]
                found = self._blocks.rank(users[positions])
                done = {
                    position: one
                    for position, one in zip(positions.tolist(), found, strict=True)
                    if one is not None
                }
                answers |= done
                report(len(done))
        left = [position for position in range(len(user_ids)) if position not in answers]
        with asyncio.Runner() as runner:
            for start in range(0, len(left), _SINGLE_USERS):
                batch = left[start : start + _SINGLE_USERS]
                single = runner.run(self._single.lists([user_ids[position] for position in batch]))
                answers |= zip(batch, single, strict=True)
                report(len(batch))
        return [answers[position] for position in range(len(user_ids))]
