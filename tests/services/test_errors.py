"""Every service error defines the status and the reason that callers receive."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from marquee.v1 import errors_pb2
from marquee_services.errors import FieldViolation, InvalidFields, ModelNotFound, ServiceError
from marquee_services.server.micro_batcher import QueueFullError
from marquee_services.server.status import reason_name, status_details


def subclasses(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    """Return all concrete subclasses of a class."""
    for child in kind.__subclasses__():
        if "reason" in vars(child):
            yield child
        yield from subclasses(child)


def test_every_reason_has_an_error() -> None:
    """Every reason of the protocol has a class, except for the unspecified one."""
    stated = {kind.reason for kind in subclasses(ServiceError)}
    reasons = set(errors_pb2.ErrorReason.values())
    assert reasons - stated <= {
        errors_pb2.ERROR_REASON_UNSPECIFIED,
        errors_pb2.ERROR_REASON_INTERNAL,
    }


@pytest.mark.parametrize("missing", ["code", "reason"])
def test_an_error_without_status_or_reason_cannot_be_defined(missing: str) -> None:
    """A missing status or reason is an error when the class is defined, not when it is raised."""
    names = {
        "code": grpc.StatusCode.NOT_FOUND,
        "reason": errors_pb2.ERROR_REASON_ITEM_NOT_FOUND,
    }
    del names[missing]
    with pytest.raises(TypeError, match=f"Forgetful does not define {missing}"):
        type("Forgetful", (ServiceError,), names)
    with pytest.raises(TypeError, match="does not define code and reason"):
        type("Forgetful", (ModelNotFound,), {})


def test_details_have_the_reason_and_the_violations() -> None:
    """The encoded status has the code, an ErrorInfo, and a BadRequest for invalid fields."""
    error = InvalidFields([FieldViolation("a.b", "is empty")])
    status = status_pb2.Status.FromString(status_details(error))
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad_request)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert (info.reason, dict(info.metadata)) == ("INVALID_FIELD", {"fields": "a.b"})
    assert bad_request.field_violations[0].field == "a.b"


def test_a_full_queue_is_an_overload() -> None:
    """Callers get the reason of any other overload, and the limit of the queue."""
    error = QueueFullError("8")
    assert reason_name(error) == "OVERLOADED"
    assert error.metadata == {"limit": "8"}
