"""Calls backends for an answer, and tracks which backends take part in the ensemble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from marquee.v1 import types_pb2
from marquee_core.output import Output
from marquee_core.release.ensemble import BlendPair
from marquee_core.service_names import GATEWAY
from marquee_services.errors import DeadlineExceeded, ModelUnavailable
from marquee_services.gateway.backends.failures import BackendError, BackendFailure, Failure
from marquee_services.gateway.backends.interface import AnyBackend, AnyReplica
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.model_shedding import without_models
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease

_P = TypeVar("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelSelection:
    """The models of a release that score a request.

    Attributes:
        model: The only model to use; "" for the whole ensemble.
        backends: The backends to use, which ranked the list's first page. None to use every backend
            of the release.
        required: Whether all of `backends` must answer.
        left_out: The models of the ensemble that are left out because they are slow.
        failed: Backends that have already failed for the same request and are not called again.
    """

    model: str = ""
    backends: frozenset[str] | None = None
    required: bool = False
    left_out: frozenset[str] = frozenset()
    failed: tuple[BackendFailure, ...] = ()


class EnsembleCalls:
    """Calls backends for an answer, and drops those that fail from the ensemble.

    Attributes:
        available: The names of the backends that take part, because they have not failed.
        failures: Why other backends of the release do not take part.
        replicas: The replica of each backend that was called last, and is preferred for the next
            call.
    """

    def __init__(
        self,
        backends: Mapping[str, AnyBackend],
        release: GatewayRelease,
        subject: ResolvedSubject,
        selection: ModelSelection,
        deadline: Deadline,
        replicas: Mapping[str, AnyReplica] | None = None,
    ) -> None:
        """Selects the backends to call.

        Args:
            backends: All backends by name.
            release: The release that answers.
            subject: The subject, resolved with that release.
            selection: The models to use.
            deadline: The time that the backends have.
            replicas: The replicas that answered previous calls for the same request, by backend.

        Raises:
            ModelNotFound: The release does not have the selected model.
        """
        self.replicas = dict(replicas or {})
        self._backends = backends
        self._release = release
        self._selection = selection
        self._deadline = deadline
        whole = _backends_to_call(release, subject, selection.model)
        self.available = whole - {failure.backend for failure in selection.failed}
        self.failures = list(selection.failed)
        if selection.backends is not None and not selection.model:
            self.available = whole & selection.backends
            self.failures = [
                BackendFailure(name, Failure.UNAVAILABLE)  # when the first page was ranked
                for name in sorted(whole - self.available)
            ]

    @property
    def blends(self) -> BlendPair:
        """The blends of the selected models, for the backends that take part."""
        if self._selection.model:
            return self._blends_of_model
        blends = self._release.ensemble.by_backends[self.available]
        return without_models(self._release, blends, self._selection.left_out)

    @cached_property
    def _blends_of_model(self) -> BlendPair:
        model = self._selection.model
        is_stars = self._release.model(model).output is Output.STARS
        return self._release.ensemble.single_model(model, is_stars)

    def check(self, names: frozenset[str]) -> None:
        """Drops backends that are not called now and could not answer.

        Does nothing for a further page, which is ranked with the blend of the first one.
        """
        if self._selection.required:
            return
        for name in sorted(names):
            failure = self._backends[name].failure(self._release.release_id)
            if failure is not None:
                self._leave_out([failure])

    async def gather(
        self,
        queries: Mapping[str, _P],
        call: Callable[[AnyReplica, _P, float], Awaitable[_T]],
    ) -> dict[str, _T]:
        """Calls backends in parallel, and drops those that fail.

        Args:
            queries: The query for each backend, by the backend's name.
            call: Calls the given replica with its query and a timeout in seconds.

        Returns:
            The answers by backend.

        Raises:
            ModelUnavailable: The backend of the only selected model did not answer.
            DeadlineExceeded: The deadline passed before the only selected model answered.
            BackendError: A required backend did not answer.
        """
        if len(queries) == 1:  # A call without a separate task is cheaper.
            ((name, query),) = queries.items()
            try:
                return {name: await self._call(name, query, call)}
            except BackendError as error:
                self._drop([error])
                return {}
        names = sorted(queries)
        results: Sequence[_T | BaseException] = await asyncio.gather(
            *(self._call(name, queries[name], call) for name in names), return_exceptions=True
        )
        answers, errors = {}, []
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BackendError):
                errors.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                answers[name] = result
        self._drop(errors)
        return answers

    def _call(
        self, name: str, query: _P, call: Callable[[AnyReplica, _P, float], Awaitable[_T]]
    ) -> Coroutine[Any, Any, _T]:
        """Calls a backend, and remembers which of its replicas was called last."""

        def call_replica(replica: AnyReplica, left: float) -> Awaitable[_T]:
            self.replicas[name] = replica
            return call(replica, query, left)

        left = self._deadline.left_after_failure() if self.failures else self._deadline.left()
        return self._backends[name].call(
            self._release.release_id, left, call_replica, self.replicas.get(name)
        )

    def _drop(self, errors: Sequence[BackendError]) -> None:
        """Drops failed backends; raises an error if the answer requires one of them."""
        if errors and self._selection.required and not self._selection.model:
            raise errors[0]
        if errors:
            self._leave_out([error.reason for error in errors])

    def _leave_out(self, failures: Sequence[BackendFailure]) -> None:
        """Drops backends that failed; raises an error if only one of their models is used."""
        if self._selection.model:
            if self._deadline.left() <= 0:
                raise DeadlineExceeded
            raise ModelUnavailable(self._selection.model)
        self.failures += failures
        self.available -= {failure.backend for failure in failures}


def _backends_to_call(
    release: GatewayRelease, subject: ResolvedSubject, model: str
) -> frozenset[str]:
    """Returns the backends that score a subject; none for a cold start, scored by the gateway."""
    if model:
        return frozenset({release.model(model).backend}) - {GATEWAY}
    if subject.kind == types_pb2.SUBJECT_KIND_COLD_START:
        return frozenset()
    return release.backends
