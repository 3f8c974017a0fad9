"""Cloudflare's error numbers, and its error body."""

from __future__ import annotations

from openworks.core.errors import AppError
from openworks.core.json import JsonObject

NUMBERS = {
    "invalid_api_key": 10000,
    "missing_api_key": 10000,
    "insufficient_permissions": 9109,
    "account_mismatch": 9109,
    "not_found": 7002,
    "unknown_url": 7003,
    "conflict": 7009,
    "lora_unsupported": 5005,
    "finetune_incomplete": 3039,
    "finetune_not_found": 3037,
}
"""Our error codes → Cloudflare's numbers."""

_INVALID = 7001
"""A field of the request is wrong; `source.pointer` names it."""
_BY_STATUS = 10000
"""Anything else is this and its HTTP status, as in Cloudflare's own 10405."""


def number_of(error: AppError) -> int:
    """Return Cloudflare's number for an error."""
    if (number := NUMBERS.get(error.code or "")) is not None:
        return number
    if error.status == 404:
        return NUMBERS["not_found"]
    return _INVALID if error.status == 400 else _BY_STATUS + error.status


def error_body(error: AppError) -> JsonObject:
    """Return the envelope of a failure."""
    fault: JsonObject = {"code": number_of(error), "message": error.message}
    if error.param is not None:
        fault["source"] = {"pointer": "/" + error.param.replace(".", "/")}
    return {"success": False, "errors": [fault], "messages": [], "result": None}
