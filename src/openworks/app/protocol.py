"""uvicorn's HTTP protocol with limits on headers, and a short way for the gateway's data plane.

uvicorn limits only the pause between two requests; a client that sends a header byte a minute would
hold its connection for ever, and one that sends headers without end would fill the memory.

Requests of the data plane leave the protocol here, as plain calls: no ASGI messages and one task
each at most, which measures three times as fast. Whatever is unusual about a request (an upgrade,
`Expect`, a page's origin, a pipeline behind another answer) takes the ASGI application's
way instead, which answers the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from openworks.gateway.messages import GatewayAnswer, GatewayRequest
from openworks.ports.upstream import Headers, UpstreamError

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 64 * 1024
"""As in most servers; OpenAI's clients send less than one."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n"
_PAUSE_AT: Final = 8
"""Requests in line from which on no more are read; up to there, a client that leaves is noticed."""
_MAX_PIPELINED: Final = 256
"""Requests in line, of those that came in one go; behind more of them the connection ends."""
_MAX_TICK_S: Final = 1.0
_BODILESS: Final = (204, 304)
_VERSIONS: Final = ("1.1", "1.0")
_LONG_METHODS: Final = (b"HEAD", b"OPTIONS", b"CONNECT")


class Pending(Protocol):
    """A call whose answer must be waited for."""

    async def run(self) -> GatewayAnswer:
        """Return the answer; cancelling it ends the call."""
        ...

    def abandon(self) -> None:
        """End a call that was never run."""
        ...


class Front(Protocol):
    """What stands behind the short way."""

    prefix: bytes
    """Targets that begin with it are the data plane's."""
    max_body_bytes: int

    def too_large(self) -> GatewayAnswer:
        """Return the answer to a body over `max_body_bytes`."""
        ...

    def read(self, method: bytes, target: bytes, headers: Headers) -> GatewayRequest | None:
        """Return the request, without its body, if it may take the short way."""
        ...

    def take_body(self, size: int) -> GatewayAnswer | None:
        """Count bytes of a body that came; an answer refuses them, and they are not counted."""
        ...

    def give_back(self, size: int) -> None:
        """Count bytes of a body that are held no more."""
        ...

    def too_slow(self) -> GatewayAnswer:
        """Return the answer to a body that does not come."""
        ...

    def begin(self, request: GatewayRequest) -> GatewayAnswer | Pending:
        """Return the answer, or what must be run for it."""
        ...

    def ended(self) -> None:
        """Count a request that `begin` took and that is answered."""
        ...

    def failed(self) -> GatewayAnswer:
        """Return the answer to a fault of ours."""
        ...


class Turn:
    """Whose answers leave at the end of this turn of the loop, one connection after the other.

    Between two answers there is time for the client's process to fall asleep, and it is the sender
    who pays for waking it: sent in a row, answers to one client wake it once.
    """

    def __init__(self) -> None:
        self._flushes: list[Callable[[], None]] = []

    def add(self, flush: Callable[[], None]) -> None:
        """Call `flush` at the end of the turn; it must not raise."""
        if not self._flushes:
            asyncio.get_running_loop().call_soon(self._end)
        self._flushes.append(flush)

    def _end(self) -> None:
        flushes, self._flushes = self._flushes, []
        for flush in flushes:
            flush()


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    header_timeout_s: float
    body_timeout_s: float
    front: Front | None
    turn: Turn

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._short: GatewayRequest | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._keep_alive = True
        self._is_old = False
        self._waiting: deque[_Received] = deque()
        self._unsent = b""
        self._task: asyncio.Task[None] | None = None
        self._is_last = False
        self._tick_s = min(_MAX_TICK_S, self.header_timeout_s / 4)
        self._await("headers", self.header_timeout_s)
        self._ticker: asyncio.TimerHandle = self.loop.call_later(self._tick_s, self._tick)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._phase == "headers":
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self._send(_TOO_LARGE)
                self._close()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._short = None
        if not self._is_last:
            self._await("headers", self.header_timeout_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._is_last:
            return
        front, parser = self.front, self.parser
        version, method = parser.get_http_version(), parser.get_method()
        if (
            front is not None
            and self.url.startswith(front.prefix)
            and self._is_plain(version, method)
        ):
            self._short = front.read(method, self.url, self.headers)
        if self._short is not None:
            self._parts = []
            self._size = 0
            self._is_old = version == "1.0"
            self._keep_alive = parser.should_keep_alive() and not self._is_old
            self._await("body", self.body_timeout_s)
        elif self._task is not None or self._waiting:
            # A request for the ASGI application behind one of ours, in one go: answers must come
            # in order, so the connection ends after ours, and the client asks again on a new one.
            self._is_last = True
            self._await("busy", None)
        else:
            self._take_long_way()

    def _should_upgrade(self) -> bool:
        # Elsewhere there are no WebSockets, and the request is answered as an ordinary one.
        front = self.front
        return front is not None and self.url.startswith(front.prefix) and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        if self._is_last:
            return  # it came behind another request, after whose answer the connection ends
        self._ticker.cancel()  # the connection is another protocol's from now on
        self.flush()
        super().handle_websocket_upgrade()

    def _is_plain(self, version: str, method: bytes) -> bool:
        cycle = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and version in _VERSIONS
            and method not in _LONG_METHODS
            and not self.parser.should_upgrade()
        )

    def _take_long_way(self) -> None:
        self._await("asgi", None)
        self.flush()
        url, headers = self.url, self.headers
        super().on_message_begin()  # makes a scope around headers of its own
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = (b"expect", b"100-continue") in [
            (name, value.lower()) for name, value in headers if name == b"expect"
        ]
        super().on_headers_complete()
        if self.cycle is not None and self.parser.get_http_version() == "1.0":
            # uvicorn would answer in chunks, which HTTP/1.0 does not know.
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = cast("int", _ToTheEnd())

    def on_body(self, body: bytes) -> None:
        if self._short is None:
            if not self._is_last:
                super().on_body(body)
            return
        assert self.front is not None
        refused = self.front.take_body(len(body))
        if refused is None and self._size + len(body) > self.front.max_body_bytes:
            self.front.give_back(len(body))
            refused = self.front.too_large()
        if refused is not None:
            self._short = None
            self.front.give_back(self._size)
            self._is_last = True
            self._await("busy", None)
            if self._task is None:
                self._write_whole(refused, keep_alive=False)
                self._close()
            return
        self._size += len(body)
        self._parts.append(body)

    def on_message_complete(self) -> None:
        request = self._short
        if request is None:
            if not self._is_last:
                super().on_message_complete()
            return
        self._short = None
        self._await("busy", None)
        parts = self._parts
        request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        received = _Received(request, self._size, self._keep_alive, self._is_old)
        if self._task is None:
            self._answer(received)
            return
        self._waiting.append(received)
        if len(self._waiting) >= _MAX_PIPELINED:
            self._is_last = True
            self.flow.resume_reading()  # closing with bytes unread would reset the connection
        elif len(self._waiting) >= _PAUSE_AT:
            self.flow.pause_reading()

    def _answer(self, received: _Received) -> None:
        assert self.front is not None
        begun: GatewayAnswer | Pending
        try:
            begun = self.front.begin(received.request)
        except Exception:
            # The boundary of one request, as below.
            log.exception("request.failed", extra={"route": received.request.route})
            begun = self.front.failed()
        if isinstance(begun, GatewayAnswer) and begun.body is not None:
            self._write_whole(begun, keep_alive=received.keep_alive)
            self._ended(received)
            return
        task = self.loop.create_task(self._serve(begun, received))
        self._task = task
        self.tasks.add(task)

        def served(task: asyncio.Task[None]) -> None:
            self.tasks.discard(task)
            if self._task is not task:
                return  # it went on by itself
            self._task = None
            if task.cancelled() and not isinstance(begun, GatewayAnswer):
                begun.abandon()  # it may have been cancelled before its first step
            self._ended(received)

        task.add_done_callback(served)

    async def _serve(self, begun: GatewayAnswer | Pending, received: _Received) -> None:
        """Send one answer; being cancelled is how it learns that the client left."""
        started = False
        try:
            answer = begun if isinstance(begun, GatewayAnswer) else await begun.run()
            started = True
            if answer.body is not None:
                self._write_whole(answer, keep_alive=received.keep_alive)
            else:
                await self._write_stream(answer, received)
        except UpstreamError:
            self._close()  # without the last chunk: the client can tell
        except Exception:
            # The boundary of one request: it fails alone, and the log has the details.
            log.exception("request.failed", extra={"route": received.request.route})
            assert self.front is not None
            if not started and not self.transport.is_closing():
                self._write_whole(self.front.failed(), keep_alive=False)
            self._close()
        # Here, as the task's callback comes a turn of the loop after the answer was written: the
        # client's next request may come before it, and would look like one in line.
        self._task = None
        self._ended(received)

    def _write_whole(self, answer: GatewayAnswer, *, keep_alive: bool) -> None:
        if self.transport.is_closing():
            return
        body = answer.body or b""
        head = _head(answer, keep_alive=keep_alive)
        if answer.status in _BODILESS:
            self._send(head + b"\r\n")
        else:
            self._send(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))

    def _send(self, data: bytes) -> None:
        """Write at the end of this turn."""
        if self._unsent:
            self._unsent += data
        else:
            self._unsent = data
            self.turn.add(self.flush)

    def flush(self) -> None:
        """Write what waits for the end of this turn."""
        unsent, self._unsent = self._unsent, b""
        if unsent and not self.transport.is_closing():
            self.transport.write(unsent)

    def _close(self) -> None:
        self.flush()
        self.transport.close()

    def eof_received(self) -> None:
        self.flush()  # the transport closes after this, perhaps in the turn of the last bytes

    def send_400_response(self, msg: str) -> None:
        self.flush()
        super().send_400_response(msg)

    async def _write_stream(self, answer: GatewayAnswer, received: _Received) -> None:
        chunks, transport, flow = answer.chunks, self.transport, self.flow
        assert chunks is not None
        self.flush()
        try:
            head = _head(answer, keep_alive=received.keep_alive)
            if received.is_old:  # it knows no chunks: the end of the connection ends the answer
                transport.write(head + b"\r\n")
                async for chunk in chunks:
                    if flow.write_paused:
                        await flow.drain()
                    transport.write(chunk)
                return
            transport.write(head + b"transfer-encoding: chunked\r\n\r\n")
            async for chunk in chunks:
                if flow.write_paused:
                    await flow.drain()
                transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            transport.write(b"0\r\n\r\n")
        finally:
            await chunks.aclose()

    def _ended(self, received: _Received) -> None:
        """Go on after an answer: to the next request in line, or to waiting for one."""
        assert self.front is not None
        self.front.give_back(received.size)
        self.front.ended()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not received.keep_alive:
            self._close()
        elif self._waiting:
            if len(self._waiting) <= _PAUSE_AT:
                self.flow.resume_reading()
            self._answer(self._waiting.popleft())
        elif self._is_last:
            self._close()
        else:
            self.flow.resume_reading()
            if self._phase == "busy":
                self._await("idle", self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ticker.cancel()
        if self.front is not None:
            if self._short is not None:
                self._short = None
                self.front.give_back(self._size)
            while self._waiting:
                self.front.give_back(self._waiting.popleft().size)
        if self._task is not None:
            self._task.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._task is not None:
            self._is_last = True
        else:
            self.flush()
            super().shutdown()

    # How long the client may take.

    def _await(self, phase: _Phase, timeout_s: float | None) -> None:
        self._phase = phase
        self._header_bytes = 0
        self._deadline_s = None if timeout_s is None else self.loop.time() + timeout_s

    def _tick(self) -> None:
        """Look at the clock; one slow timer a connection is cheaper than two a request."""
        if self._deadline_s is None or self.loop.time() < self._deadline_s:
            self._ticker = self.loop.call_later(self._tick_s, self._tick)
            return
        if self._phase == "body" and self._task is None and self.front is not None:
            self._write_whole(self.front.too_slow(), keep_alive=False)
        self._close()


_Phase = Literal["headers", "body", "busy", "asgi", "idle"]


class _ToTheEnd:
    """The length of a body that the end of the connection ends: any is right."""

    __hash__ = None  # type: ignore[assignment]  # only ever compared

    def __lt__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False

    def __isub__(self, other: object) -> _ToTheEnd:
        return self


class _Received:
    """A request that has come whole."""

    __slots__ = ("is_old", "keep_alive", "request", "size")

    def __init__(self, request: GatewayRequest, size: int, keep_alive: bool, is_old: bool) -> None:
        self.request = request
        self.size = size
        self.keep_alive = keep_alive
        self.is_old = is_old


def _head(answer: GatewayAnswer, *, keep_alive: bool) -> bytes:
    parts = [STATUS_LINE[answer.status]]
    for name, value in answer.headers:
        parts += (name, b": ", value, b"\r\n")
    if not keep_alive:
        parts.append(b"connection: close\r\n")
    return b"".join(parts)


def protocol_class(
    header_timeout_s: float, *, body_timeout_s: float = 60.0, front: Front | None = None
) -> type[GatewayProtocol]:
    """Return the protocol for `uvicorn.Config(http=...)`, which calls it with its own arguments."""
    return type(
        "Protocol",
        (GatewayProtocol,),
        {
            "header_timeout_s": header_timeout_s,
            "body_timeout_s": body_timeout_s,
            "front": front,
            "turn": Turn(),
        },
    )
