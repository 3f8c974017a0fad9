"""A rule: one thing to look for, such as a card number, as a pattern and a check of candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Check: TypeAlias = Callable[[bytes, int, int], int]
"""Takes (text, start, end) of a candidate; returns where it really ends, or 0 if it is none.

It may look at the one character after `end` (there is one, or the text ends there) and at a few
before `start`, and at nothing else: streams show it no more than that.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one entry of a profile looks for.

    `pattern` is a regular expression that both RE2 and Python's `re` read: no look-around, no
    back-references. It never matches the empty text. Group 1, if there is one, is the part that is
    reported and redacted; else it is all of it.
    """

    profile_id: str
    entry_id: str
    pattern: str
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, by where it stands. Never the text itself."""

    entry_id: str
    profile_id: str
    start: int
    """Where it starts, in bytes of the UTF-8 form of its text."""
    end: int
