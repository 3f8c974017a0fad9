"""A provider on loopback that answers as told, also wrongly, and counts what it did.

    async with StandIn() as provider:            # answers as OpenAI and as Anthropic by path
        ...provider.url...
        provider.queue(Reply(status=429, body=b"{}"))                     # the next request only
        provider.script(lambda request: Reply(body=b"hello"))             # every later request
        assert provider.counters.aborted == 0

A model whose name starts with `mock` steers its answer, as in the benchmark's provider:
`-dN` wait N ms first, `-cN` N ms between the events of a stream, `-xCODE` answer that status,
`-kN` cut the connection (RST) after N events or within a whole body, `-h` never answer; and here
also `-tN` N completion tokens and `-pN` N prompt tokens: `mock-d50`, `mock-c5-k10`, `mock-x429`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import ipaddress
import json
import re
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httptools
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    """Path and query."""
    headers: Headers
    """Names as they were sent."""
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        wanted = name.lower().encode()
        return next((v.decode("latin-1") for n, v in self.headers if n.lower() == wanted), None)

    def json(self) -> Any:
        """The body, or an empty dict when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def model(self) -> str:
        """The model that the body names, or an empty string."""
        body = self.json()
        return str(body.get("model", "")) if isinstance(body, dict) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What an answer says that it used."""

    model: str
    prompt: int
    completion: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, and how to deliver it."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)
    body: bytes = b""
    chunks: Iterable[bytes] | None = None
    """Instead of `body`: each is written by itself and, unless `unframed`, as an HTTP chunk."""
    chunked: bool = False
    """Send `body` with `Transfer-Encoding: chunked`, as one chunk."""
    unframed: bool = False
    """No length of any kind: the end of the connection is the end of the body."""
    gzip: bool = False
    """Compress `body` and say so."""
    http10: bool = False
    keep_alive: bool = True
    """Whether the connection stays open after the answer; False also says `Connection: close`."""
    silent_close: bool = False
    """Close after the answer without having said so, as an idle timeout would."""
    informational: Sequence[bytes] = ()
    """Whole 1xx heads to send first, such as `b"HTTP/1.1 103 Early Hints\\r\\n\\r\\n"`."""
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    cut_after_bytes: int | None = None
    """End the connection after so many bytes of the answer, counted from its first head byte."""
    cut_after_chunks: int | None = None
    reset: bool = False
    """Cut with a TCP reset instead of an orderly end; without a cut, after the whole answer."""
    hang: bool = False
    """Instead of the cut stay silent; without a cut, before the first byte."""
    raw: bytes | None = None
    """Exactly these bytes, whatever the rest says."""
    tokens: Tokens | None = None
    """Counted as served once the whole answer is written."""
    content_chunks: int | None = None
    """How many of `chunks` carry one completion token each."""
    lead_chunks: int = 0
    """How many of `chunks` come before those."""


Script = Callable[[Request], Reply]


@dataclass(slots=True)
class Counters:
    """What truly happened; compare a ledger with these."""

    connections: int = 0
    open: int = 0
    requests: int = 0
    served: int = 0
    """Answers written to their end."""
    aborted: int = 0
    """Requests whose caller went away before the end of the answer."""
    cut: int = 0
    """Answers that the stand-in itself broke off."""
    bytes_written: int = 0
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    """By model, as said in usage of answers written to their end."""
    completion_tokens: Counter[str] = field(default_factory=Counter)
    unsaid_tokens: Counter[str] = field(default_factory=Counter)
    """Completion tokens sent in streams that ended before they said their usage."""
    by_status: Counter[int] = field(default_factory=Counter)
    """Served answers by HTTP status."""


class StandIn:
    """The provider; an async context manager."""

    def __init__(
        self,
        *,
        tls: bool = False,
        script: Script | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        keep_requests: int = 10_000,
    ) -> None:
        """Make one; it listens from `async with` on.

        Args:
            tls: Serve TLS with a certificate of its own, whose file is `ca_file`.
            script: What to answer; `answer_as_provider` when None.
            host: Where to listen.
            port: 0 takes a free one.
            keep_requests: How many of the latest requests `requests` holds.
        """
        self.requests: deque[Request] = deque(maxlen=keep_requests)
        self.counters = Counters()
        self.host, self.port, self.tls = host, port, tls
        self._script = script or answer_as_provider
        self._queue: deque[Reply] = deque()
        self._connections: set[_Connection] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Scheme, host and port; no slash at the end."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def ca_file(self) -> str:
        """The certificate to trust (PEM)."""
        assert self._folder is not None, "ca_file needs tls=True and a running stand-in"
        return str(Path(self._folder.name) / "cert.pem")

    def script(self, script: Script) -> None:
        """Answer every later request so, unless the queue holds a reply."""
        self._script = script

    def queue(self, *replies: Reply) -> None:
        """Answer the next requests with these, in order, before the script is asked."""
        self._queue.extend(replies)

    def clear(self) -> None:
        """Forget what was queued, asked and counted; connections stay, and stay counted."""
        self._queue.clear()
        self.requests.clear()
        counters = self.counters
        self.counters = Counters(connections=counters.connections, open=counters.open)

    def reply_to(self, request: Request) -> Reply:
        """What to answer."""
        return self._queue.popleft() if self._queue else self._script(request)

    async def until(self, true: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Return when `true()` is, or fail."""
        deadline_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline_s, f"still not so after {timeout_s} s"
            await asyncio.sleep(0.002)

    def drop_connections(self, *, reset: bool = False) -> None:
        """End every open connection now, also idle ones."""
        for connection in list(self._connections):
            connection.end(reset=reset)

    async def __aenter__(self) -> Self:
        context = None
        if self.tls:
            self._folder = tempfile.TemporaryDirectory()
            context = _server_context(Path(self._folder.name))
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self, self._connections), self.host, self.port, ssl=context
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [c.task for c in self._connections if c.task is not None]
        for connection in list(self._connections):
            connection.end(reset=True)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        with contextlib.suppress(AssertionError):
            await self.until(lambda: not self._connections, timeout_s=1.0)
        if self._folder is not None:
            self._folder.cleanup()


@contextlib.contextmanager
def stand_in_on_thread(stand_in: StandIn) -> Iterator[StandIn]:
    """Run it on a loop in a thread of its own, for tests that block."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with stand_in:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10), "the stand-in did not start"
    try:
        yield stand_in
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@dataclass(slots=True)
class _Written:
    """How far an answer has come."""

    chunks: int = 0
    whole: bool = False


class _Connection(asyncio.Protocol):
    """One caller: requests in, one answer after the other."""

    def __init__(self, owner: StandIn, connections: set[_Connection]) -> None:
        self._owner, self._connections = owner, connections
        self._pending: deque[Request] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self.task: asyncio.Task[None] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._cutting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not all of uvloop's transports are instances of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=64 * 1024)
        self._connections.add(self)
        self._owner.counters.connections += 1
        self._owner.counters.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._owner.counters.open -= 1
        self._writable.set()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: Headers = []
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method().decode(),
            target=self._url.decode("latin-1"),
            headers=self._headers,
            body=bytes(self._body),
        )
        self._pending.append(request)
        self._owner.requests.append(request)
        self._owner.counters.requests += 1
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._answer_all())

    async def _answer_all(self) -> None:
        try:
            while self._pending:
                request = self._pending.popleft()
                reply = self._owner.reply_to(request)
                try:
                    await self._answer(request, reply)
                except asyncio.CancelledError:
                    if not self._cutting:
                        self._owner.counters.aborted += 1
                    raise
                if self._transport.is_closing():
                    return
        finally:
            self.task = None

    async def _answer(self, request: Request, reply: Reply) -> None:
        written = _Written()
        try:
            if reply.delay_s:
                await asyncio.sleep(reply.delay_s)
            if reply.hang and reply.cut_after_bytes is None and reply.cut_after_chunks is None:
                await asyncio.Event().wait()
            if not await self._deliver(request, reply, written):
                await self._break_off(reply)
                return
        finally:
            if reply.tokens is not None and not written.whole:
                unsaid = min(written.chunks - reply.lead_chunks, reply.content_chunks or 0)
                self._owner.counters.unsaid_tokens[reply.tokens.model] += max(0, unsaid)
        self._count_served(reply)
        if reply.reset:
            self.end(reset=True)
        elif reply.unframed or reply.silent_close or not reply.keep_alive:
            self.end(reset=False)

    async def _deliver(self, request: Request, reply: Reply, written: _Written) -> bool:
        """Write the answer; False when it is to be cut where it now stands."""
        left = reply.cut_after_bytes
        for piece, is_chunk in _pieces(request, reply):
            if is_chunk and written.chunks == reply.cut_after_chunks:
                return False
            if is_chunk and written.chunks and reply.chunk_delay_s:
                await asyncio.sleep(reply.chunk_delay_s)
            await self._write(piece if left is None else piece[:left])
            if left is not None:
                left -= len(piece)
                if left <= 0:
                    return False
            written.chunks += is_chunk
        written.whole = True
        return True

    def _count_served(self, reply: Reply) -> None:
        counters = self._owner.counters
        counters.served += 1
        counters.by_status[reply.status] += 1
        if reply.tokens is not None:
            counters.prompt_tokens[reply.tokens.model] += reply.tokens.prompt
            counters.completion_tokens[reply.tokens.model] += reply.tokens.completion

    async def _write(self, piece: bytes) -> None:
        if piece:
            self._transport.write(piece)
            self._owner.counters.bytes_written += len(piece)
        await self._writable.wait()
        if self._transport.is_closing():  # the caller left while we waited
            await asyncio.Event().wait()

    async def _break_off(self, reply: Reply) -> None:
        if reply.hang:
            await asyncio.Event().wait()
        self._owner.counters.cut += 1
        self._cutting = True
        self.end(reset=reply.reset)

    def end(self, *, reset: bool) -> None:
        """End the connection: by a reset, or in order after what was written."""
        if reset:
            if (sock := self._transport.get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):  # the caller may have closed it already
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        else:
            self._transport.close()


def _pieces(request: Request, reply: Reply) -> Iterator[tuple[bytes, bool]]:
    """The bytes of an answer, each with whether it is one of its chunks."""
    if reply.raw is not None:
        yield reply.raw, False
        return
    for head in reply.informational:
        yield head, False
    bodiless = request.method == "HEAD" or reply.status in (204, 304)
    body = gzip.compress(reply.body) if reply.gzip else reply.body
    chunked = (reply.chunks is not None or reply.chunked) and not (reply.unframed or reply.http10)
    head = _head(
        reply, None if reply.unframed or chunked or reply.chunks is not None else len(body)
    )
    if bodiless:
        yield head, False
    elif reply.chunks is None:
        whole = body if not chunked else _framed(body) + b"0\r\n\r\n"
        yield head + whole, False
    else:
        yield head, False
        for chunk in reply.chunks:
            yield (_framed(chunk) if chunked else chunk), True
        if chunked:
            yield b"0\r\n\r\n", False


def _framed(chunk: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""


def _head(reply: Reply, length: int | None) -> bytes:
    version = "1.0" if reply.http10 else "1.1"
    lines = [f"HTTP/{version} {reply.status} Said"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if reply.gzip:
        lines.append("content-encoding: gzip")
    if not reply.keep_alive:
        lines.append("connection: close")
    elif reply.http10 and length is not None:
        lines.append("connection: keep-alive")
    if length is not None and reply.status not in (204, 304):
        lines.append(f"content-length: {length}")
    elif (reply.chunks is not None or reply.chunked) and not (reply.unframed or reply.http10):
        lines.append("transfer-encoding: chunked")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# What a provider says


def answer_as_provider(request: Request) -> Reply:
    """OpenAI's or Anthropic's answer by path, steered by the model's name."""
    body = request.json()
    asked = body if isinstance(body, dict) else {}
    model = str(asked.get("model", ""))
    steer = _steering(model)
    if request.path.endswith("/models"):
        listed = {"id": "mock", "object": "model", "created": 1, "owned_by": "mock"}
        return _json_reply({"object": "list", "data": [listed]})
    if "x" in steer:
        return _steered(_error_reply(request, steer["x"]), steer)
    tokens = Tokens(model=model, prompt=steer.get("p", 120), completion=steer.get("t", 64))
    if request.path.endswith("/messages"):
        make = anthropic_stream if asked.get("stream") is True else anthropic_message
        return _steered(make(tokens), steer)
    if request.path.endswith("/embeddings"):
        inputs = asked.get("input", "")
        return _steered(embeddings(model, len(inputs) if isinstance(inputs, list) else 1), steer)
    if asked.get("stream") is True:
        options = asked.get("stream_options") or {}
        return _steered(chat_stream(tokens, usage=options.get("include_usage") is True), steer)
    if request.path.endswith("/completions"):
        return _steered(chat_completion(tokens), steer)
    return Reply(status=404, body=b'{"error":{"message":"No such path.","type":"not_found"}}')


def chat_completion(tokens: Tokens, content: str | None = None) -> Reply:
    """A whole `chat.completion`."""
    said = content if content is not None else "lorem ipsum dolor sit amet " * 20
    message = {"role": "assistant", "content": said, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    answer = {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": tokens.model,
        "choices": [choice],
        "usage": _openai_usage(tokens),
    }
    return replace(_json_reply(answer), tokens=tokens)


def chat_stream(tokens: Tokens, *, usage: bool = True) -> Reply:
    """A stream of `chat.completion.chunk`: one per token, usage if asked for, `[DONE]`."""

    def event(delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _openai_event(tokens.model, [choice], None)

    events = [
        event(
            {"role": "assistant", "content": " tok0"} if i == 0 else {"content": f" tok{i}"},
            "stop" if i == tokens.completion - 1 else None,
        )
        for i in range(tokens.completion)
    ]
    if usage:
        events.append(_openai_event(tokens.model, [], _openai_usage(tokens)))
    events.append(b"data: [DONE]\n\n")
    return _stream_reply(events, tokens)


def anthropic_message(tokens: Tokens, content: str = "lorem ipsum dolor sit amet") -> Reply:
    """A whole `message`."""
    answer = {
        "id": "msg_mock",
        "type": "message",
        "role": "assistant",
        "model": tokens.model,
        "content": [{"type": "text", "text": content}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": tokens.prompt, "output_tokens": tokens.completion},
    }
    return replace(_json_reply(answer), tokens=tokens)


def anthropic_stream(tokens: Tokens) -> Reply:
    """message_start, one content_block_delta per token, message_delta with usage, message_stop."""
    usage = {"input_tokens": tokens.prompt, "output_tokens": 1}
    message: dict[str, Any] = {
        "id": "msg_mock",
        "type": "message",
        "role": "assistant",
        "model": tokens.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    text = {"type": "text", "text": ""}
    events = [
        _anthropic_event("message_start", message=message)
        + _anthropic_event("content_block_start", index=0, content_block=text)
        + _anthropic_event("ping")
    ]
    events += [
        _anthropic_event(
            "content_block_delta", index=0, delta={"type": "text_delta", "text": f" tok{i}"}
        )
        for i in range(tokens.completion)
    ]
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    said = {"output_tokens": tokens.completion}
    events.append(_anthropic_event("content_block_stop", index=0))
    events.append(_anthropic_event("message_delta", delta=end, usage=said))
    events.append(_anthropic_event("message_stop"))
    return replace(_stream_reply(events, tokens), lead_chunks=1)


def embeddings(model: str, count: int, dimensions: int = 8) -> Reply:
    """One vector per input."""
    tokens = Tokens(model=model, prompt=8 * count, completion=0)
    data = [
        {"object": "embedding", "index": i, "embedding": [0.125] * dimensions} for i in range(count)
    ]
    usage = {"prompt_tokens": tokens.prompt, "total_tokens": tokens.prompt}
    answer = {"object": "list", "data": data, "model": model, "usage": usage}
    return replace(_json_reply(answer), tokens=tokens)


def _openai_usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _openai_event(model: str, choices: list[Any], usage: dict[str, Any] | None) -> bytes:
    chunk: dict[str, Any] = {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": model,
        "choices": choices,
    }
    if usage is not None:
        chunk["usage"] = usage
    return b"data: " + _dump(chunk) + b"\n\n"


def _anthropic_event(type_: str, **fields: Any) -> bytes:
    return f"event: {type_}\ndata: ".encode() + _dump({"type": type_, **fields}) + b"\n\n"


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _json_reply(value: Any) -> Reply:
    headers = (("content-type", "application/json"), ("x-request-id", "req_mock"))
    return Reply(headers=headers, body=_dump(value))


def _stream_reply(events: list[bytes], tokens: Tokens) -> Reply:
    headers = (("content-type", "text/event-stream"), ("x-request-id", "req_mock"))
    return Reply(headers=headers, chunks=events, tokens=tokens, content_chunks=tokens.completion)


def _error_reply(request: Request, status: int) -> Reply:
    error = {"message": f"mock {status}", "type": "mock_error", "param": None, "code": "mock"}
    headers = [("content-type", "application/json")]
    if status == 429:
        headers.append(("retry-after", "1"))
    kind = {"type": "error"} if request.path.endswith("/messages") else {}
    return Reply(status=status, headers=headers, body=_dump({**kind, "error": error}))


def _steering(model: str) -> dict[str, int]:
    name = model.rpartition("/")[2]
    if not name.startswith("mock"):
        return {}
    return {letter: int(number or 0) for letter, number in re.findall(r"-([dcxkhtp])(\d*)", name)}


def _steered(reply: Reply, steer: dict[str, int]) -> Reply:
    whole = reply.chunks is None
    cut = "k" in steer
    return replace(
        reply,
        delay_s=steer.get("d", 0) / 1000,
        chunk_delay_s=steer.get("c", 0) / 1000,
        hang="h" in steer,
        reset=cut,
        cut_after_bytes=len(reply.body) // 2 if cut and whole else None,
        cut_after_chunks=steer["k"] if cut and not whole else None,
    )


def _server_context(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = dt.datetime.now(dt.UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
