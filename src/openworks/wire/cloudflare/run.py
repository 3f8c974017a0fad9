"""What Workers AI's `run` says when it says no."""

from __future__ import annotations

from openworks.core.errors import AppError
from openworks.core.json import JsonObject
from openworks.wire.cloudflare import errors

NUMBERS = {
    "model_not_found": 5007,
    "request_too_large": 3006,
    "request_timeout": 3007,
    "provider_timeout": 3007,
    "engine_overloaded": 3040,
    "model_loading": 3040,
    "model_unavailable": 3040,
    "model_not_allowed": 5018,
    "missing_required_parameter": 3003,
    "invalid_json": 3003,
}
"""Our error codes → the numbers of Workers AI's own list, where that has one."""

_STATUSES = {5005: 405, 5007: 400}
"""Where Workers AI answers another status than we would."""


def number_of(error: AppError) -> int:
    """Return Cloudflare's number for an error."""
    return NUMBERS.get(error.code or "") or errors.number_of(error)


def status_of(error: AppError) -> int:
    """Return the HTTP status that goes with the number."""
    return _STATUSES.get(number_of(error), error.status)


def error_body(error: AppError) -> JsonObject:
    """Return the envelope of a failure."""
    return failure(number_of(error), error.message)


def failure(number: int, message: str) -> JsonObject:
    """Return an envelope around a number and what it means here."""
    return {
        "success": False,
        "errors": [{"code": number, "message": message}],
        "messages": [],
        "result": None,
    }
