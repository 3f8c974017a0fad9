"""Guardrails: which content categories a text has, and what a gateway's rules make of that.

A response can only be judged whole. `needs_whole` tells when a stream must be buffered for it: when
a rule may block it. Otherwise it flows, and is judged afterwards for the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openworks.ports.gateways import GuardAction, Guardrails, Side
from openworks.ports.moderation import SCANNER_DOWN, ModerationUnavailableError, Moderator

PROMPT_BLOCKED: Final = 2016
RESPONSE_BLOCKED: Final = 2017
THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardVerdict:
    """What the rules of one side say of a text."""

    action: GuardAction | None = None
    """The most severe that follows; None when no rule applies."""
    categories: tuple[str, ...] = ()
    """The categories that apply and have a rule."""
    unknown: tuple[str, ...] = ()
    """The categories that have a rule and that the scanner does not know, or could not tell."""
    code: int | None = None
    """The error code of a refusal: 2016, 2017, or 7013 when the scanner is down."""

    @property
    def blocked(self) -> bool:
        """Whether the call must be refused."""
        return self.code is not None


def needs_whole(guardrails: Guardrails) -> bool:
    """Whether a response must be complete before any of it may be shown."""
    return "BLOCK" in guardrails.response.values()


async def check_guardrails(
    guardrails: Guardrails, side: Side, text: str, moderator: Moderator
) -> GuardVerdict:
    """Judge a text. No scanner is asked when no rule looks at this side.

    A scanner that fails closes the call only if a rule blocks; it never raises.
    """
    rules = guardrails.prompt if side == "REQUEST" else guardrails.response
    if not rules or not text.strip():
        return GuardVerdict()
    try:
        scores = await moderator.categories(text)
    except ModerationUnavailableError:
        is_closed = "BLOCK" in rules.values()
        return GuardVerdict(
            action="BLOCK" if is_closed else None,
            unknown=tuple(rules),
            code=SCANNER_DOWN if is_closed else None,
        )
    found = tuple(name for name in rules if scores.get(name, 0.0) >= THRESHOLD)
    unknown = tuple(name for name in rules if name not in scores)
    if any(rules[name] == "BLOCK" for name in found):
        code = PROMPT_BLOCKED if side == "REQUEST" else RESPONSE_BLOCKED
        return GuardVerdict(action="BLOCK", categories=found, unknown=unknown, code=code)
    return GuardVerdict(action="FLAG" if found else None, categories=found, unknown=unknown)
