"""The error body of the AI Gateway's data plane: its member is `error`, not `errors`."""

from __future__ import annotations

import orjson

from openworks.core.errors import AppError, ProviderError

NUMBERS = {
    "gateway_not_found": 2001,
    "rate_limit_exceeded": 2003,
    "concurrency_limit_exceeded": 2003,
    "upstream_failed": 2005,
    "provider_timeout": 2005,
    "unknown_provider": 2008,
    "invalid_api_key": 2009,
    "missing_api_key": 2009,
    "insufficient_permissions": 2009,
    "account_mismatch": 2009,
    "model_not_allowed": 2009,
    "guardrails_prompt": 2016,
    "guardrails_response": 2017,
    "invalid_json": 2019,
    "dlp_request": 2029,
    "dlp_response": 2030,
    "unknown_byok_alias": 2040,
    "spend_limit_exceeded": 2041,
    "scanner_unavailable": 7013,
}
"""Our error codes → Cloudflare's numbers, from its documentation and from public code."""

_OTHER = 2002
"""Any other refusal of the gateway itself."""


def number_of(error: AppError) -> int:
    """Return Cloudflare's number for an error."""
    if (number := NUMBERS.get(error.code or "")) is not None:
        return number
    return NUMBERS["upstream_failed"] if isinstance(error, ProviderError) else _OTHER


def gateway_error_body(error: AppError) -> bytes:
    """Render an error of the gateway itself; a provider's own errors pass through unchanged."""
    number = number_of(error)
    return orjson.dumps(
        {
            "success": False,
            "result": [],
            "messages": [],
            "error": [{"code": number, "message": error.message}],
            "name": "AiGatewayError",
            "httpCode": error.status,
            "internalCode": number,
            "message": error.message,
        }
    )
