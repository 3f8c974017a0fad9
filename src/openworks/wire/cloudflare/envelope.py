"""The envelope around every result."""

from __future__ import annotations

from datetime import UTC, datetime

from openworks.core.json import JsonObject, JsonValue


def success(result: JsonValue, *, info: JsonObject | None = None) -> JsonObject:
    """Wrap a result; `info` says which page of how many it is."""
    body: JsonObject = {"success": True, "errors": [], "messages": [], "result": result}
    if info is not None:
        body["result_info"] = info
    return body


def timestamp(at_s: float) -> str:
    """Write a time as Cloudflare does: ISO 8601 in UTC."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds")[:-6] + "Z"
