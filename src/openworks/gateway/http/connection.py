"""One connection to a provider: writes a request, parses the answer, then serves the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from openworks.gateway.http.response import Response
from openworks.gateway.http.timer_wheel import NEVER_S
from openworks.ports.upstream import FailureKind, Timeouts, UpstreamError

if TYPE_CHECKING:
    from openworks.gateway.http.pool import Pool

HOLD_BYTES = 256 * 1024
"""What a slow reader leaves with us before the provider has to wait."""

MAX_PARTS = 512
"""Parts of a body held one by one."""

MAX_SILENT_BYTES = 64 * 1024
"""Bytes in a row without body: heads, chunk sizes and their extensions, trailers."""

JOIN_BYTES = 64 * 1024
"""Up to here head and body are copied together, so that they leave in one packet."""


SWITCHING_PROTOCOLS = 101
MAX_STATUS = 599


class AnswerError(Exception):
    """The answer is not HTTP as we accept it; the parser passes it on to `data_received`."""


class Connection(asyncio.Protocol):
    """One at a time: `start` a request, and the `Response` fills as the answer comes."""

    __slots__ = (
        "_finished",
        "_head_only",
        "_in_data",
        "_informational",
        "_keep",
        "_parser",
        "_pool",
        "_response",
        "_silent_bytes",
        "check_s",
        "deadline_s",
        "dropped",
        "forsaken",
        "heard",
        "holds_slot",
        "served",
        "transport",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self.transport: asyncio.Transport | None = None
        self.holds_slot = True
        """Whether its end shall free a slot of the pool."""
        self.forsaken = False
        self.dropped = False
        self._in_data = False
        self.served = 0
        """Answers read to their end."""
        self.heard = False
        """Whether any byte of the present answer came."""
        self.deadline_s = NEVER_S
        self.check_s = NEVER_S
        self._silent_bytes = 0
        self._finished = self._keep = self._head_only = self._informational = False

    # From the pool and the caller

    @property
    def usable(self) -> bool:
        """Whether a request may be written."""
        transport = self.transport
        return transport is not None and not (self.dropped or transport.is_closing())

    def start(self, head: bytes, body: bytes, head_only: bool, timeouts: Timeouts) -> Response:
        """Write a request; the response wakes its waiter at the end of the answer's head."""
        transport = self.transport
        assert transport is not None
        pool = self._pool
        self._response = response = Response(self, pool.loop, timeouts.idle_s)
        self._silent_bytes = 0
        self.heard = self._finished = self._keep = self._informational = False
        self._head_only = head_only
        if len(body) <= JOIN_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        if timeouts.first_byte_s is None:
            self.deadline_s = NEVER_S
        else:
            pool.wheel.arm(self, timeouts.first_byte_s)
        return response

    def abandon(self, response: Response) -> None:
        """The caller wants no more of this answer."""
        if self._response is response:
            self._fail("reset", "was left before the end of its answer")

    def resume(self) -> None:
        """The reader has caught up."""
        response = self._response
        if response is not None and response.paused and self.usable:
            assert self.transport is not None
            response.paused = False
            self.transport.resume_reading()
            if response.idle_s is not None:
                self._pool.wheel.arm(self, response.idle_s)

    def forsake(self) -> None:
        """Nobody waits for it any more; it is closed, also if it only now comes about."""
        self.forsaken = True
        self.drop()

    def drop(self) -> None:
        """Close at once, whatever is under way."""
        transport = self.transport
        if transport is None:
            return
        if self._in_data:
            # uvloop's TLS goes on to write when the protocol has read, and fails, and then does
            # not report the end of the connection.
            self.dropped = True
            self._pool.loop.call_soon(transport.abort)
        else:
            transport.abort()

    def expire(self) -> None:
        """Its deadline: of being idle, of the first byte, or of the next one."""
        response = self._response
        if response is None:
            self.drop()
        elif response.status == 0:
            self._fail("timeout", "did not begin to answer in time")
        else:
            self._fail("timeout", "paused too long within its answer")

    # From the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not all of uvloop's transports are instances of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        if self.forsaken:
            self.transport.abort()
        else:
            self._pool.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline_s = NEVER_S
        self._pool.lost(self)
        response = self._response
        if response is not None:
            if exc is None and response.status and _ends_with_connection(response):
                self._response = None
                response.end(None)
            else:
                self._fail("reset", "closed the connection before the end of its answer")
        # The wheel may hold us some seconds more, and a TLS transport is 256 KiB and more.
        self.transport = None
        del self._parser  # it holds our methods: a cycle

    def data_received(self, data: bytes) -> None:
        self._in_data = True
        response = self._response
        if response is not None:
            self._receive(response, data)
        elif not self.dropped:
            self.drop()  # nobody asked
        self._in_data = False

    def _receive(self, response: Response, data: bytes) -> None:
        self.heard = True
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._finished:
                self._fail("protocol", f"answered what is not HTTP/1.1 ({_reason(exc)})")
                return
            self._keep = False  # something follows a whole answer
        if self._finished:
            self._finish(response)
        elif self._silent_bytes > MAX_SILENT_BYTES:
            self._fail("protocol", f"sent more than {MAX_SILENT_BYTES} bytes of headers")
        elif response.status:
            self._progress(response)

    def _progress(self, response: Response) -> None:
        """The head or a piece of the body came, and more will."""
        if len(response.parts) - response.joined > MAX_PARTS:
            response.join()
        if response.held_bytes > HOLD_BYTES:
            if not response.whole:
                self._pause(response)
            elif response.held_bytes > self._pool.config.max_body_bytes:
                limit = self._pool.config.max_body_bytes
                self._fail("protocol", f"sent a body of more than {limit} bytes")
                return
        if not response.paused:
            if response.idle_s is None:
                self.deadline_s = NEVER_S
            else:
                self._pool.wheel.arm(self, response.idle_s)
        if not response.whole:
            response.wake()

    def _pause(self, response: Response) -> None:
        assert self.transport is not None
        if not response.paused:
            response.paused = True
            self.deadline_s = NEVER_S  # it is the reader who keeps us waiting
            self.transport.pause_reading()

    def _finish(self, response: Response) -> None:
        self._response = None
        self.deadline_s = NEVER_S
        transport = self.transport
        assert transport is not None
        if response.paused:
            response.paused = False
            transport.resume_reading()
        response.end(None)
        # An answer that overtook its request leaves the rest of the request behind.
        if self._keep and not transport.get_write_buffer_size():
            self.served += 1
            self._pool.release(self)
        else:
            self.drop()

    def _fail(self, kind: FailureKind, what: str) -> None:
        response = self._response
        self._response = None
        self.deadline_s = NEVER_S
        self.drop()
        if response is not None:
            message = f"'{self._pool.name}' {what}."
            response.end(UpstreamError(message, kind=kind, unread=False))

    # From the parser

    def on_message_begin(self) -> None:
        if self._finished:
            raise AnswerError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        response = self._response
        if response is not None and not response.status:  # else a trailer
            response.headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        response, parser = self._response, self._parser
        assert response is not None
        status = parser.get_status_code()
        version = parser.get_http_version()
        _check_start(version, status)
        headers = response.headers
        if self._silent_bytes > MAX_SILENT_BYTES:
            _check_size(headers)
        framed = False
        for name, value in headers:
            if name == b"transfer-encoding":
                framed = True
                if value.lower() != b"chunked":
                    raise AnswerError("an unknown transfer coding")
            elif name == b"content-length":
                framed = True
        if status < 200:
            if framed or status < 100 or status == SWITCHING_PROTOCOLS:
                raise AnswerError(f"status {status}")
            self._informational = True
            headers.clear()
            return
        response.status = status
        if self._head_only or status in (204, 304):
            # The parser expects a body where a length is given; we stop here. Without one it
            # will say itself that the message is complete and whether the connection stays.
            self._finished = True

    def on_body(self, body: bytes) -> None:
        if self._finished:
            return
        response = self._response
        assert response is not None
        self._silent_bytes = 0
        response.parts.append(body)
        response.held_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            return
        self._finished = True
        self._keep = self._parser.should_keep_alive()


def _check_start(version: str, status: int) -> None:
    if version not in ("1.1", "1.0"):
        raise AnswerError(f"version {version}")
    if status > MAX_STATUS:
        raise AnswerError(f"status {status}")


def _ends_with_connection(response: Response) -> bool:
    return not any(
        name in (b"content-length", b"transfer-encoding") for name, _ in response.headers
    )


def _check_size(headers: list[tuple[bytes, bytes]]) -> None:
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_SILENT_BYTES:
        raise AnswerError(f"more than {MAX_SILENT_BYTES} bytes of headers")


def _reason(exc: BaseException) -> str:
    """Our own words, or the parser's; never bytes of the answer."""
    if isinstance(exc.__context__, AnswerError):
        return str(exc.__context__)
    return "an upgrade" if isinstance(exc, httptools.HttpParserUpgrade) else str(exc)
