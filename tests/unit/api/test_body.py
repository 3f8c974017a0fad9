from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message

from openworks.api.body import BodyBudget, BodyLimits, read_body
from openworks.core.errors import (
    AppError,
    ClientClosedRequestError,
    PayloadTooLargeError,
    ServerOverloadedError,
)

LIMITS = BodyLimits(max_bytes=10)


def coming(*messages: bytes | None) -> Any:
    """A `receive` that yields parts of a body; None stands for a client that leaves."""
    parts: Iterator[bytes | None] = iter(messages)
    last = len(messages) - 1
    counter = iter(range(len(messages)))

    async def receive() -> Message:
        part, number = next(parts), next(counter)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": number < last}

    return receive


async def read(receive: Any, budget: BodyBudget, **headers: str) -> bytes:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return await read_body({"type": "http", "headers": raw}, receive, LIMITS, budget)


async def test_parts_are_put_together() -> None:
    assert await read(coming(b"abc", b"", b"def"), BodyBudget(100)) == b"abcdef"


async def test_declared_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    with pytest.raises(PayloadTooLargeError):
        await read(coming(), BodyBudget(100), content_length="11")


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((b"12345", b"67890", b"x"), PayloadTooLargeError),
        ((b"12345", None), ClientClosedRequestError),
    ],
)
async def test_body_that_fails_gives_its_bytes_back(
    parts: tuple[bytes | None, ...], error: type[AppError]
) -> None:
    budget = BodyBudget(10)
    with pytest.raises(error):
        await read(coming(*parts), budget)
    assert await read(coming(b"1234567890"), budget) == b"1234567890"


async def test_body_beyond_what_all_may_hold_together_is_refused_until_another_ends() -> None:
    budget = BodyBudget(12)
    first = await read(coming(b"12345678"), budget)
    with pytest.raises(ServerOverloadedError) as caught:
        await read(coming(b"12345"), budget)
    assert caught.value.retry_after_s is not None
    budget.give_back(len(first))
    assert await read(coming(b"12345"), budget) == b"12345"
