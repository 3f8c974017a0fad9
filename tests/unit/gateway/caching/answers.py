"""Answers to be cached in tests."""

from __future__ import annotations

from openworks.ports.answers_cache import CachedAnswer
from openworks.ports.calls import Usage


def answer(body: bytes = b'{"id":"a"}', *, stream: bool = False) -> CachedAnswer:
    return CachedAnswer(
        status=200,
        headers=[(b"content-type", b"application/json")],
        body=body,
        stream=stream,
        usage=Usage(prompt_tokens=3, completion_tokens=5),
        cost_usd=0.25,
        provider="openai",
        model="gpt-5",
        stored_at_s=1_790_000_000.0,
    )
