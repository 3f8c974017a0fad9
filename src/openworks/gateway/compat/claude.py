"""What differs between Claude models: how they think, and how long they may answer."""

from __future__ import annotations

import re
from typing import Final

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.gateway.compat.chat_parts import ChatInput

_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2}))?(?!\d)")
_ADAPTIVE_SINCE: Final = (4, 6)
_MIN_BUDGET: Final = 1024
_BUDGETS: Final = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 65_536,
}
"""Thinking tokens by effort, for models that take a budget."""


def version(model: str) -> tuple[int, int]:
    """Return the version in a model's name; a name without one counts as newest.

    It stands behind the family (`claude-opus-4-6`) or, in older names, before it
    (`claude-3-5-sonnet-20241022`); eight digits are a date.
    """
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else (99, 0)


def default_max_tokens(model: str) -> int:
    """Return the length for callers who name none; Anthropic's API insists on one.

    Each is what the smallest model of its generation may write.
    """
    major, minor = version(model)
    if major >= 4:
        return 32_000
    return 8192 if (major, minor) >= (3, 5) else 4096


def thinking(chat: ChatInput, model: str, max_tokens: int) -> tuple[JsonObject | None, str | None]:
    """Return `thinking` and the effort for a caller's `reasoning_effort`.

    Models since 4.6 think as they see fit and take the effort as it is. Older ones take a budget of
    tokens, and refuse to go on thinking after calls whose turn came back without its thinking
    (clients that know OpenAI's API alone drop `thinking_blocks`): then they answer without.

    Raises:
        InvalidRequestError: `max_tokens` leaves no room for a budget.
    """
    effort = chat.effort
    if effort is None:
        return None, None
    if version(model) >= _ADAPTIVE_SINCE:
        if effort == "none":
            return {"type": "disabled"}, None
        written = "low" if effort == "minimal" else effort
        return {"type": "adaptive", "display": "summarized"}, written
    if effort == "none" or chat.last_call_lacks_thinking():
        return None, None
    if max_tokens <= _MIN_BUDGET:
        raise InvalidRequestError(
            f"'max_tokens' must be over {_MIN_BUDGET} for {model} to think by 'reasoning_effort', "
            f"got {max_tokens}.",
            param="max_tokens",
        )
    return {"type": "enabled", "budget_tokens": min(_BUDGETS[effort], max_tokens - 1)}, None
