"""One text of a stream, decided piece by piece: what of it can go on, and what is replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence

from openworks.gateway.guard.policies import SidePolicies
from openworks.gateway.guard.scanner import Match
from openworks.gateway.guard.verdicts import Tally, redactions, without_escapes

MAX_HELD_BYTES = 4096
"""The most of one text that is held back."""
MAX_OPEN_BYTES = 2048
"""A match of up to this length is found however it is cut; a longer one if, by the time that
`MAX_HELD_BYTES` are held, what there is of it already is a match."""
_CONTEXT_BYTES = 8
"""What rules may see of the text before a match."""

_TOKEN_REST = re.compile(rb"[A-Za-z0-9+/=_.~\\\r\n-]*")
"""What else belongs to a match that was decided before its end came: keys are that long."""


class Channel:
    """Holds the end of one text for as long as it may be the beginning of a match.

    Places count bytes of UTF-8 from the beginning of the text.
    """

    __slots__ = (
        "_base",
        "_is_nested",
        "_pos",
        "_runs_on",
        "_text",
        "edits",
        "end",
        "released",
        "touched",
    )

    def __init__(self, *, is_nested: bool = False) -> None:
        """Begin an empty text; a nested one is JSON itself."""
        self._text = b""
        self._base = 0  # where _text begins
        self._pos = 0  # what of _text is not decided
        self._is_nested = is_nested
        self._runs_on = False  # the last match was cut short; what continues it is removed
        self.end = 0
        self.released = 0
        """Up to where the text is decided."""
        self.touched = 0
        """When it was last continued, as its owner counts."""
        self.edits: list[tuple[int, int, bytes]] = []
        """(start, end, replacement), in order; before `released`."""

    def append(self, piece: bytes) -> None:
        """Add what came. `settle` decides about it."""
        self.end += len(piece)
        if self._runs_on:
            match = _TOKEN_REST.match(piece)
            size = match.end() if match is not None else 0
            start = self.end - len(piece)
            if size:
                self.edits.append((start, start + size, b""))
            self.released = self._base = start + size
            self._text, self._pos = b"", 0
            piece = piece[size:]
            self._runs_on = not piece
        self._text += piece

    def settle(self, policies: SidePolicies, tally: Tally, *, is_final: bool) -> None:
        """Decide about as much as possible; about all of it when nothing more comes."""
        text, pos = self._text, self._pos
        if pos == len(text):
            return
        if self._is_nested:
            text = without_escapes(text)
        scanner = policies.scanner
        limit = len(text) if is_final else scanner.open_from(text, pos)
        matches = scanner.find(text, pos)
        settled: Sequence[Match] = ()
        if matches:
            limit, settled = _settled(matches, limit)
        if len(text) - limit > MAX_HELD_BYTES:
            limit, settled = _forced(text, matches, limit)
        if settled:
            self._accept(policies, tally, settled, limit == len(text) and not is_final)
        self._release(limit)

    def _accept(
        self, policies: SidePolicies, tally: Tally, matches: Sequence[Match], is_at_end: bool
    ) -> None:
        base = self._base
        tally.add(matches, base)
        edits = redactions(policies, matches)
        self.edits += [(start + base, end + base, marker) for start, end, marker in edits]
        self._runs_on = is_at_end and bool(edits) and edits[-1][1] == len(self._text)

    def _release(self, limit: int) -> None:
        kept = max(0, limit - _CONTEXT_BYTES)
        self._text = self._text[kept:]
        self._pos = limit - kept
        self._base += kept
        self.released = self._base + self._pos

    def rewritten(self, piece: bytes, start: int) -> bytes:
        """Return what replaces the piece that began at `start`; the same object if it stays."""
        end = start + len(piece)
        edits = self.edits
        if not edits or edits[0][0] >= end:
            return piece
        parts, done = [], start
        for edit_start, edit_end, marker in edits:
            if edit_start >= end:
                break
            if edit_end <= start:
                continue
            parts.append(piece[done - start : max(edit_start, start) - start])
            if edit_start >= start:
                parts.append(marker)
            done = min(edit_end, end)
        parts.append(piece[done - start :])
        self.edits = [edit for edit in edits if edit[1] > end]
        return b"".join(parts)


def _settled(matches: Sequence[Match], limit: int) -> tuple[int, list[Match]]:
    """Keep the matches that end before `limit`, which moves back to where none crosses it."""
    moved = True
    while moved:
        moved = False
        for match in matches:
            if match.whole_start < limit < match.whole_end:
                limit, moved = match.whole_start, True
    return limit, [match for match in matches if match.whole_start < limit]


def _run_on(text: bytes, match: Match) -> Match:
    """Let a match go on to the end of the text if nothing but more of the same kind follows."""
    rest = _TOKEN_REST.match(text, match.whole_end)
    if rest is None or rest.end() != len(text):
        return match
    return match._replace(end=len(text), whole_end=len(text))


def _forced(text: bytes, matches: Sequence[Match], limit: int) -> tuple[int, list[Match]]:
    """Decide although more might come: too much is held.

    What is a match already counts as one; for anything else, the oldest half goes on.
    """
    matches = [_run_on(text, match) for match in matches]
    limit = max(limit, len(text) - MAX_OPEN_BYTES)
    while limit < len(text) and text[limit] & 0xC0 == 0x80:  # not in the middle of a character
        limit += 1
    moved = True
    while moved:
        moved = False
        for match in matches:
            if match.whole_start < limit < match.whole_end:
                limit, moved = match.whole_end, True
    return limit, [match for match in matches if match.whole_start < limit]
