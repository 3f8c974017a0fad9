"""How the gateway speaks to a provider: one HTTP request, one answer, whole or as it flows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from openworks.core.errors import ProviderError
from openworks.ports.calls import Usage

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Names in lower case, in the order and number in which they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where connections go; those of one origin share a pool."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    is_public: bool = False
    """Whether no private address may be connected to, whatever the name resolves to: for origins
    that an account chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """What is sent; the body goes out byte for byte."""

    origin: Origin
    method: bytes
    target: bytes = field(repr=False)
    """Path and query, already encoded: what stands between the method and `HTTP/1.1`."""
    headers: Headers = field(repr=False)
    """Without `host`, `content-length` and hop-by-hop headers, which are the transport's."""
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How patient to be; None is for ever. Each ends the request with an `UpstreamError`."""

    connect_s: float | None = 10.0
    """Until the connection stands, TLS included."""
    first_byte_s: float | None = 600.0
    """From the request being sent to the status line."""
    idle_s: float | None = 300.0
    """Between two pieces of the body."""


FailureKind: TypeAlias = Literal["connect", "tls", "timeout", "reset", "protocol", "overloaded"]


class UpstreamError(ProviderError):
    """No answer, or one that broke off.

    `kind` is `connect` (name not found, refused, no route), `tls`, `timeout` (of any sort), `reset`
    (the connection ended too early), `protocol` (not HTTP) or `overloaded` (our own pool is full).
    """

    default_code = "upstream_failed"

    def __init__(
        self, message: str, *, kind: FailureKind, unread: bool, code: str | None = None
    ) -> None:
        """Hold what happened.

        Args:
            message: Names the host and what it did; ends with a full stop.
            kind: What went wrong.
            unread: The provider cannot have read the request, so asking again is safe.
            code: The class's own when None.
        """
        super().__init__(message, code=code)
        self.kind: FailureKind = kind
        self.unread = unread


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a model of this server counted."""

    usage: Usage
    deployment: str | None
    """The catalogue id that the model's name stood for."""


class UpstreamResponse(Protocol):
    """An answer whose head has come.

    Exactly one of `read`, `chunks` and `abort` must be called; whoever stops reading before the end
    calls `abort` (or closes the iterator), which ends the request at the provider too.
    """

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Headers:
        """All headers of the final (not 1xx) head."""
        ...

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamError: It broke off, or paused for too long: never a part of it.
        """
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes, decoded from its transfer coding, never an empty piece.

        When the reader is slow, reading from the provider pauses (about 256 KiB are held).

        Raises:
            UpstreamError: It broke off, after what came had been yielded.
        """
        ...

    def abort(self) -> None:
        """Close the connection; safe to call at any time, also twice or after the end."""
        ...


class CountingResponse(Protocol):
    """An answer of this server itself, which knows what it took."""

    @property
    def counted(self) -> Counted | None:
        """What was counted; complete once the answer has ended."""
        ...


class Transport(Protocol):
    """Sends requests. Cancelling `send`, `read` or `chunks` closes the connection at once."""

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send, and return when the head of the answer has come, whatever its status.

        Raises:
            UpstreamError: None came.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
