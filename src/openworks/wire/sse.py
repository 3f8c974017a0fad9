"""Server-sent events, as OpenAI writes them: one `data:` line an event, `[DONE]` at the end.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import orjson

from openworks.core.json import JsonObject

CONTENT_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def named_event(name: str, data: bytes, *, number: int | None = None) -> bytes:
    """Encode an event that has a name.

    Args:
        name: What it tells of.
        data: JSON, or another text in one line.
        number: Where it is in a stream that can be taken up again behind any event.
    """
    id_ = b"" if number is None else b"id: %d\n" % number
    return b"event: %b\n%bdata: %b\n\n" % (name.encode(), id_, data)


def event(data: JsonObject) -> bytes:
    """Encode one event. JSON holds no raw line break, so one line always suffices."""
    return b"data: " + orjson.dumps(data) + b"\n\n"
