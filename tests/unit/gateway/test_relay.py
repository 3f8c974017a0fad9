from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from openworks.core.errors import AppError, BlockedError, ProviderError
from openworks.gateway import relay as relay_module
from openworks.gateway.attempts import Reply
from openworks.gateway.providers.registry import Providers
from openworks.gateway.providers.streams import stream_reader
from openworks.gateway.relay import Filter, Judge, StreamEnd, relay, replayed
from openworks.ports.upstream import UpstreamError
from tests.fakes import FakeClock, FakeResponse, Said, events_of
from tests.unit.gateway.exchange_world import EVENTS, lost

OPENAI = Providers().get("openai")
assert OPENAI is not None


@dataclass
class Flow:
    """A relay over a scripted answer, and what became of it."""

    said: Said
    filters: Sequence[Filter] = ()
    keep: bool = True
    judge: Judge | None = None
    has_events: bool = True
    held: list[bytes] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        assert OPENAI is not None
        self.response = FakeResponse(self.said)
        self.ends: list[StreamEnd] = []
        self.verdicts: list[str] = []
        self.reply = Reply(200, [], chunks=self.response.chunks(), is_events=self.has_events)
        self.reply.on_end = self.verdicts.append
        self.reply.response = self.response
        self.reply.held = self.held
        if self.has_events:
            self.reply.reader = stream_reader(OPENAI, "chat/completions")
        self.chunks: AsyncGenerator[bytes, None] = relay(
            self.reply,
            self.filters,
            keep=self.keep,
            clock=self.clock,
            error_event=self._event if self.has_events else None,
            judge=self.judge,
            on_end=self.ends.append,
        )

    def _event(self, error: AppError) -> bytes:
        return b"ERROR %b" % (error.code or "").encode()

    async def all(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks])

    @property
    def end(self) -> StreamEnd:
        (end,) = self.ends
        return end


SENT = b"".join(b"data: %b\n\n" % event for event in EVENTS)


async def test_stream_passes_byte_for_byte_and_ends_once() -> None:
    flow = Flow(events_of(*EVENTS))
    assert await flow.all() == SENT
    assert flow.end.error is None
    assert flow.end.body == SENT
    assert not flow.end.is_cut
    assert flow.verdicts == ["ok"]


async def test_what_was_held_comes_first() -> None:
    flow = Flow(events_of(*EVENTS), held=[b"data: 1\n\n", b"data: 2\n\n"])
    assert await flow.all() == b"data: 1\n\ndata: 2\n\n" + SENT


async def test_nothing_is_kept_when_nobody_needs_it() -> None:
    flow = Flow(events_of(*EVENTS), keep=False)
    await flow.all()
    assert flow.end.body == b""


async def test_broken_stream_ends_with_an_error_event() -> None:
    flow = Flow(events_of(*EVENTS[:2], breaks=lost()))
    assert (await flow.all()).endswith(b"ERROR upstream_failed")
    assert isinstance(flow.end.error, UpstreamError)
    assert flow.verdicts == ["truncated"]


async def test_half_an_event_is_not_shown_before_an_error() -> None:
    said = Said(chunks=(b"data: 1\n\n", b'data: {"half'), breaks=lost())
    assert await Flow(said).all() == b"data: 1\n\nERROR upstream_failed"


async def test_last_line_without_a_break_is_shown_at_the_end() -> None:
    assert await Flow(Said(chunks=(b"data: 1\n\n", b"data: [DONE]"))).all() == (
        b"data: 1\n\ndata: [DONE]"
    )


async def test_bytes_of_no_known_shape_that_break_raise() -> None:
    flow = Flow(Said(chunks=(b"a", b"b"), breaks=lost()), has_events=False)
    with pytest.raises(UpstreamError):
        await flow.all()
    assert isinstance(flow.end.error, UpstreamError)


@pytest.mark.parametrize("read", [0, 1, 3])
async def test_closing_it_at_any_time_ends_the_request_once(read: int) -> None:
    flow = Flow(events_of(*EVENTS))
    for _ in range(read):
        await anext(flow.chunks)
    await flow.chunks.aclose()
    await flow.chunks.aclose()
    assert flow.response.was_aborted
    assert isinstance(flow.end.error, GeneratorExit)
    assert flow.verdicts == ["neutral"]
    with pytest.raises(StopAsyncIteration):
        await anext(flow.chunks)


async def test_closing_what_was_held_and_never_read_ends_the_request() -> None:
    flow = Flow(events_of(*EVENTS), held=[b"data: 1\n\n"])
    await flow.chunks.aclose()
    assert flow.response.was_aborted
    assert isinstance(flow.end.error, GeneratorExit)


async def test_cancelled_reader_ends_the_request() -> None:
    flow = Flow(Said(chunks=(b"a\n", b"b\n"), stalls_after=1))
    task = asyncio.create_task(flow.all())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flow.response.was_aborted
    assert isinstance(flow.end.error, asyncio.CancelledError)


async def test_provider_is_let_go_before_the_end_is_told() -> None:
    flow = Flow(events_of(*EVENTS))
    over: list[bool] = []
    flow.reply.on_end = lambda verdict: over.append(flow.response.is_over)
    await anext(flow.chunks)
    await flow.chunks.aclose()
    assert over == [True]


class Upper:
    """Holds one chunk back, and changes all of them."""

    def __init__(self, blocks: bytes | None = None) -> None:
        self._held = b""
        self._blocks = blocks

    def feed(self, chunk: bytes) -> bytes:
        if self._blocks is not None and self._blocks in chunk:
            raise BlockedError("No.", code="dlp_response")
        held, self._held = self._held, chunk.upper()
        return held

    def end(self) -> bytes:
        return self._held


async def test_filters_see_each_others_output_and_what_was_held_back() -> None:
    flow = Flow(Said(chunks=(b"a\n", b"b\n", b"c\n")), filters=[Upper(), Upper()])
    assert await flow.all() == b"A\nB\nC\n"
    assert flow.end.body == b"A\nB\nC\n"


async def test_filter_that_blocks_ends_the_stream_at_the_provider_too() -> None:
    flow = Flow(Said(chunks=(b"a\n", b"bad\n", b"c\n")), filters=[Upper(b"bad")])
    assert await flow.all() == b"ERROR dlp_response"
    assert flow.response.is_over
    assert isinstance(flow.end.error, BlockedError)
    assert flow.verdicts == ["neutral"]


async def asks(body: bytes) -> None:
    if b"bad" in body:
        raise BlockedError("No.", code="guardrails_response")


async def test_judge_that_holds_shows_all_or_nothing() -> None:
    assert await Flow(events_of(*EVENTS), judge=Judge(asks, holds=True), keep=False).all() == SENT
    flow = Flow(events_of(b"good", b"bad"), judge=Judge(asks, holds=True))
    assert await flow.all() == b"ERROR guardrails_response"


async def test_judge_that_does_not_hold_speaks_at_the_end() -> None:
    flow = Flow(events_of(b"good", b"bad"), judge=Judge(asks, holds=False))
    assert (await flow.all()).endswith(b"bad\n\nERROR guardrails_response")


async def test_stream_that_is_too_long_to_be_held_is_refused_and_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "MAX_KEPT_BYTES", 20)
    flow = Flow(events_of(b"0123456789", b"0123456789"), judge=Judge(asks, holds=True))
    assert await flow.all() == b"ERROR answer_too_long"
    assert isinstance(flow.end.error, ProviderError)


async def test_what_is_kept_has_a_bound_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_KEPT_BYTES", 20)
    flow = Flow(events_of(b"0123456789", b"0123456789"))
    assert len(await flow.all()) > 20
    assert flow.end.is_cut
    assert len(flow.end.body) <= 20


async def test_stored_stream_is_given_again_in_pieces() -> None:
    body = b"x" * 200_000
    assert b"".join([chunk async for chunk in replayed(body)]) == body
