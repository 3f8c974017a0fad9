"""Server-sent events, as OpenAI writes them: one `data:` line an event, `[DONE]` at the end.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import orjson

from openworks.core.json import JsonObject

CONTENT_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def event(data: JsonObject) -> bytes:
    """Encode one event. JSON holds no raw line break, so one line always suffices."""
    return b"data: " + orjson.dumps(data) + b"\n\n"
