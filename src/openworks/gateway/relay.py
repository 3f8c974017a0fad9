"""A provider's stream on its way to the caller: counted, guarded, kept, and ended honestly."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from openworks.core.clock import Clock
from openworks.core.errors import AppError, ProviderError
from openworks.gateway.attempts import Reply
from openworks.gateway.caching.plan import replay
from openworks.gateway.providers.streams import StreamReader
from openworks.gateway.resilience.breaker import Verdict
from openworks.ports.upstream import UpstreamError

MAX_KEPT_BYTES: Final = 10 << 20
"""What is kept of one body for its log; the rest is only passed on."""


_ERROR_MARK: Final = b'"error"'
_MAX_LINE_BYTES: Final = 65_536


class UnfinishedError(UpstreamError):
    """A stream whose framing ended well, and which lacks the last event of its dialect."""

    def __init__(self, *, was_said: bool) -> None:
        """Say whether the provider's own last event was an error, so that none is added."""
        super().__init__(
            "The provider ended its stream with an error."
            if was_said
            else "The provider's stream ended without its last event.",
            kind="reset",
            unread=False,
            code="provider_error" if was_said else None,
        )
        self.was_said = was_said


class Filter(Protocol):
    """Something that a stream passes through."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave now, which may be nothing.

        Raises:
            BlockedError: The stream must end here.
        """
        ...

    def end(self) -> bytes:
        """Return what was held back, after a stream that ended well."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnd:
    """How a stream ended."""

    error: BaseException | None
    """None when it ended well; a `GeneratorExit` when the caller left."""
    body: bytes
    """What the caller was sent, up to the limit; empty when nothing is kept."""
    is_cut: bool
    """Whether `body` is less than what was sent."""
    first_s: float | None
    """When its first piece came, on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Looks at a stream once it is complete."""

    ask: Callable[[bytes], Awaitable[None]]
    """Raises an `AppError` to refuse it."""
    holds: bool
    """Whether nothing may be shown before it has been asked."""


def relay(
    reply: Reply,
    filters: Sequence[Filter],
    *,
    keep: bool,
    clock: Clock,
    error_event: Callable[[AppError], bytes] | None,
    judge: Judge | None,
    on_end: Callable[[StreamEnd], None],
) -> AsyncGenerator[bytes, None]:
    """Yield what the caller is sent; closing it ends the request at the provider.

    Args:
        reply: An answer that flows.
        filters: What it passes through, in order.
        keep: Whether what is sent is needed at the end.
        clock: Says when the first piece came.
        error_event: Makes the last event of a stream that fails. None for bytes of no known shape,
            where only a cut connection can tell: then the error is raised.
        judge: Is asked about the whole of it.
        on_end: Called exactly once, before the last piece is gone or when the caller leaves, also
            when nothing was ever read.

    Raises:
        UpstreamError: It broke off, and there is no `error_event`.
    """
    passing = _pass(
        reply,
        filters,
        keep=keep,
        clock=clock,
        error_event=error_event,
        judge=judge,
        on_end=on_end,
    )
    return _Flow(passing, reply, on_end)


class _Flow(AsyncGenerator[bytes, None]):
    """A relay that ends its call even when it is closed before its first piece was asked for.

    A generator function alone would run none of its code then: no record, no settled budget, and a
    request that goes on at the provider.
    """

    __slots__ = ("_on_end", "_passing", "_reply")

    def __init__(
        self,
        passing: AsyncGenerator[bytes, None],
        reply: Reply,
        on_end: Callable[[StreamEnd], None],
    ) -> None:
        self._passing = passing
        self._reply: Reply | None = reply
        self._on_end = on_end

    def __aiter__(self) -> AsyncIterator[bytes]:  # one call less a piece
        self._reply = None
        return self._passing

    async def __anext__(self) -> bytes:
        self._reply = None
        return await anext(self._passing)

    async def asend(self, value: None) -> bytes:
        self._reply = None
        return await self._passing.asend(value)

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> bytes:
        await self.aclose()
        raise typ

    async def aclose(self) -> None:
        reply, self._reply = self._reply, None
        if reply is None:
            await self._passing.aclose()
            return
        await self._passing.aclose()  # never begun: nothing of it runs
        try:
            await reply.discard()
        finally:
            self._on_end(StreamEnd(error=GeneratorExit(), body=b"", is_cut=False, first_s=None))


async def _pass(
    reply: Reply,
    filters: Sequence[Filter],
    *,
    keep: bool,
    clock: Clock,
    error_event: Callable[[AppError], bytes] | None,
    judge: Judge | None,
    on_end: Callable[[StreamEnd], None],
) -> AsyncGenerator[bytes, None]:
    keeper = _Keeper(keep=keep or judge is not None, limit=MAX_KEPT_BYTES)
    pieces = _pieces(reply, filters, keeper, clock)
    error: BaseException | None = None
    try:
        if judge is None or not judge.holds:
            async for piece in pieces:
                yield piece
        else:
            async for _ in pieces:
                pass
        if judge is not None:
            held = await _judged(judge, keeper)
            if held:
                yield held
    except AppError as exc:
        error = exc
        if error_event is None:
            raise
        event = b"" if _was_said(exc) else error_event(exc)
        if event:
            keeper.add(event)
            yield event
    except BaseException as exc:
        error = exc
        raise
    finally:
        assert reply.on_end is not None
        try:
            await pieces.aclose()  # first: a model of this server has counted once it has ended
        finally:
            reply.on_end(_verdict(error))
            on_end(
                StreamEnd(
                    error=error,
                    body=keeper.whole() if keep else b"",
                    is_cut=keeper.is_cut,
                    first_s=keeper.first_s,
                )
            )


async def _judged(judge: Judge, keeper: _Keeper) -> bytes:
    """Return what was held back, once it has been judged; nothing where it was shown already."""
    await judge.ask(keeper.whole())
    if not judge.holds:
        return b""
    if keeper.is_cut:
        raise ProviderError(
            f"The answer is longer than the {MAX_KEPT_BYTES >> 20} MiB that can be held back until "
            "a guardrail has judged them.",
            code="answer_too_long",
        )
    return keeper.whole()


def _was_said(error: AppError) -> bool:
    return isinstance(error, UnfinishedError) and error.was_said


async def _pieces(
    reply: Reply, filters: Sequence[Filter], keeper: _Keeper, clock: Clock
) -> AsyncGenerator[bytes, None]:
    """Read, count and filter."""
    chunks, reader = reply.chunks, reply.reader
    assert chunks is not None
    held, reply.held = reply.held, []
    if held:
        keeper.first_s = clock.monotonic_s()
    line = b""  # what has come of an event or line that has not ended
    last = held[-1] if held else b""
    try:
        if held:
            line, passed = _whole_lines(b"".join(held), reader)
            passed = _through(filters, passed)
            if passed:
                keeper.add(passed)
                yield passed
        async for chunk in chunks:
            if keeper.first_s is None:
                keeper.first_s = clock.monotonic_s()
            if reader is not None:
                reader.feed(chunk)
                last = chunk
                if line or reader.unfinished_bytes:
                    line, chunk = _whole_lines(line + chunk, reader)
            passed = _through(filters, chunk) if filters and chunk else chunk
            if passed:
                keeper.add(passed)
                yield passed
        _check_finished(reader, last + line)
        rest = _rest(filters, line)
        if rest:
            keeper.add(rest)
            yield rest
    finally:
        await chunks.aclose()


def _check_finished(reader: StreamReader | None, last: bytes) -> None:
    """Return if a stream that ended has had the last event of its dialect."""
    if reader is not None and reader.has_content and not reader.is_finished:
        raise UnfinishedError(was_said=_ERROR_MARK in last)


def _whole_lines(data: bytes, reader: StreamReader | None) -> tuple[bytes, bytes]:
    """Split off the last line, which has not ended.

    If the stream breaks there, nobody sees a piece of JSON before the error event. A line that is
    longer than any sensible one passes in pieces.
    """
    open_bytes = 0 if reader is None else reader.unfinished_bytes
    if not open_bytes or len(data) > _MAX_LINE_BYTES:
        return b"", data
    return data[-open_bytes:], data[:-open_bytes]


class _Keeper:
    """What was sent, up to a limit."""

    __slots__ = ("_limit", "_parts", "_size", "first_s")

    def __init__(self, *, keep: bool, limit: int) -> None:
        self._parts: list[bytes] | None = [] if keep else None
        self._size = 0
        self._limit = limit
        self.first_s: float | None = None

    def add(self, piece: bytes) -> None:
        """Take note of a piece."""
        if self._parts is not None:
            self._size += len(piece)
            if self._size <= self._limit:
                self._parts.append(piece)

    @property
    def is_cut(self) -> bool:
        """Whether there was more than is kept."""
        return self._size > self._limit

    def whole(self) -> bytes:
        """Return what is kept, as one."""
        if not self._parts:
            return b""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]


def _through(filters: Sequence[Filter], chunk: bytes) -> bytes:
    for each in filters:
        chunk = each.feed(chunk)
        if not chunk:
            break
    return chunk


def _rest(filters: Sequence[Filter], rest: bytes) -> bytes:
    """End the filters one after the other; what one held back passes through the next ones."""
    for each in filters:
        rest = (each.feed(rest) if rest else b"") + each.end()
    return rest


def _verdict(error: BaseException | None) -> Verdict:
    if error is None:
        return "ok"
    return "truncated" if isinstance(error, UpstreamError) else "neutral"


async def replayed(body: bytes) -> AsyncGenerator[bytes, None]:
    """Give a stored stream again, in pieces."""
    for piece in replay(body):
        yield bytes(piece)
