"""Which tokens a piece of content is made of, where some of what was said is markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from openworks.ports.text import TokenLogprob

Part: TypeAlias = tuple[str, tuple[TokenLogprob, ...]]
"""A piece of content, and the token that begins in it."""


class PendingLogprobs:
    """The tokens of one answer from which nothing has come yet, with the text that they complete.

    In the middle of a character that is none.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def add(self, token: TokenLogprob, text: str) -> None:
        """Take the next token."""
        self._parts.append((text, (token,)))

    def add_text(self, text: str) -> None:
        """Take text that comes without a token: what the end of the answer sets free."""
        self._parts.append((text, ()))

    def take(self, content: str) -> Sequence[Part]:
        """Return a content that comes now, cut where its tokens begin.

        Tokens before it were markup, and are dropped; those behind it stay.
        """
        text = "".join(part for part, _ in self._parts)
        # Without markup it is the beginning; with some, what is behind it is short: white space,
        # or what may become a marker.
        begin = 0 if text.startswith(content) else text.rfind(content)
        if begin < 0:  # parts of it stand on both sides of a marker
            return [(content, self.take_all())]
        end, at = begin + len(content), 0
        taken: list[Part] = []
        kept: list[Part] = []
        for part, tokens in self._parts:
            first, at = at, at + len(part)
            if first >= end:
                kept.append((part, tokens))
            elif at > begin or first == begin:
                taken.append((part[max(begin - first, 0) : end - first], tokens))
                kept.append((part[end - first :], ()))
        self._parts = kept
        return taken

    def take_all(self) -> tuple[TokenLogprob, ...]:
        """Return the tokens that are left, and drop them."""
        left = tuple(token for _, tokens in self._parts for token in tokens)
        self._parts.clear()
        return left
