"""What a path says of a call before its body is read: dialect, model, whether it streams."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from openworks.gateway.providers.base import Dialect, Provider

_CACHED_ENDPOINTS = 4096

_GOOGLE_MODEL = re.compile(r"(?:^|/)(?:models|tunedModels)/([^/:]+)(?::([A-Za-z]+))?")
_BEDROCK_MODEL = re.compile(r"/model/(.+)/(?:invoke|converse)[a-z-]*$")
_REPLICATE_MODEL = re.compile(r"(?:^|/)(?:models|deployments)/([^/]+/[^/]+)/predictions$")
_GOOGLE_STREAMS = frozenset({"streamGenerateContent", "streamRawPredict", "serverStreamingPredict"})
_BEDROCK_STREAMS = ("/converse-stream", "/invoke-with-response-stream")
_OPENAI_ENDS = ("chat/completions", "v1/completions", "v1/embeddings", "openai/embeddings")


class Endpoint(NamedTuple):
    """What a path says."""

    dialect: Dialect
    model: str = ""
    """Empty where the body names it."""
    stream: bool = False
    """Whether the path itself asks for a stream."""
    is_event_stream: bool = False
    """Whether that stream is AWS's binary one."""


@lru_cache(maxsize=_CACHED_ENDPOINTS)
def describe(provider: Provider, endpoint: str) -> Endpoint:
    """Read a path as callers write it; it need not have been checked."""
    path = endpoint.strip("/")
    dialect = _dialect(provider.dialect, path)
    match provider.layout:
        case "azure":
            return Endpoint(dialect, _azure_model(path))
        case "bedrock":
            return _bedrock(dialect, path)
        case "workers-ai":
            at = path.find("@")
            return Endpoint(dialect, unquote(path[at:]) if at >= 0 else "")
        case "huggingface":
            return Endpoint(dialect, _huggingface_model(dialect, path))
        case "vertex" | "plain":
            return _google_or_plain(provider, dialect, path)


def _dialect(native: Dialect, path: str) -> Dialect:
    if path.endswith("/messages") or "publishers/anthropic/" in path:
        return "anthropic"
    if path.endswith(_OPENAI_ENDS) or "publishers/mistralai/" in path:
        return "openai"
    is_openai = native == "openai" or path.startswith("v1/") or "/v1/" in path
    if is_openai and (path.endswith("/responses") or path == "responses"):
        return "openai-responses"
    return native


def _azure_model(path: str) -> str:
    steps = path.split("/")
    return unquote(steps[1]) if len(steps) > 2 and steps[1] != "openai" else ""


def _bedrock(dialect: Dialect, path: str) -> Endpoint:
    found = _BEDROCK_MODEL.search(path)
    streams = path.endswith(_BEDROCK_STREAMS)
    return Endpoint(dialect, unquote(found[1]) if found else "", streams, streams)


def _huggingface_model(dialect: Dialect, path: str) -> str:
    if dialect != "huggingface":
        return ""
    path = path.removeprefix("hf-inference/").removeprefix("models/")
    return unquote("/".join(path.split("/")[:2]))


def _google_or_plain(provider: Provider, dialect: Dialect, path: str) -> Endpoint:
    if provider.dialect == "google":
        if found := _GOOGLE_MODEL.search(path):
            return Endpoint(dialect, unquote(found[1]), found[2] in _GOOGLE_STREAMS)
    elif provider.dialect == "replicate" and (found := _REPLICATE_MODEL.search(path)):
        return Endpoint(dialect, unquote(found[1]))
    return Endpoint(dialect)
