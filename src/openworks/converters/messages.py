"""What the server tells a process that reads a document, and what it gets back."""

from __future__ import annotations

import msgspec

from openworks.core.errors import AppError, InternalError, InvalidRequestError, error_classes
from openworks.ports.converters import ConversionOptions, Converted


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What to read, and within which bounds."""

    name: str
    media_type: str
    options: ConversionOptions
    memory_bytes: int
    cpu_s: int
    wall_s: int
    max_chars: int
    max_unpacked_bytes: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why a document was not read."""

    error: str
    """The name of a class of `core.errors`."""
    message: str
    param: str | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a document says."""

    converted: Converted


def encode_start(start: Start) -> str:
    """Return an argument of a command line."""
    return msgspec.json.encode(start).decode()


def decode_start(text: str) -> Start:
    """Return what `encode_start` was given."""
    return msgspec.json.decode(text, type=Start)


def encode_reply(reply: Done | Failed) -> bytes:
    """Return what a process says last."""
    return msgspec.msgpack.encode(reply)


def decode_reply(data: bytes) -> Done | Failed | None:
    """Return what a process said; None when that is not a reply, or not a whole one."""
    try:
        return msgspec.msgpack.decode(data, type=Done | Failed)
    except msgspec.DecodeError:
        return None


def failure(error: AppError) -> Failed:
    """Return an error as it crosses processes."""
    return Failed(error=type(error).__name__, message=error.message, param=error.param)


def error_of(failed: Failed) -> AppError:
    """Return the error that crossed."""
    error_class = error_classes().get(failed.error, InternalError)
    if not issubclass(error_class, InvalidRequestError):  # a document was read, nothing else
        error_class = InternalError
    return error_class(failed.message, param=failed.param)
