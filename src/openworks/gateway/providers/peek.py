"""What the gateway must know of a request: the model, whether it streams, how much it may use.

Bodies are sent on byte for byte. Only these few members are decoded, and the rest is skipped over.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Annotated, TypeAlias

import msgspec

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonValue
from openworks.gateway.providers.base import Provider
from openworks.gateway.providers.endpoints import Endpoint, describe

_LARGE_BYTES = 16_384
_MULTIPART_EDGE_BYTES = 16_384
_BYTES_PER_MEDIA = 4_096  # about what an image costs: 1,000 tokens of four bytes
_MULTIPART_MODEL = re.compile(rb'name="?model"?\r?\n(?:[^\r\n]+\r?\n)*\r?\n([^\r\n]{1,256})\r?\n')
_MEDIA_STARTS = (b";base64,", b'"data":"', b'"data": "')
_SPACE = b" \t\r\n"


class Peek(msgspec.Struct, frozen=True, gc=False):
    """What a request asks for."""

    model: str
    """Empty when neither the path nor the body says it."""
    stream: bool
    max_tokens: int | None
    """At most so many tokens of answer, over all choices; None when the caller sets no limit."""
    prompt_bytes: int
    """About how long the prompt is; encoded media count as the few tokens that they become."""


# What is no sensible limit is none, and the provider's to refuse.
_Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)]
_Choices: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class _Limits(msgspec.Struct, gc=False):
    maxOutputTokens: _Limit | None = None  # noqa: N815  Google's name
    maxTokens: _Limit | None = None  # noqa: N815  Bedrock's name
    max_tokens: _Limit | None = None
    max_new_tokens: _Limit | None = None


class _Body(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = None
    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    max_output_tokens: _Limit | None = None
    n: _Choices | None = None


class _PathBody(msgspec.Struct, gc=False):
    """Of the providers that have their limits one level down."""

    model: str | None = None
    version: str | None = None
    stream: bool | None = None
    max_tokens: _Limit | None = None
    generationConfig: _Limits | None = None  # noqa: N815
    inferenceConfig: _Limits | None = None  # noqa: N815
    parameters: _Limits | None = None
    input: _Limits | None = None


_BODY = msgspec.json.Decoder(_Body)
_PATH_BODY = msgspec.json.Decoder(_PathBody)
_ANY = msgspec.json.Decoder()
_NESTED = frozenset({"google", "bedrock", "huggingface", "replicate"})


def peek(provider: Provider, endpoint: str, body: bytes) -> Peek:
    """Read what the limits, the router and the log must know.

    A body that does not look like JSON (an upload, audio) is nobody's business here; of a multipart
    form the field `model` is read.

    Raises:
        InvalidRequestError: The body begins as JSON and is none.
    """
    path = describe(provider, endpoint)
    size_bytes = len(body)
    if body[:1] != b"{":
        body = body.removeprefix(codecs.BOM_UTF8).lstrip(_SPACE)
        if body[:1] not in (b"{", b"["):
            _refuse_wide_json(body)
            return Peek(path.model or _multipart_model(body), path.stream, None, size_bytes)
    if size_bytes > _LARGE_BYTES:
        size_bytes = _prompt_bytes(body)
    try:
        if path.dialect in _NESTED:
            return _of_path_body(path, _PATH_BODY.decode(body), size_bytes)
        found = _BODY.decode(body)
    except msgspec.ValidationError:
        return _lenient(path, body, size_bytes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _not_json(exc) from None
    limit = found.max_tokens
    if limit is None:
        limit = found.max_completion_tokens
        if limit is None:
            limit = found.max_output_tokens
    if found.n is not None and limit is not None and found.n > 1:
        limit *= found.n
    return Peek(
        path.model or found.model or "", path.stream or found.stream is True, limit, size_bytes
    )


def _of_path_body(path: Endpoint, found: _PathBody, size_bytes: int) -> Peek:
    limit = found.max_tokens
    for nested in (found.generationConfig, found.inferenceConfig, found.parameters, found.input):
        if limit is None and nested is not None:
            limits = (
                nested.maxOutputTokens,
                nested.maxTokens,
                nested.max_tokens,
                nested.max_new_tokens,
            )
            limit = next((value for value in limits if value is not None), None)
    # Replicate's version is `owner/name:hash`, or the hash alone.
    model = path.model or found.model or (found.version or "").partition(":")[0]
    return Peek(model, path.stream or found.stream is True, limit, size_bytes)


def _lenient(path: Endpoint, body: bytes, size_bytes: int) -> Peek:
    """Read a body with a member of an unexpected type: that is for the provider to refuse."""
    try:
        found: JsonValue = _ANY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _not_json(exc) from None
    members = found if isinstance(found, dict) else {}
    model = members.get("model")
    limit = next(
        (
            int(value)
            for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")
            if isinstance(value := members.get(name), int | float) and 0 <= value <= 1e12
        ),
        None,
    )
    return Peek(
        path.model or (model if isinstance(model, str) else ""),
        path.stream or members.get("stream") is True,
        limit,
        size_bytes,
    )


def _refuse_wide_json(body: bytes) -> None:
    """Refuse JSON in UTF-16 or UTF-32: some providers read it, and here it would pass unread.

    Raises:
        InvalidRequestError: It is such.
    """
    encoding = json.detect_encoding(body[:8])
    if not encoding.startswith("utf-8"):
        start = body[:32].decode(encoding, "ignore").lstrip()
        if start.startswith(("{", "[")):
            raise InvalidRequestError("JSON must be in UTF-8.", code="invalid_json")


def _multipart_model(body: bytes) -> str:
    if not body.startswith(b"--"):
        return ""
    for part in (body[:_MULTIPART_EDGE_BYTES], body[-_MULTIPART_EDGE_BYTES:]):
        if found := _MULTIPART_MODEL.search(part):
            return found[1].decode(errors="replace").strip()
    return ""


def _prompt_bytes(body: bytes) -> int:
    """The length of a large body with its encoded media counted as what models make of them."""
    total = len(body)
    for start in _MEDIA_STARTS:
        at = body.find(start)
        while at >= 0:
            at += len(start)
            end = body.find(b'"', at)
            if end < 0:
                break
            total -= max(0, end - at - _BYTES_PER_MEDIA)
            at = body.find(start, end)
    return total


def _not_json(exc: Exception) -> InvalidRequestError:
    reason = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
    return InvalidRequestError(
        f"The request body is not valid JSON: {reason.rstrip('.')}.", code="invalid_json"
    )
