"""How the gateway asks what a text is about, for its guardrails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from openworks.core.errors import ModelUnavailableError

SCANNER_DOWN: Final = 7013
"""The gateway's code when a rule blocks and no scanner can say whether it applies."""


class ModerationUnavailableError(ModelUnavailableError):
    """The scanner gave no usable answer, or the text is more than it reads; retryable."""

    default_code = "moderation_unavailable"


class Moderator(Protocol):
    """Labels texts."""

    async def categories(self, text: str) -> Mapping[str, float]:
        """Return how likely, 0 to 1, each category applies: S1 to S13 of Llama Guard 3, and P1.

        A category that is absent is one that this scanner does not know.

        Raises:
            ModerationUnavailableError: It cannot tell.
        """
        ...
