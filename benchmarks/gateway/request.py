"""The one request that every target is asked, as it goes over the wire."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MODEL = "gpt-4o-mini"
"""A model with a known price, so that budgets have something to count."""
NUMBER = "%number%"
"""Where `load.lua` writes a number; as long as what it writes."""
_PROMPT = "The quick brown fox jumps over the lazy dog. " * 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a target listens, and what its requests carry."""

    url: str
    key: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80


def chat_body(
    *, order: str = "", stream: bool = False, pad_bytes: int = 0, number: str = NUMBER
) -> bytes:
    """Return a chat request of 0.9 KB.

    Args:
        order: What the upstream is told, such as `-d50-c5`; see `upstream.c`.
        stream: Whether to ask for a stream.
        pad_bytes: Makes the prompt so much longer.
        number: Makes the body differ from others.
    """
    body: dict[str, object] = {"model": MODEL}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    body |= {
        "messages": [
            {"role": "system", "content": f"You are a helpful assistant. Question {number}."},
            {"role": "user", "content": _PROMPT + "x" * pad_bytes},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
        "user": f"bench{order}",
        "metadata": {"team": "bench"},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def request_bytes(
    address: Address, body: bytes, *, key: str | None = None, closes: bool = False
) -> bytes:
    """Return a whole request; `closes` asks for a connection of its own."""
    target = urlsplit(address.url)
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.netloc}",
        f"Authorization: Bearer {key or address.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in address.headers.items()),
    ]
    if closes:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def unrepeated(body: bytes) -> bytes:
    """Make a body differ from those of every earlier run too, which a cache may still know."""
    return body.replace(b"Question ", b"Question " + secrets.token_hex(3).encode())
