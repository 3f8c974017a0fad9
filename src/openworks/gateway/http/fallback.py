"""`ports.upstream.Transport` over aiohttp: for proxies and servers that our own client refuses."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from types import SimpleNamespace, TracebackType

import aiohttp
from aiohttp.http_exceptions import (
    ContentLengthError,
    HttpProcessingError,
    TransferEncodingError,
)
from yarl import URL

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.request_head import HeadWriter, host_header
from openworks.gateway.http.resolver import PublicResolver
from openworks.gateway.http.tls import client_context
from openworks.ports.upstream import (
    Counted,
    FailureKind,
    Headers,
    Origin,
    Timeouts,
    UpstreamError,
    UpstreamRequest,
)

STALE_WITHIN_S = 2.0
"""As in `transport.py`: how soon a reused connection must end to have been closed before."""

_READ_BUFFER_BYTES = 128 * 1024  # aiohttp pauses the server at twice as much
_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 1024
_MAX_BYTES_AT_ONCE = 1024 * 1024  # aiohttp warns beyond, and wants a file


class _Attempt:
    """What aiohttp's tracing tells of one attempt, and the time it is given."""

    __slots__ = ("first_byte_s", "patience", "reused", "sent_s", "unanswered")

    def __init__(self, first_byte_s: float | None) -> None:
        self.first_byte_s = first_byte_s
        self.patience: asyncio.Timeout | None = None
        self.reused = False
        self.sent_s: float | None = None
        self.unanswered = False
        """The connection ended in order, and certainly before a byte of an answer."""


class AiohttpTransport:
    """A session without cookies, redirects, decompression or an environment.

    Must be made and used within one running loop.
    """

    def __init__(self, config: HttpConfig | None = None) -> None:
        """Connect to nothing yet.

        Args:
            config: Its `client` is not looked at here; the defaults when None.

        Raises:
            OSError: `ca_file` cannot be read or holds no certificate.
        """
        self._config = config if config is not None else HttpConfig()
        self._loop = asyncio.get_running_loop()
        self._heads = HeadWriter()
        self._requests: dict[Origin, int] = {}
        self._responses: set[_AiohttpResponse] = set()
        self._public_hosts: set[str] = set()
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        trace.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=self._config.max_connections,
                keepalive_timeout=self._config.idle_expiry_s,
                ssl=client_context(self._config),
                resolver=PublicResolver(self._public_hosts),
                use_dns_cache=False,
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trust_env=False,
            trace_configs=[trace],
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
        )

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> _AiohttpResponse:
        origin = request.origin
        self._heads.write(request, host_header(origin))  # for what it refuses
        requests = self._requests.get(origin, 0)
        if self._session.closed:
            message = "The connections to providers are closed."
            raise UpstreamError(message, kind="connect", unread=True)
        if requests >= self._config.max_connections + self._config.max_waiting:
            message = f"Too many requests wait for a connection to '{_name(origin)}'."
            raise UpstreamError(message, kind="overloaded", unread=True)
        self._requests[origin] = requests + 1
        if origin.is_public:
            self._public_hosts.add(origin.host)
        response = None
        try:
            answer = await self._ask(request, timeouts)
            response = _AiohttpResponse(self, origin, answer, timeouts.idle_s)
            self._responses.add(response)
        finally:
            if response is None:
                self.count_ended(origin)
        return response

    async def close(self) -> None:
        for response in list(self._responses):
            response.abort()
        await self._session.close()

    @property
    def max_body_bytes(self) -> int:
        """What may be read whole."""
        return self._config.max_body_bytes

    def count_ended(self, origin: Origin, response: _AiohttpResponse | None = None) -> None:
        """A request is over; called once for each."""
        if response is not None:
            self._responses.discard(response)
        left = self._requests[origin] - 1
        if left:
            self._requests[origin] = left
        else:
            del self._requests[origin]

    async def _ask(self, request: UpstreamRequest, timeouts: Timeouts) -> aiohttp.ClientResponse:
        """Ask until the connection was not a stale one: each of those is gone afterwards."""
        while True:
            attempt = _Attempt(timeouts.first_byte_s)
            try:
                return await self._ask_once(request, timeouts, attempt)
            except UpstreamError:
                sent_s = attempt.sent_s
                late = sent_s is not None and self._loop.time() - sent_s > STALE_WITHIN_S
                if not (attempt.unanswered and attempt.reused) or late or self._session.closed:
                    raise

    async def _ask_once(
        self, request: UpstreamRequest, timeouts: Timeouts, attempt: _Attempt
    ) -> aiohttp.ClientResponse:
        origin = request.origin
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = request.target.decode("ascii")
        url = URL(f"{origin.scheme}://{host}:{origin.port}{target}", encoded=True)
        try:
            async with asyncio.timeout(None) as patience:
                attempt.patience = patience
                answer = await self._session.request(
                    request.method.decode("ascii"),
                    url,
                    headers=[(name.decode(), value.decode()) for name, value in request.headers],
                    data=_payload(request.body),
                    allow_redirects=False,
                    proxy=self._config.proxy,
                    timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect_s),
                    trace_request_ctx=attempt,
                )
        except UnicodeDecodeError as exc:
            message = "A header of the request is not UTF-8, which this client needs."
            raise UpstreamError(message, kind="protocol", unread=True) from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:  # OSError: also TimeoutError
            # Of a reset aiohttp does not say whether something had come before.
            if isinstance(exc, aiohttp.ServerDisconnectedError):
                attempt.unanswered = isinstance(exc.message, str)
            raise _translated(exc, origin, sent=attempt.sent_s is not None) from exc
        if answer.status == 101:
            answer.close()
            raise _error(origin, "protocol", "answered with an upgrade", unread=False)
        return answer


class _AiohttpResponse:
    """`UpstreamResponse` over aiohttp's."""

    def __init__(
        self,
        transport: AiohttpTransport,
        origin: Origin,
        answer: aiohttp.ClientResponse,
        idle_s: float | None,
    ) -> None:
        self._transport, self._origin = transport, origin
        self._answer, self._idle_s = answer, idle_s
        self._over = False
        self.status = answer.status
        self.headers: Headers = [(name.lower(), value) for name, value in answer.raw_headers]

    @property
    def counted(self) -> Counted | None:
        return None

    async def read(self) -> bytes:
        parts, size_bytes = [], 0
        while part := await self.next_part():
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > self._transport.max_body_bytes:
                self.abort()
                what = f"sent a body of more than {self._transport.max_body_bytes} bytes"
                raise _error(self._origin, "protocol", what, unread=False)
        return b"".join(parts)

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return _Chunks(self)

    def abort(self) -> None:
        self._answer.close()
        self._end()

    async def next_part(self) -> bytes:
        """Return what came, or nothing at the end."""
        if self._over:
            return b""
        part = None
        try:
            async with asyncio.timeout(self._idle_s):
                part = await self._answer.content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _translated(exc, self._origin, sent=True) from exc
        finally:
            if part is None:
                self.abort()
        if not part:
            self._answer.release()
            self._end()
        return part

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._transport.count_ended(self._origin, self)


class _Chunks(AsyncGenerator[bytes, None]):
    """As in `response.py`: closing it before its first step must end the request too."""

    def __init__(self, response: _AiohttpResponse) -> None:
        self._response = response

    async def __anext__(self) -> bytes:
        part = await self._response.next_part()
        if not part:
            raise StopAsyncIteration
        return part

    async def asend(self, value: None) -> bytes:
        return await self.__anext__()

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> bytes:
        self._response.abort()
        raise typ

    async def aclose(self) -> None:
        self._response.abort()


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    if not body:
        return None
    return body if len(body) <= _MAX_BYTES_AT_ONCE else io.BytesIO(body)


async def _note_reuse(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.reused = True


async def _note_sent(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    attempt: _Attempt = context.trace_request_ctx
    attempt.sent_s = asyncio.get_running_loop().time()
    if attempt.patience is not None and attempt.first_byte_s is not None:
        attempt.patience.reschedule(attempt.sent_s + attempt.first_byte_s)


def _translated(exc: Exception, origin: Origin, *, sent: bool) -> UpstreamError:
    kind, what = _failure(exc, sent=sent)
    return _error(origin, kind, what, unread=not sent or kind in ("connect", "tls"))


def _failure(exc: Exception, *, sent: bool) -> tuple[FailureKind, str]:
    match exc:
        case TimeoutError():
            return "timeout", "did not answer in time" if sent else "was not reached in time"
        case aiohttp.ClientSSLError():
            return "tls", "did not agree on TLS"
        case aiohttp.ClientConnectorError() | aiohttp.ClientProxyConnectionError():
            return "connect", "could not be connected to"
        case aiohttp.InvalidURL() | UnicodeError():
            return "connect", "is not a host name"
        case aiohttp.ClientResponseError() | ValueError():
            return "protocol", "answered what is not HTTP"
        case aiohttp.ClientPayloadError() if _is_broken_framing(exc.__cause__):
            return "protocol", "answered what is not HTTP"
        case _:
            return "reset", "closed the connection before the end of its answer"


def _is_broken_framing(cause: BaseException | None) -> bool:
    """Whether the body was not HTTP, rather than too short."""
    too_short = isinstance(cause, ContentLengthError | TransferEncodingError)
    return isinstance(cause, HttpProcessingError) and not too_short


def _error(origin: Origin, kind: FailureKind, what: str, *, unread: bool) -> UpstreamError:
    return UpstreamError(f"'{_name(origin)}' {what}.", kind=kind, unread=unread)


def _name(origin: Origin) -> str:
    return f"{origin.host}:{origin.port}"
