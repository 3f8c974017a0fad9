"""OpenAI's error body."""

from __future__ import annotations

from openworks.core.errors import AppError
from openworks.core.json import JsonObject


def error_body(error: AppError) -> JsonObject:
    """Return `{"error": {"message", "type", "param", "code"}}`."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }
