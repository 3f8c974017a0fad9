"""What a translator is: OpenAI's request to a provider's own, and its answers back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from openworks.core.errors import ProviderError
from openworks.core.json import JsonObject
from openworks.ports.calls import Usage
from openworks.ports.upstream import Headers

Operation: TypeAlias = Literal["chat", "embeddings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRequest:
    """What the provider is asked in its own words."""

    path: str
    """The provider's path without a leading slash, already encoded, such as `v1/messages`."""
    body: bytes
    headers: Headers
    """What the provider needs beside credentials and the content type."""


class StreamTranslator(Protocol):
    """One stream on its way; no method raises. After the last event everything returns b""."""

    @property
    def usage(self) -> Usage:
        """What the provider has counted so far, whether or not the caller asked for it."""
        ...

    @property
    def failure(self) -> ProviderError | None:
        """Why the stream ended badly; its error event is among the bytes that were returned."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take the provider's next bytes, split anywhere; return whole events, maybe none."""
        ...

    def end(self) -> bytes:
        """Take the end of the provider's body: an error event when its last event is missing."""
        ...

    def broken(self, message: str, code: str) -> bytes:
        """Return the error event of a stream that broke; `[DONE]` never follows."""
        ...


class Translator(Protocol):
    """One model of one provider; holds no state of a call and may be shared."""

    def request(self, body: JsonObject) -> NativeRequest:
        """Translate a request.

        Raises:
            UnsupportedParameterError: The provider cannot honour a field; names it.
            InvalidRequestError: A field has the wrong shape; names it.
        """
        ...

    def answer(self, body: bytes) -> bytes:
        """Translate a whole, good answer.

        Raises:
            ProviderError: It is not what the provider documents.
        """
        ...

    def error(self, status: int, body: bytes) -> bytes:
        """Return OpenAI's error body for the provider's, with its message."""
        ...

    def stream(self, request: JsonObject) -> StreamTranslator:
        """Begin to translate the stream that answers OpenAI's `request`."""
        ...
