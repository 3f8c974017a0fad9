"""What the server and an engine process say to each other: msgpack frames, one message each."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import msgspec

from openworks.core.errors import AppError, InternalError, error_classes
from openworks.engines.base import Origin
from openworks.ports.catalog import Deployment
from openworks.ports.engines import EngineReport
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
    TextChunk,
)


class Chat(msgspec.Struct, tag=True, frozen=True):
    """Continue a conversation; answered by `Chunk`s and a `Done`."""

    id: int
    request: ChatRequest
    origin: Origin


class CountTokens(msgspec.Struct, tag=True, frozen=True):
    """Count a conversation's tokens; answered by `Counted`."""

    id: int
    request: ChatRequest


class Complete(msgspec.Struct, tag=True, frozen=True):
    """Continue a text; answered by `Chunk`s and a `Done`."""

    id: int
    request: CompletionRequest
    origin: Origin


class Embed(msgspec.Struct, tag=True, frozen=True):
    """Embed texts; answered by `Embedded`."""

    id: int
    request: EmbeddingRequest


class Rerank(msgspec.Struct, tag=True, frozen=True):
    """Score documents; answered by `Reranked`."""

    id: int
    request: RerankRequest


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Stop working on a request; answered by nothing more."""

    id: int


class Forget(msgspec.Struct, tag=True, frozen=True):
    """Let go of an adapter; not answered."""

    generation: str


class ErrorInfo(msgspec.Struct, frozen=True):
    """An `AppError` on its way between processes."""

    name: str
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: AppError) -> ErrorInfo:
        """Pack an error."""
        return cls(
            name=type(error).__name__,
            message=error.message,
            code=error.code,
            param=error.param,
            retry_after_s=error.retry_after_s,
        )

    def unpack(self) -> AppError:
        """Make the error again."""
        error_class = error_classes().get(self.name, InternalError)
        return error_class(
            self.message, code=self.code, param=self.param, retry_after_s=self.retry_after_s
        )


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The weights are loaded; requests are welcome."""

    context_tokens: int
    """The longest sequence that one request may reach."""


class LoadFailed(msgspec.Struct, tag=True, frozen=True):
    """The weights cannot be loaded; the process ends."""

    error: ErrorInfo


class Working(msgspec.Struct, tag=True, frozen=True):
    """A request that answers all at once is still being worked on."""

    id: int


class Report(msgspec.Struct, tag=True, frozen=True):
    """How the engine is; of no request."""

    report: EngineReport


class Chunk(msgspec.Struct, tag=True, frozen=True):
    """A step of a streamed answer."""

    id: int
    chunk: TextChunk


class Counted(msgspec.Struct, tag=True, frozen=True):
    """The tokens of a `CountTokens`."""

    id: int
    tokens: int


class Embedded(msgspec.Struct, tag=True, frozen=True):
    """The vectors of an `Embed`."""

    id: int
    result: EmbeddingResult


class Reranked(msgspec.Struct, tag=True, frozen=True):
    """The scores of a `Rerank`."""

    id: int
    result: RerankResult


class Done(msgspec.Struct, tag=True, frozen=True):
    """A streamed answer is complete."""

    id: int


class Failed(msgspec.Struct, tag=True, frozen=True):
    """A request ended with an error; also in the middle of a stream."""

    id: int
    error: ErrorInfo


Work: TypeAlias = Chat | CountTokens | Complete | Embed | Rerank
ToEngine: TypeAlias = Work | Cancel | Forget
Reply: TypeAlias = Chunk | Counted | Embedded | Reranked | Done | Failed
ToServer: TypeAlias = Ready | LoadFailed | Working | Report | Reply


def to_engine(address: str) -> str:
    """The socket on which the engine hears the server."""
    return f"{address}-in"


def from_engine(address: str) -> str:
    """The socket on which the server hears the engine."""
    return f"{address}-out"


def own_socket(address: str) -> Path:
    """A path beside them that is free for the engine's own use."""
    return Path(f"{address.removeprefix('ipc://')}-own.sock")


def encode_deployment(deployment: Deployment) -> bytes:
    """Write a deployment as one line of JSON."""
    return msgspec.json.encode(deployment, enc_hook=str) + b"\n"


def decode_deployment(line: bytes) -> Deployment:
    """Read what `encode_deployment` wrote."""
    return msgspec.json.decode(line, type=Deployment, dec_hook=_decode_path)


def _decode_path(kind: type, value: object) -> object:
    return kind(value)  # paths are the only fields that msgspec does not know


encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine, dec_hook=_decode_path).decode
decode_to_server = msgspec.msgpack.Decoder(ToServer).decode
