"""Responses as answers and events show them."""

from __future__ import annotations

from openworks.core.errors import AppError, InvalidRequestError, RateLimitError
from openworks.core.json import JsonObject
from openworks.ports.calls import Usage
from openworks.ports.responses import Response
from openworks.services.responses.stream import Event

_SHOWN = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
"""What answers repeat of the request."""


def response_body(response: Response) -> JsonObject:
    """Return OpenAI's response object."""
    settings = {name: response.settings.get(name) for name in _SHOWN}
    conversation_id, reason = response.conversation_id, response.incomplete_reason
    return {
        "id": response.id,
        "object": "response",
        "created_at": int(response.created_at_s),
        "completed_at": None if response.completed_at_s is None else int(response.completed_at_s),
        "status": response.status,
        "background": response.is_background,
        "error": response.error,
        "incomplete_details": None if reason is None else {"reason": reason},
        "previous_response_id": response.previous_id,
        "conversation": None if conversation_id is None else {"id": conversation_id},
        **settings,
        "output": [*response.output],
        "usage": None if response.usage is None else usage_body(response.usage),
    }


def usage_body(usage: Usage) -> JsonObject:
    """Return the `usage` of the Responses API, whose names are its own."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def response_event(name: str, response: Response) -> Event:
    """Return an event that shows the whole response."""
    return name, {"type": name, "response": response_body(response)}


def error_event(code: str | None, message: str, param: str | None = None) -> Event:
    """Return the event of an end without an answer."""
    return "error", {"type": "error", "code": code, "message": message, "param": param}


def error_of(error: AppError) -> JsonObject:
    """Return the `error` of a failed response, whose codes are a closed set."""
    match error:
        case RateLimitError():
            code = "rate_limit_exceeded"
        case InvalidRequestError():
            code = "invalid_prompt"
        case _:
            code = "server_error"
    return {"code": code, "message": error.message}
