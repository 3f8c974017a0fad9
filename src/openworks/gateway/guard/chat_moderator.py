"""A moderator that asks a chat model: the embedded one, or one of the Llama Guard family.

The embedded model's labels recognise the plain sentences that it was trained on. They make the
pipeline work and testable without a network; they guard nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType

from openworks.ports.moderation import ModerationUnavailableError

PROMPT = "Is this safe or unsafe: {text}"
"""As the embedded model was taught; Llama Guard judges the user's turn whatever surrounds it."""

EMBEDDED_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "violence": "S1",
        "crime": "S2",
        "privacy": "S7",
        "weapons": "S9",
        "hate": "S10",
        "self-harm": "S11",
        "sexual": "S12",
    }
)
"""What the embedded model says → the category of Llama Guard 3."""
LLAMA_GUARD_LABELS: Mapping[str, str] = MappingProxyType({f"s{n}": f"S{n}" for n in range(1, 14)})
"""What Llama Guard 3 itself says."""

MAX_PIECE_CHARS = 240
"""A model of this size judges a sentence or two, not a page."""
MAX_PIECES = 64

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[a-z0-9-]+")


class ChatModerator:
    """Asks for each few sentences of a text; what applies to one of them applies to the text."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[str]],
        *,
        labels: Mapping[str, str] = EMBEDDED_LABELS,
        max_pieces: int = MAX_PIECES,
    ) -> None:
        """Hold how to ask.

        Args:
            ask: Sends a prompt as the only turn, decodes greedily, returns the answer; raises
                `ModerationUnavailableError` when the model gives none.
            labels: The model's own words for categories, in lower case.
            max_pieces: How many questions one text may cost.
        """
        self._ask = ask
        self._labels = labels
        self._max_pieces = max_pieces

    async def categories(self, text: str) -> Mapping[str, float]:
        scores = dict.fromkeys(self._labels.values(), 0.0)
        for count, piece in enumerate(pieces_of(text), 1):
            if count > self._max_pieces:
                raise ModerationUnavailableError(
                    f"The text is longer than the scanner reads: {len(text)} characters, of which "
                    f"it judges {self._max_pieces} pieces of {MAX_PIECE_CHARS}."
                )
            answer = await self._ask(PROMPT.format(text=piece))
            for category in self._read(answer):
                scores[category] = 1.0
        return scores

    def _read(self, answer: str) -> list[str]:
        words = answer.strip().lower()
        if words.startswith("safe"):
            return []
        if words.startswith("unsafe"):
            named = [self._labels[word] for word in _WORD.findall(words) if word in self._labels]
            if named:
                return named
        raise ModerationUnavailableError(
            f"The scanner answered neither 'safe' nor 'unsafe' with a category, but "
            f"{len(answer)} characters of something else."
        )


def pieces_of(text: str) -> Iterator[str]:
    """Cut a text between sentences, or where it must be, into pieces that the model can judge."""
    piece = ""
    for sentence in _SENTENCE_END.split(text):
        for start in range(0, len(sentence), MAX_PIECE_CHARS):
            part = sentence[start : start + MAX_PIECE_CHARS].strip()
            if piece and len(piece) + len(part) + 1 > MAX_PIECE_CHARS:
                yield piece
                piece = ""
            piece = f"{piece} {part}".strip()
    if piece:
        yield piece
