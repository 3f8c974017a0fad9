"""One suite over both transports, on both event loops, against a provider that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, cast

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.gateway.http.choice import open_transport
from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.fallback import AiohttpTransport
from openworks.gateway.http.transport import Http1Transport
from openworks.ports.upstream import (
    FailureKind,
    Headers,
    Origin,
    Timeouts,
    Transport,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from tests.gateway.stand_in import Reply, Request, StandIn

# The hook that shall replace this fixture holds for whole folders, and this is one module's matter.
pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

POLICIES = {"uvloop": uvloop.EventLoopPolicy, "asyncio": asyncio.DefaultEventLoopPolicy}
MakeTransport = Callable[..., Transport]
PATIENT = Timeouts(connect_s=5.0, first_byte_s=5.0, idle_s=5.0)
STREAM_HEADERS = (("content-type", "text/event-stream"),)


@pytest.fixture(params=POLICIES)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = POLICIES[request.param]()
    return policy


@pytest.fixture(params=["http1", "aiohttp"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make(client: str) -> AsyncIterator[MakeTransport]:
    async with contextlib.AsyncExitStack() as stack:

        def make_one(**config: Any) -> Transport:
            transport = open_transport(HttpConfig(client=client, **config))  # type: ignore[arg-type] # a parameter
            stack.push_async_callback(transport.close)
            return transport

        yield make_one


@pytest.fixture
async def transport(make: MakeTransport) -> Transport:
    return make()


@pytest.fixture
async def provider() -> AsyncIterator[StandIn]:
    async with StandIn(script=lambda request: Reply(body=b"hello")) as running:
        yield running


def ask(
    provider: StandIn,
    *,
    method: bytes = b"POST",
    target: bytes = b"/v1/x",
    headers: Headers | None = None,
    body: bytes = b'{"model":"mock"}',
    host: str | None = None,
) -> UpstreamRequest:
    origin = Origin(
        scheme="https" if provider.tls else "http", host=host or provider.host, port=provider.port
    )
    return UpstreamRequest(
        origin=origin, method=method, target=target, headers=headers or [], body=body
    )


async def whole(transport: Transport, request: UpstreamRequest) -> bytes:
    return await (await transport.send(request, PATIENT)).read()


async def pieces(response: UpstreamResponse) -> tuple[list[bytes], UpstreamError | None]:
    """What came, and how it ended."""
    got: list[bytes] = []
    try:
        async for piece in response.chunks():
            got.append(piece)
    except UpstreamError as error:
        return got, error
    return got, None


async def failure(doing: Coroutine[Any, Any, object]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await asyncio.wait_for(doing, 8.0)
    assert str(caught.value).endswith(".")
    return caught.value


# What is sent


async def test_request_goes_out_byte_for_byte(provider: StandIn, transport: Transport) -> None:
    headers = [(b"x-a", b"one"), (b"x-b", b""), (b"x-a", "zwei ü".encode())]
    request = ask(provider, target=b"/a%2Fb//c?q=%20&r=a+b", headers=headers, body=b"\x00\xff\r\n")
    assert await whole(transport, request) == b"hello"
    seen = provider.requests[0]
    assert (seen.method, seen.target) == ("POST", "/a%2Fb//c?q=%20&r=a+b")
    assert seen.body == b"\x00\xff\r\n"
    sent = [(name.lower(), value) for name, value in seen.headers]
    assert [header for header in sent if header[0].startswith(b"x-")] == headers
    others = {name: value for name, value in sent if not name.startswith(b"x-")}
    assert others.pop(b"host") == f"127.0.0.1:{provider.port}".encode()
    assert others == {b"content-length": b"4"}


@pytest.mark.parametrize(("method", "length"), [(b"GET", None), (b"POST", "0"), (b"PUT", "0")])
async def test_empty_body_has_a_length_where_one_is_expected(
    provider: StandIn, transport: Transport, method: bytes, length: str | None
) -> None:
    await whole(transport, ask(provider, method=method, body=b""))
    assert provider.requests[0].header("content-length") == length


async def test_large_body_arrives_whole(provider: StandIn, transport: Transport) -> None:
    body = bytes(range(256)) * 40_000
    await whole(transport, ask(provider, body=body))
    assert provider.requests[0].body == body


@pytest.mark.parametrize(
    "change",
    [
        {"headers": [(b"x-a", b"1\r\nx-b: 2")]},
        {"headers": [(b"x-a", b"1\nx-b: 2")]},
        {"headers": [(b"x-a", b"1\r")]},
        {"headers": [(b"x-a", b"a\0b")]},
        {"headers": [(b"x-a: 1\r\nx-b", b"2")]},
        {"headers": [(b"x a", b"1")]},
        {"headers": [(b"x-a:", b"1")]},
        {"headers": [(b"", b"1")]},
        {"headers": [(b"transfer-encoding", b"chunked")]},
        {"headers": [(b"Content-Length", b"0")]},
        {"headers": [(b"expect", b"100-continue")]},
        {"headers": [(b"upgrade", b"websocket")]},
        {"headers": [(b"host", b"elsewhere")]},
        {"target": b"/a HTTP/1.1\r\nx-b: 2\r\n\r\n"},
        {"target": b"/a b"},
        {"target": b""},
        {"target": "/ü".encode()},
        {"method": b"GET /other HTTP/1.1\r\n\r\nPOST"},
        {"method": b""},
        {"host": "127.0.0.1\r\nx-b: 2"},
        {"host": "user@127.0.0.1"},
    ],
)
async def test_what_would_smuggle_is_refused_before_a_byte_is_sent(
    provider: StandIn, transport: Transport, change: dict[str, Any]
) -> None:
    error = await failure(transport.send(ask(provider, **change), PATIENT))
    assert (error.kind, error.unread) == ("protocol", True)
    assert provider.counters.connections == 0


# What comes back

LARGE = b"0123456789abcdef" * 50_000
FRAMINGS = {
    "length": Reply(body=b"hello world"),
    "empty": Reply(body=b""),
    "chunked": Reply(body=b"hello world", chunked=True),
    "many chunks": Reply(chunks=[b"hello", b" ", b"world"]),
    "unframed": Reply(body=b"hello world", unframed=True),
    "unframed pieces": Reply(chunks=[b"hello", b" world"], unframed=True, chunk_delay_s=0.01),
    "http/1.0": Reply(body=b"hello world", http10=True, unframed=True),
    "http/1.0 kept": Reply(body=b"hello world", http10=True),
    "close": Reply(body=b"hello world", keep_alive=False),
    "early hints": Reply(
        body=b"hello world",
        informational=(
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        ),
    ),
    "no content": Reply(status=204),
    "not modified": Reply(status=304),
    "large": Reply(body=LARGE),
    "large chunked": Reply(body=LARGE, chunked=True),
    "trailers": Reply(
        raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"b;name=value\r\nhello world\r\n0\r\nx-trailer: 1\r\n\r\n"
    ),
    "error": Reply(status=503, body=b"hello world"),
    "tiny chunks": Reply(
        raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"2\r\nab\r\n" * 300_000
        + b"0\r\n\r\n"
    ),
}


def expected_body(reply: Reply) -> bytes:
    if reply is FRAMINGS["tiny chunks"]:
        return b"ab" * 300_000
    if reply.raw is not None:
        return b"hello world"
    return b"".join(reply.chunks) if reply.chunks is not None else reply.body


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_every_framing_is_read_whole_and_in_pieces(
    provider: StandIn, transport: Transport, framing: str
) -> None:
    reply = FRAMINGS[framing]
    provider.script(lambda request: reply)
    for _ in range(2):  # the second may find a connection left behind by the first
        response = await transport.send(ask(provider), PATIENT)
        assert response.status == reply.status
        assert await response.read() == expected_body(reply)
        got, error = await pieces(await transport.send(ask(provider), PATIENT))
        assert error is None
        assert b"".join(got) == expected_body(reply)
        assert all(got)


async def test_headers_come_in_order_in_lower_case_and_without_trailers(
    provider: StandIn, transport: Transport
) -> None:
    provider.queue(
        Reply(
            raw=b"HTTP/1.1 103 Early\r\nx-early: 1\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a\r\n"
            b"X-B:  two \r\nset-cookie: \xfc\r\ntransfer-encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nx-late: 1\r\n\r\n"
        )
    )
    response = await transport.send(ask(provider), PATIENT)
    assert await response.read() == b"a"
    assert response.headers == [
        (b"set-cookie", b"a"),
        (b"x-b", b"two"),
        (b"set-cookie", b"\xfc"),
        (b"transfer-encoding", b"chunked"),
    ]


async def test_gzip_is_passed_on_unchanged(provider: StandIn, transport: Transport) -> None:
    provider.script(lambda request: Reply(body=b"hello" * 100, gzip=True))
    response = await transport.send(ask(provider), PATIENT)
    assert (b"content-encoding", b"gzip") in response.headers
    assert gzip.decompress(await response.read()) == b"hello" * 100


async def test_redirects_and_cookies_are_the_callers_business(
    provider: StandIn, transport: Transport
) -> None:
    headers = (("location", "/elsewhere"), ("set-cookie", "a=b"))
    provider.script(lambda request: Reply(status=302, headers=headers))
    for _ in range(2):
        response = await transport.send(ask(provider), PATIENT)
        assert response.status == 302
        assert await response.read() == b""
    assert [request.target for request in provider.requests] == ["/v1/x"] * 2
    assert all(request.header("cookie") is None for request in provider.requests)


async def test_answer_to_head_has_a_length_and_no_body(
    provider: StandIn, transport: Transport
) -> None:
    for _ in range(2):
        response = await transport.send(ask(provider, method=b"HEAD", body=b""), PATIENT)
        assert (b"content-length", b"5") in response.headers
        assert await response.read() == b""
    assert await whole(transport, ask(provider)) == b"hello"


class Hasty(asyncio.Protocol):
    """Answers after the first bytes and reads no more."""

    made: list[asyncio.Transport]

    def __init__(self, made: list[asyncio.Transport]) -> None:
        self.made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.append(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self.made[-1].pause_reading()
        self.made[-1].write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")


async def test_answer_that_overtakes_its_request_is_read(transport: Transport) -> None:
    made: list[asyncio.Transport] = []
    server = await asyncio.get_running_loop().create_server(lambda: Hasty(made), "127.0.0.1", 0)
    origin = Origin(scheme="http", host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    for _ in range(2):  # the second must not follow the rest of the first request
        request = UpstreamRequest(
            origin=origin, method=b"POST", target=b"/", headers=[], body=b"x" * 20_000_000
        )
        response = await transport.send(request, PATIENT)
        assert response.status == 413
        assert await response.read() == b"big"
    assert len(made) == 2
    for connection in made:
        connection.abort()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 2x0 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_protocol_error(
    provider: StandIn, transport: Transport, raw: bytes
) -> None:
    provider.queue(Reply(raw=raw))
    error = await failure(whole(transport, ask(provider)))
    assert (error.kind, error.unread) == ("protocol", False)
    assert str(provider.port) in str(error)


# Broken off

CUT = {
    "length": Reply(body=b"hello world"),
    "chunked": Reply(chunks=[b"hello", b" world"]),
}


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("framing", CUT)
async def test_answer_cut_at_any_byte_never_looks_whole(
    provider: StandIn, transport: Transport, framing: str, reset: bool
) -> None:
    reply = CUT[framing]
    provider.queue(reply)
    assert await whole(transport, ask(provider)) == b"hello world"
    size_bytes = provider.counters.bytes_written
    for cut in range(1, size_bytes):
        # A connection of its own for each, for a reused one may be asked again.
        cut_reply = Reply(body=reply.body, chunks=reply.chunks, cut_after_bytes=cut, reset=reset)
        provider.queue(cut_reply)
        error = await failure(whole(transport, ask(provider)))
        assert (error.kind, error.unread) == ("reset", False), cut


@pytest.mark.parametrize("framing", CUT)
async def test_stream_cut_at_any_byte_yields_what_came_and_then_fails(
    provider: StandIn, transport: Transport, framing: str
) -> None:
    reply = CUT[framing]
    provider.queue(reply)
    await whole(transport, ask(provider))
    size_bytes = provider.counters.bytes_written
    seen = set()
    for cut in range(1, size_bytes):
        provider.queue(Reply(body=reply.body, chunks=reply.chunks, cut_after_bytes=cut))
        got: list[bytes] = []
        try:
            response = await transport.send(ask(provider), PATIENT)
        except UpstreamError as error:
            broken: UpstreamError | None = error
        else:
            got, broken = await pieces(response)
        assert broken is not None, cut
        assert broken.kind == "reset"
        assert b"hello world".startswith(b"".join(got))
        seen.add(b"".join(got))
    assert b"hello" in seen


async def test_reset_without_an_answer_says_that_it_may_have_been_read(
    provider: StandIn, transport: Transport
) -> None:
    for reset in (False, True):
        provider.queue(Reply(raw=b"", silent_close=True, reset=reset))
        error = await failure(transport.send(ask(provider), PATIENT))
        assert (error.kind, error.unread) == ("reset", False)


# Not reached


async def test_refused_connection_leaves_the_request_unread(transport: Transport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        origin = Origin(scheme="http", host="127.0.0.1", port=unused.getsockname()[1])
    request = UpstreamRequest(origin=origin, method=b"GET", target=b"/", headers=[], body=b"")
    error = await failure(transport.send(request, PATIENT))
    assert (error.kind, error.unread) == ("connect", True)


async def test_name_without_an_address_leaves_the_request_unread(transport: Transport) -> None:
    for host in ("nowhere.invalid", "a" * 64 + ".invalid"):
        origin = Origin(scheme="http", host=host, port=80)
        request = UpstreamRequest(origin=origin, method=b"GET", target=b"/", headers=[], body=b"")
        error = await failure(transport.send(request, PATIENT))
        assert (error.kind, error.unread) == ("connect", True)


async def test_name_with_addresses_of_both_families_is_reached(
    provider: StandIn, transport: Transport
) -> None:
    # The stand-in listens on IPv4 alone, whatever `localhost` stands for here.
    assert await whole(transport, ask(provider, host="localhost")) == b"hello"


# Timeouts


@pytest.mark.parametrize(
    ("reply", "timeouts"),
    [
        (Reply(hang=True), Timeouts(first_byte_s=0.2, idle_s=None)),
        (Reply(body=b"hello", hang=True, cut_after_bytes=10), Timeouts(first_byte_s=0.2)),
        (Reply(body=b"hello", hang=True, cut_after_bytes=74), Timeouts(idle_s=0.2)),
    ],
    ids=["silence", "within the head", "within the body"],
)
async def test_silence_times_out_and_ends_the_request(
    provider: StandIn, transport: Transport, reply: Reply, timeouts: Timeouts
) -> None:
    provider.queue(reply)
    started_s = asyncio.get_running_loop().time()

    async def read() -> None:
        await (await transport.send(ask(provider), timeouts)).read()

    error = await failure(read())
    assert (error.kind, error.unread) == ("timeout", False)
    assert 0.19 < asyncio.get_running_loop().time() - started_s < 1.0
    await provider.until(lambda: provider.counters.aborted == 1, timeout_s=1.0)


async def test_stream_that_pauses_too_long_fails_after_what_came(
    provider: StandIn, transport: Transport
) -> None:
    provider.queue(Reply(chunks=[b"a", b"b"], hang=True, cut_after_chunks=1))
    response = await transport.send(ask(provider), Timeouts(idle_s=0.2))
    got, error = await pieces(response)
    assert got == [b"a"]
    assert error is not None
    assert error.kind == "timeout"


async def test_stream_longer_than_every_timeout_goes_on_while_pieces_come(
    provider: StandIn, transport: Transport
) -> None:
    provider.queue(Reply(chunks=[b"a"] * 10, chunk_delay_s=0.1))
    timeouts = Timeouts(connect_s=0.5, first_byte_s=0.5, idle_s=0.5)
    got, error = await pieces(await transport.send(ask(provider), timeouts))
    assert error is None
    assert b"".join(got) == b"a" * 10


async def test_handshake_that_never_ends_times_out_unread(make: MakeTransport) -> None:
    left = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        left.set()
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    async with server:
        origin = Origin(scheme="https", host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        request = UpstreamRequest(origin=origin, method=b"GET", target=b"/", headers=[], body=b"")
        error = await failure(make().send(request, Timeouts(connect_s=0.2)))
        assert (error.kind, error.unread) == ("timeout", True)
        await asyncio.wait_for(left.wait(), 1.0)
        left.clear()
        task = asyncio.create_task(make().send(request, Timeouts(connect_s=None)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), 1.0)


# Slow readers, and those who leave


async def test_slow_reader_pauses_the_provider(provider: StandIn, transport: Transport) -> None:
    piece, count = b"x" * 65_536, 1000
    provider.queue(Reply(chunks=[piece] * count))
    response = await transport.send(ask(provider), Timeouts(idle_s=0.3))
    written = -1
    while written != provider.counters.bytes_written:  # until nothing moves for a while
        written = provider.counters.bytes_written
        await asyncio.sleep(0.4)
    assert 0 < written < 32_000_000
    got, error = await pieces(response)
    assert error is None
    assert sum(map(len, got)) == len(piece) * count


async def test_body_larger_than_allowed_is_not_read_whole(
    provider: StandIn, make: MakeTransport
) -> None:
    transport = make(max_body_bytes=1_000_000)
    provider.script(lambda request: Reply(body=b"x" * 3_000_000))
    error = await failure(whole(transport, ask(provider)))
    assert error.kind == "protocol"
    got, broken = await pieces(await transport.send(ask(provider), PATIENT))
    assert broken is None
    assert sum(map(len, got)) == 3_000_000


@pytest.mark.parametrize("stage", ["send", "read", "chunks"])
async def test_cancelled_caller_ends_the_request_at_the_provider(
    provider: StandIn, transport: Transport, stage: str
) -> None:
    waits = Reply(hang=True) if stage == "send" else Reply(chunks=[b"a"] * 100, chunk_delay_s=0.05)
    provider.queue(waits)
    begun = asyncio.Event()

    async def call() -> None:
        begun.set()
        response = await transport.send(ask(provider), PATIENT)
        if stage == "read":
            await response.read()
        async for _ in response.chunks():
            pass

    task = asyncio.create_task(call())
    await begun.wait()
    await provider.until(lambda: provider.counters.requests == 1)
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider.until(lambda: provider.counters.aborted == 1, timeout_s=1.0)
    assert await whole(transport, ask(provider)) == b"hello"


@pytest.mark.parametrize("how", ["abort", "close unstarted", "close started", "break"])
async def test_caller_that_stops_reading_ends_the_request(
    provider: StandIn, transport: Transport, how: str
) -> None:
    provider.queue(Reply(chunks=[b"a"] * 100, chunk_delay_s=0.05))
    response = await transport.send(ask(provider), PATIENT)
    chunks = response.chunks()
    if how == "abort":
        response.abort()
        response.abort()
    else:
        if how != "close unstarted":
            assert await anext(chunks) == b"a"
        await chunks.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
    await provider.until(lambda: provider.counters.aborted == 1, timeout_s=1.0)


async def test_abort_after_the_end_leaves_the_connection_for_the_next(
    provider: StandIn, transport: Transport
) -> None:
    for _ in range(3):
        response = await transport.send(ask(provider), PATIENT)
        assert await response.read() == b"hello"
        response.abort()
    assert provider.counters.connections == 1


# The pool


async def test_requests_one_after_the_other_share_a_connection(
    provider: StandIn, transport: Transport
) -> None:
    for _ in range(20):
        await whole(transport, ask(provider))
    assert provider.counters.connections == 1


async def test_many_requests_at_once_get_an_answer_of_their_own(
    provider: StandIn, make: MakeTransport
) -> None:
    def echo(request: Request) -> Reply:
        return Reply(body=request.body, delay_s=0.01, chunked=len(request.body) % 2 == 0)

    provider.script(echo)
    transport = make(max_connections=64)
    bodies = [b"request %d" % i for i in range(500)]
    answers = await asyncio.gather(*(whole(transport, ask(provider, body=b)) for b in bodies))
    assert answers == bodies
    assert provider.counters.connections <= 64
    assert provider.counters.served == 500


async def test_requests_beyond_the_bounds_are_refused_and_the_rest_served(
    provider: StandIn, make: MakeTransport
) -> None:
    transport = make(max_connections=2, max_waiting=3)
    provider.script(lambda request: Reply(body=b"hello", delay_s=0.2))
    answers = await asyncio.gather(
        *(whole(transport, ask(provider)) for _ in range(8)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, UpstreamError)]
    assert [(error.kind, error.unread) for error in refused] == [("overloaded", True)] * 3
    assert answers.count(b"hello") == 5
    assert provider.counters.connections == 2


async def test_waiting_for_a_connection_counts_as_connecting(
    provider: StandIn, make: MakeTransport
) -> None:
    transport = make(max_connections=1)
    provider.queue(Reply(body=b"slow", delay_s=0.6))
    first = asyncio.create_task(whole(transport, ask(provider)))
    await provider.until(lambda: provider.counters.requests == 1)
    error = await failure(transport.send(ask(provider), Timeouts(connect_s=0.1)))
    assert (error.kind, error.unread) == ("timeout", True)
    waiting = asyncio.create_task(whole(transport, ask(provider)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert await first == b"slow"
    assert await whole(transport, ask(provider)) == b"hello"
    assert provider.counters.requests == 2


async def test_place_of_a_broken_connection_goes_to_the_next_in_the_queue(
    provider: StandIn, make: MakeTransport
) -> None:
    transport = make(max_connections=1)
    provider.queue(Reply(hang=True, cut_after_bytes=3, body=b"x"))
    first = asyncio.create_task(whole(transport, ask(provider)))
    await provider.until(lambda: provider.counters.requests == 1)
    others = [asyncio.create_task(whole(transport, ask(provider))) for _ in range(3)]
    await asyncio.sleep(0.05)
    provider.drop_connections()
    await failure(asyncio.wait_for(first, 5))
    assert await asyncio.wait_for(asyncio.gather(*others), 5) == [b"hello"] * 3


async def test_idle_connection_that_the_provider_closed_is_not_used(
    provider: StandIn, transport: Transport
) -> None:
    for reset in (False, True):
        assert await whole(transport, ask(provider)) == b"hello"
        provider.drop_connections(reset=reset)
        await provider.until(lambda: provider.counters.open == 0)
        assert await whole(transport, ask(provider)) == b"hello"


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
async def test_stale_connection_is_replaced_without_the_caller_knowing(
    provider: StandIn, transport: Transport, client: str, reset: bool
) -> None:
    if reset and client == "aiohttp":
        pytest.skip("aiohttp does not tell whether a reset came before the first byte")
    await whole(transport, ask(provider))
    provider.queue(Reply(raw=b"", silent_close=True, reset=reset))  # as if it had just timed out
    assert await whole(transport, ask(provider)) == b"hello"
    assert provider.counters.connections == 2


async def test_request_that_fails_on_a_fresh_connection_too_is_not_asked_again(
    provider: StandIn, transport: Transport
) -> None:
    await whole(transport, ask(provider))
    provider.script(lambda request: Reply(raw=b"", silent_close=True))
    error = await failure(transport.send(ask(provider), PATIENT))
    assert (error.kind, error.unread) == ("reset", False)
    assert provider.counters.requests == 3


async def test_reused_connection_that_ends_late_is_not_asked_again(
    provider: StandIn, transport: Transport
) -> None:
    await whole(transport, ask(provider))
    provider.script(lambda request: Reply(raw=b"", silent_close=True, delay_s=2.2))
    error = await failure(transport.send(ask(provider), PATIENT))
    assert (error.kind, error.unread) == ("reset", False)
    assert provider.counters.requests == 2


async def test_idle_connections_are_closed_after_a_while(
    provider: StandIn, make: MakeTransport
) -> None:
    transport = make(idle_expiry_s=0.3)
    await whole(transport, ask(provider))
    assert provider.counters.open == 1
    await provider.until(lambda: provider.counters.open == 0, timeout_s=3.0)
    assert await whole(transport, ask(provider)) == b"hello"


async def test_answer_nobody_asked_for_is_never_given_to_the_next_request(
    provider: StandIn, transport: Transport
) -> None:
    poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"
    for extra in (poison, b"HTTP/1.1 2", b"x"):
        provider.queue(Reply(raw=answer + extra))
        with contextlib.suppress(UpstreamError):
            assert await whole(transport, ask(provider)) == b"first"
        assert await whole(transport, ask(provider)) == b"hello"


async def test_close_ends_what_is_under_way_and_refuses_what_comes(
    provider: StandIn, client: str
) -> None:
    transport = open_transport(HttpConfig(client=client, max_connections=2))  # type: ignore[arg-type] # a parameter
    provider.script(lambda request: Reply(chunks=[b"a"] * 100, chunk_delay_s=0.05))
    under_way = [
        asyncio.create_task(whole(transport, ask(provider)))
        for _ in range(3 if client == "http1" else 2)
    ]
    await provider.until(lambda: provider.counters.bytes_written > 300)
    await transport.close()
    await transport.close()
    for task in under_way:
        await failure(asyncio.wait_for(task, 2.0))
    await provider.until(lambda: provider.counters.open == 0, timeout_s=1.0)
    error = await failure(transport.send(ask(provider), PATIENT))
    assert (error.kind, error.unread) == ("connect", True)
    assert len(asyncio.all_tasks()) <= 1 + provider.counters.open


# TLS


async def test_certificate_that_nobody_vouches_for_is_refused(make: MakeTransport) -> None:
    async with StandIn(tls=True) as provider:
        error = await failure(make().send(ask(provider), PATIENT))
        assert (error.kind, error.unread) == ("tls", True)
        assert not provider.requests


async def test_certificate_of_the_ca_file_is_trusted_for_its_names_alone(
    make: MakeTransport,
) -> None:
    async with StandIn(tls=True, script=lambda request: Reply(body=LARGE)) as provider:
        transport = make(ca_file=provider.ca_file)
        assert await whole(transport, ask(provider)) == LARGE
        assert await whole(transport, ask(provider, host="localhost")) == LARGE
        error = await failure(transport.send(ask(provider, host="127.0.0.2"), PATIENT))
        assert error.kind in ("tls", "connect")  # nothing listens there unless 127/8 is all local
        provider.script(lambda request: Reply(body=b"hello", cut_after_bytes=60))
        assert (await failure(whole(transport, ask(provider)))).kind == "reset"


async def test_without_verification_any_certificate_will_do(make: MakeTransport) -> None:
    async with StandIn(tls=True, script=lambda request: Reply(body=b"hello")) as provider:
        assert await whole(make(verify=False), ask(provider)) == b"hello"


async def test_plain_server_behind_https_is_a_tls_failure(
    provider: StandIn, transport: Transport
) -> None:
    origin = Origin(scheme="https", host="127.0.0.1", port=provider.port)
    request = UpstreamRequest(origin=origin, method=b"GET", target=b"/", headers=[], body=b"")
    error = await failure(transport.send(request, PATIENT))
    assert error.kind == "tls"


# Our own client alone


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2.0 200 OK\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/0.9 200 OK\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n"
        b"1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 1\n\na",
        b"HTTP/1.1 103 Early\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000 + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 200_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 1_000_000,
    ],
)
async def test_our_client_refuses_what_others_let_pass(provider: StandIn, raw: bytes) -> None:
    transport = Http1Transport()
    provider.queue(Reply(raw=raw))
    error = await failure(whole(transport, ask(provider)))
    assert error.kind == "protocol"
    await transport.close()


@pytest.mark.parametrize("seed", range(4))
async def test_no_connection_is_lost_when_callers_leave_at_any_moment(
    provider: StandIn, seed: int
) -> None:
    chance = random.Random(seed)
    config = HttpConfig(max_connections=5, max_waiting=30, idle_expiry_s=0.1)
    transport = Http1Transport(config)

    def script(request: Request) -> Reply:
        delay_s = chance.choice([0, 0, 0.005, 0.02])
        return chance.choice(
            [
                Reply(body=b"hello", delay_s=delay_s),
                Reply(body=b"hello", delay_s=delay_s, keep_alive=False),
                Reply(body=b"hello", delay_s=delay_s, silent_close=True),
                Reply(chunks=[b"hello"] * 5, chunk_delay_s=0.003),
                Reply(body=b"hello", cut_after_bytes=chance.randrange(1, 79), reset=True),
            ]
        )

    async def call() -> None:
        await asyncio.sleep(chance.random() * 0.5)
        timeouts = Timeouts(connect_s=chance.choice([0.05, 1.0]), first_byte_s=0.3, idle_s=0.3)
        with contextlib.suppress(UpstreamError):
            await (await transport.send(ask(provider), timeouts)).read()

    provider.script(script)
    calls = [asyncio.create_task(call()) for _ in range(300)]
    for task in calls:
        if chance.random() < 0.5:
            asyncio.get_running_loop().call_later(chance.random() * 0.6, task.cancel)
    await asyncio.wait(calls, timeout=20)
    assert all(task.done() for task in calls)
    # Every slot is back: five connections at once, as in the beginning.
    provider.script(lambda request: Reply(body=b"hello", delay_s=0.1))
    assert await asyncio.gather(*(whole(transport, ask(provider)) for _ in range(5)))
    await asyncio.wait_for(transport.close(), 2.0)
    await provider.until(lambda: provider.counters.open == 0)


# The two against each other


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A well-formed answer, mostly."""
    body = draw(st.binary(max_size=40))
    status = draw(st.sampled_from([200, 200, 200, 204, 304, 404, 500]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    headers = draw(
        st.lists(st.sampled_from([b"x-a: 1", b"X-B:", b"connection: close"]), max_size=3)
    )
    early = b"HTTP/1.1 103 Early\r\nx-c: 1\r\n\r\n" * draw(st.integers(0, 2))
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    if status in (204, 304):
        body, framing = b"", "end"
    if framing == "length":
        headers.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked" and version == b"1.1":
        headers.append(b"Transfer-Encoding: chunked")
        size = draw(st.integers(1, 10))
        chunks = [body[i : i + size] for i in range(0, len(body), size)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        body = framed + b"0\r\n" + b"x-d: 1\r\n" * draw(st.integers(0, 1)) + b"\r\n"
    head = b"\r\n".join([b"HTTP/%b %d OK" % (version, status), *headers])
    return early + head + b"\r\n\r\n" + body


@st.composite
def damaged_answers(draw: st.DrawFn) -> bytes:
    """One with a few bytes changed, gone or added."""
    answer = bytearray(draw(answers()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(answer)))
        new = draw(st.sampled_from([b"", b"\r", b"\n", b"0", b"9", b":", b" ", b"\x00", b"a"]))
        answer[at : at + draw(st.integers(0, 2))] = new
    return bytes(answer)


Outcome = tuple[int, bytes] | None


async def outcome(transport: Transport, request: UpstreamRequest) -> Outcome:
    timeouts = Timeouts(connect_s=2.0, first_byte_s=2.0, idle_s=2.0)
    try:
        response = await transport.send(request, timeouts)
        return response.status, await response.read()
    except UpstreamError:
        return None


@contextlib.contextmanager
def both() -> Iterator[Callable[[bytes, bool], tuple[Outcome, Outcome]]]:
    """What our client makes of some bytes, and what aiohttp does."""
    with asyncio.Runner() as runner:
        provider = StandIn()
        clients: list[Transport] = []

        async def start() -> None:
            await provider.__aenter__()
            clients.extend([Http1Transport(), AiohttpTransport()])

        async def stop() -> None:
            for client in clients:
                await client.close()
            await provider.__aexit__(None, None, None)

        async def compare(raw: bytes, reset: bool) -> tuple[Outcome, Outcome]:
            outcomes = []
            for client in clients:
                provider.queue(Reply(raw=raw, silent_close=True, reset=reset))
                outcomes.append(await outcome(client, ask(provider)))
                await provider.until(lambda: provider.counters.open == 0)
            return outcomes[0], outcomes[1]

        runner.run(start())
        try:
            yield lambda raw, reset: runner.run(compare(raw, reset))
        finally:
            runner.run(stop())


def test_both_clients_read_the_same_from_any_answer_and_any_part_of_it() -> None:
    with both() as compare:

        @settings(max_examples=250, deadline=None)
        @given(answer=answers(), cut=st.none() | st.integers(0, 120))
        def agree(answer: bytes, cut: int | None) -> None:
            ours, theirs = compare(answer if cut is None else answer[:cut], False)
            assert ours == theirs

        agree()


def test_our_client_believes_no_damaged_answer_that_aiohttp_refuses_or_reads_differently() -> None:
    with both() as compare:

        @settings(max_examples=400, deadline=None)
        @given(answer=damaged_answers())
        def no_more_lenient(answer: bytes) -> None:
            ours, theirs = compare(answer, False)
            if ours is None or ours == theirs:
                return
            # aiohttp takes back a whole answer for what follows it; ours only drops the connection.
            assert theirs is None
            assert any(compare(answer[:end], False)[1] == ours for end in range(len(answer)))

        no_more_lenient()


# By itself


def test_config_chooses_the_client() -> None:
    async def chosen(config: HttpConfig) -> type:
        transport = open_transport(config)
        await transport.close()
        return type(transport)

    assert asyncio.run(chosen(HttpConfig())) is Http1Transport
    assert asyncio.run(chosen(HttpConfig(client="aiohttp"))) is AiohttpTransport
    assert asyncio.run(chosen(HttpConfig(proxy="http://127.0.0.1:1"))) is AiohttpTransport


async def test_proxy_carries_the_request(provider: StandIn) -> None:
    transport = open_transport(HttpConfig(proxy=provider.url))
    origin = Origin(scheme="http", host="provider.invalid", port=80)
    request = UpstreamRequest(origin=origin, method=b"GET", target=b"/a", headers=[], body=b"")
    assert await whole(transport, request) == b"hello"
    assert provider.requests[0].target == "http://provider.invalid/a"
    await transport.close()


async def test_nothing_is_left_behind(provider: StandIn, client: str) -> None:
    transport = open_transport(HttpConfig(client=client))  # type: ignore[arg-type] # a parameter
    for _ in range(20):
        provider.queue(Reply(body=b"hello", cut_after_bytes=70))
        with contextlib.suppress(UpstreamError):
            await whole(transport, ask(provider))
        await whole(transport, ask(provider))
    await transport.close()
    await provider.until(lambda: provider.counters.open == 0, timeout_s=1.0)
    gc.collect()  # a transport left open would warn, and a warning is an error


def test_kinds_are_those_of_the_port() -> None:
    kinds: tuple[FailureKind, ...] = (
        "connect",
        "tls",
        "timeout",
        "reset",
        "protocol",
        "overloaded",
    )
    assert len(set(kinds)) == 6
