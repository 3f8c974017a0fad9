"""Every other path: a typed error that names it, and says whether OpenAI has it."""

from __future__ import annotations

from openworks.api.answers import Answer
from openworks.api.context import Context
from openworks.core.errors import NotImplementedEndpointError, UnknownEndpointError

NOUNS = frozenset(
    {
        "agents",
        "audio",
        "chatkit",
        "containers",
        "content_provenance_checks",
        "decisions",
        "evals",
        "fine_tuning",
        "images",
        "live",
        "moderations",
        "organization",
        "projects",
        "realtime",
        "safety",
        "skills",
        "vaults",
        "vector_stores",
        "videos",
        "webhook_endpoints",
        "webhook_event_types",
    }
)
"""First path segments under `/v1` that OpenAI's SDK calls and this server does not serve yet."""


async def answer(context: Context) -> Answer:
    """Refuse by name."""
    method, path = context.request.method, context.request.url.path
    segments = path.strip("/").split("/")
    if len(segments) > 1 and segments[0] == "v1" and segments[1] in NOUNS:
        raise NotImplementedEndpointError(
            f"{method} {path} is part of OpenAI's API, and this server does not serve it yet."
        )
    raise UnknownEndpointError(f"Unknown request URL: {method} {path[:300]}.")
