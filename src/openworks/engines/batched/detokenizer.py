"""Tokens to text, one at a time, never half a character."""

from __future__ import annotations

import codecs

from openworks.engines.batched.tokenizer import Tokenizer


class Detokenizer:
    """Makes the text of one answer. Each token costs the same, however long the answer is.

    What is given out is what decoding all tokens at once gives: UTF-8 in which each sequence that
    is none becomes U+FFFD.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        keep_special: frozenset[str] = frozenset(),
        continues: bool = False,
    ) -> None:
        """Begin a text.

        Args:
            tokenizer: Knows the tokens.
            keep_special: Special tokens that are left in the text; all others are dropped.
            continues: The text goes on from another, so that a blank at its beginning counts.
                SentencePiece puts one before every text, which otherwise is none of it.
        """
        self._tokenizer = tokenizer
        ids = tokenizer.added_ids
        kept = {ids[text] for text in keep_special if text in ids}
        self._dropped = tokenizer.special_ids - kept
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_first = not continues
        self._blanks_to_cut = 0 if continues else tokenizer.decoder.blanks_cut

    def feed(self, token: int) -> str:
        """Take the next token; return the characters that are complete now."""
        if token in self._dropped:
            return ""
        if self._is_first:
            self._is_first = False
            piece = self._tokenizer.first_token_bytes(token)
        else:
            piece = self._tokenizer.token_bytes(token)
        return self._cut(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back: U+FFFD for a character that never became complete."""
        return self._cut(self._decoder.decode(b"", final=True))

    def _cut(self, text: str) -> str:
        while text and self._blanks_to_cut:
            if not text.startswith(" "):
                self._blanks_to_cut = 0
                break
            text, self._blanks_to_cut = text[1:], self._blanks_to_cut - 1
        return text
