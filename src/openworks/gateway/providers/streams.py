"""The reader for each stream: text events in their dialects, or AWS's binary frames."""

from __future__ import annotations

from openworks.gateway.providers.base import Provider
from openworks.gateway.providers.endpoints import describe
from openworks.gateway.providers.eventstream import EventStreamReader
from openworks.gateway.providers.sse import StreamReader, sse_reader

__all__ = ["StreamReader", "stream_reader"]


def stream_reader(provider: Provider, endpoint: str) -> StreamReader:
    """The reader for what an endpoint streams; one for each stream."""
    described = describe(provider, endpoint)
    if described.is_event_stream:
        return EventStreamReader()
    return sse_reader(provider, described.dialect)
