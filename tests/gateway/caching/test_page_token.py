"""Page tokens are checked against the request, the release and the backends."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, error_of, request_for
from marquee_services.errors import PageTokenMismatch
from marquee_services.gateway.caching.page_token import PageToken


async def test_a_page_token_of_another_request_is_refused(stub: Any) -> None:
    """A damaged token is refused in the same way."""
    page = await stub.Recommend(request_for(page_size=5), timeout=TIMEOUT_S)
    other = request_for("u8", page_size=5)
    other.page_token = page.next_page_token
    code, reason, _ = await error_of(stub.Recommend(other, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_MISMATCH")
    damaged = request_for(page_size=5)
    damaged.page_token = page.next_page_token[:-4] + "AAAA"
    code, reason, _ = await error_of(stub.Recommend(damaged, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_MISMATCH")


@pytest.mark.parametrize(
    "fields",
    [
        [1, "r", ["cf"], "d", 5],
        ["l", "r", "cf", "d", 5],
        ["l", "r", [["cf"]], "d", 5],
        ["l", "r", ["cf"], None, 5],
        ["l", "r", ["cf"], "d", -1],
        ["l", "r", ["cf"], "d", 1.5],
        ["l", "r", ["cf"], "d"],
        {"l": 1},
        7,
    ],
)
def test_a_forged_page_token_is_refused(fields: Any) -> None:
    """The fields of a token are checked even if its checksum is valid."""
    body = json.dumps(fields).encode()
    check = hashlib.sha256(b"marquee page token" + body).digest()[:8]
    with pytest.raises(PageTokenMismatch):
        PageToken.decode(base64.urlsafe_b64encode(check + body).decode())


@pytest.mark.parametrize("feedback_version", [0, 7])
@pytest.mark.parametrize("left_out", [(), ('a "model"',)])
def test_any_text_survives_in_a_page_token(
    feedback_version: int, left_out: tuple[str, ...]
) -> None:
    """Ids of releases and lists may contain quotes and any other characters."""
    token = PageToken('a "list"', "r\\é\n", ("cf", "x,y"), "d" * 16, 20, feedback_version, left_out)
    assert PageToken.decode(token.encode()) == token


async def test_a_page_token_that_names_unknown_backends_is_refused(
    stub: Any, services: Any
) -> None:
    """Such a token is forged or belongs to another deployment."""
    request = request_for(page_size=5)
    token = PageToken.decode((await stub.Recommend(request, timeout=TIMEOUT_S)).next_page_token)
    request.page_token = replace(token, backends=("elsewhere",)).encode()
    code, reason, _ = await error_of(stub.Recommend(request, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_MISMATCH")


async def test_a_page_token_expires_with_its_release(stub: Any, services: Any) -> None:
    """Once its release is no longer loaded, the token is refused as expired."""
    request = request_for(page_size=5)
    request.page_token = (await stub.Recommend(request, timeout=TIMEOUT_S)).next_page_token
    for seed in (1, 2):
        await services.publish(seed)
        await services.until_full()
    code, reason, _ = await error_of(stub.Recommend(request, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_EXPIRED")
