"""Computes and writes the lists of a part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from marquee_core.tasks.task import Report
from marquee_services.lists.computer import ListComputer
from marquee_services.lists.output import ListFiles
from marquee_services.lists.release import LoadedRelease, load_release
from marquee_services.lists.request import ListRequest
from marquee_services.lists.table import errors_as_json, read_metadata, source, to_parquet
from marquee_services.lists.user_list import UserError, UserList


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
    def _computer(self) -> ListComputer:
        return ListComputer(self._loaded, self.request)

    def _answers(self, part: Part, report: Report) -> list[UserList | UserError]:
        """Returns the answers for the users of a part, in their order."""
        if part.user_ids is None:
            users = np.arange(part.first, part.end, dtype=np.int32)
            return self._computer.of_users(users, report)
        return self._computer.of_ids(part.user_ids, report)
