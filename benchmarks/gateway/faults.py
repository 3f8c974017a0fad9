"""Thirteen cases in which something goes wrong, and what a client must be able to tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.gateway.client import ask, read_until, send
from benchmarks.gateway.request import Address, chat_body, unrepeated
from benchmarks.gateway.upstream import Upstream

WRONG_KEY = "wrong key"
BROKEN_JSON = "JSON that breaks off"
_CLIENTS = 20
_DROPPED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How one case ended."""

    name: str
    expected: str
    seen: str
    verdict: Literal["right", "wrong", "not its job"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a case saw, and whether it is as expected."""

    text: str
    is_right: bool


def run_faults(address: Address, upstream: Upstream, not_its_job: frozenset[str]) -> Iterator[Case]:
    """Yield the cases one after the other.

    Args:
        address: Of the target.
        upstream: What is behind it.
        not_its_job: Names of cases in which nothing is expected of it.
    """
    for name, expected, run in _CASES:
        try:
            seen = run(address, upstream)
        except OSError as exc:
            seen = Seen(f"{type(exc).__name__}: {exc}", is_right=False)
        verdict: Literal["right", "wrong", "not its job"] = (
            "not its job" if name in not_its_job else "right" if seen.is_right else "wrong"
        )
        yield Case(name=name, expected=expected, seen=seen.text, verdict=verdict)


_Run = Callable[[Address, Upstream], Seen]


def _body(order: str = "", *, stream: bool = False, pad_bytes: int = 0) -> bytes:
    return unrepeated(chat_body(order=order, stream=stream, pad_bytes=pad_bytes))


def _plain(address: Address, _upstream: Upstream, *, pad_bytes: int = 0) -> Seen:
    answer = ask(address, _body(pad_bytes=pad_bytes))
    text = f"{answer.status}, {len(answer.body)} bytes"
    return Seen(text, is_right=answer.status == 200 and answer.is_whole)


def _wrong_key(address: Address, _upstream: Upstream) -> Seen:
    answer = ask(address, _body(), key="sk-wrong")
    return Seen(f"{answer.status} {answer.body[:80]!r}", is_right=answer.status in (401, 403))


def _broken_json(address: Address, _upstream: Upstream) -> Seen:
    answer = ask(address, _body()[:100])
    return Seen(f"{answer.status} {answer.body[:80]!r}", is_right=answer.status == 400)


def _too_many(address: Address, _upstream: Upstream, *, stream: bool) -> Seen:
    answer = ask(address, _body("-x429", stream=stream))
    retry_after = answer.headers.get("retry-after")
    is_right = answer.status == 429 and retry_after == "2"
    return Seen(f"{answer.status}, Retry-After: {retry_after}", is_right=is_right)


def _unavailable(address: Address, _upstream: Upstream) -> Seen:
    answer = ask(address, _body("-x503"))
    is_right = 500 <= answer.status < 600 and b'"error"' in answer.body
    return Seen(f"{answer.status} {answer.body[:80]!r}", is_right=is_right)


def _cut_body(address: Address, _upstream: Upstream) -> Seen:
    answer = ask(address, _body("-k1"))
    is_right = answer.status >= 500 or not answer.is_whole
    return Seen(f"{answer.status}, whole: {answer.is_whole}", is_right=is_right)


def _cut_stream(address: Address, _upstream: Upstream) -> Seen:
    answer = ask(address, _body("-c2-k10", stream=True))
    has_error, is_done = b'"error"' in answer.body, b"[DONE]" in answer.body
    text = (
        f"{answer.status}, {answer.body.count(b'data:')} events, whole: {answer.is_whole}, "
        f"error event: {has_error}, [DONE]: {is_done}"
    )
    return Seen(text, is_right=(has_error or not answer.is_whole) and not is_done)


def _leave_stream(address: Address, upstream: Upstream) -> Seen:
    connections = [send(address, _body("-c50", stream=True)) for _ in range(_CLIENTS)]
    for connection in connections:
        read_until(connection, b"data:")
    aborted = upstream.stats()["aborted"]
    for connection in connections:
        connection.close()
    return _dropped(upstream, aborted)


def _leave_early(address: Address, upstream: Upstream) -> Seen:
    connections = [send(address, _body("-d4000")) for _ in range(_CLIENTS)]
    time.sleep(1.0)
    aborted = upstream.stats()["aborted"]
    for connection in connections:
        connection.close()
    seen = _dropped(upstream, aborted)
    time.sleep(4.0)  # so that what was not dropped does not disturb the next case
    return seen


def _dropped(upstream: Upstream, aborted: int) -> Seen:
    time.sleep(_DROPPED_WITHIN_S)
    dropped = upstream.stats()["aborted"] - aborted
    return Seen(f"{dropped} of {_CLIENTS}", is_right=dropped >= _CLIENTS)


def _slow_first_token(address: Address, _upstream: Upstream) -> Seen:
    started_s = time.monotonic()
    with send(address, _body("-d2000-c5", stream=True)) as connection:
        is_there = b"data:" in read_until(connection, b"data:")
    took_s = time.monotonic() - started_s
    return Seen(f"first event after {took_s:.2f} s", is_right=is_there and 1.9 < took_s < 3.0)


_CASES: tuple[tuple[str, str, _Run], ...] = (
    ("plain request", "200, whole", _plain),
    (WRONG_KEY, "401 or 403", _wrong_key),
    (BROKEN_JSON, "400", _broken_json),
    ("provider answers 429", "429, Retry-After: 2", partial(_too_many, stream=False)),
    ("provider answers 503", "5xx with an error in JSON", _unavailable),
    ("provider answers 429 to a stream", "429, Retry-After: 2", partial(_too_many, stream=True)),
    ("provider dies in a body", "5xx or broken framing", _cut_body),
    (
        "provider dies in a stream",
        "an error event or broken framing, and no [DONE]",
        _cut_stream,
    ),
    ("prompt of 6 MB", "200, whole", partial(_plain, pad_bytes=6 << 20)),
    (
        "clients leave in streams",
        f"{_CLIENTS} of {_CLIENTS} calls dropped within {_DROPPED_WITHIN_S:.0f} s",
        _leave_stream,
    ),
    (
        "clients leave before the answer",
        f"{_CLIENTS} of {_CLIENTS} calls dropped within {_DROPPED_WITHIN_S:.0f} s",
        _leave_early,
    ),
    ("first token after 2 s", "an event after 2 to 3 s", _slow_first_token),
    ("after all that", "200, whole", _plain),
)
NUM_CASES = len(_CASES)
