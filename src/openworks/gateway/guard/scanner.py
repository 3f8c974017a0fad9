"""Finds the matches of many rules in one text, in time linear in its length.

RE2 does the searching: no pattern, however hostile, can make it backtrack. One pass over a text
with the union of all rules tells that nothing is there, which is the common case; only then do the
rules of the families concerned look for themselves.

Texts are UTF-8, so that offsets need no translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import re2  # type: ignore[import-untyped]  # ships no types

from openworks.gateway.guard.prefixes import (
    UnsupportedPatternError,
    anywhere,
    beginnings,
    parse,
    union,
)
from openworks.gateway.guard.rules import Check, Rule

_UNION_MEMORY_BYTES = 64 << 20
_RULE_MEMORY_BYTES = 4 << 20


_START = itemgetter(0)


class Match(NamedTuple):
    """One match: the part to report, and all that the pattern needed to know it."""

    start: int
    end: int
    whole_start: int
    whole_end: int
    rule: Rule


def compile_pattern(pattern: str, *, max_mem: int = _RULE_MEMORY_BYTES) -> Any:
    """Compile for searching bytes of UTF-8.

    Raises:
        UnsupportedPatternError: RE2 does not read it, or it needs too much memory.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = max_mem
    try:
        return re2.compile(pattern.encode("utf-8"), options)
    except re2.error as exc:
        detail = exc.args[0] if exc.args else b""
        text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise UnsupportedPatternError(text) from exc


class Scanner:
    """A set of rules, compiled. Immutable, so that any number of calls may share it."""

    __slots__ = ("_any", "_families", "_open", "rules")

    def __init__(self, families: Sequence[Sequence[Rule]]) -> None:
        """Compile the rules; those of one family are likely to be looked for together."""
        self.rules = tuple(rule for family in families for rule in family)
        compiled = [_compile_family(tuple(family)) for family in families if family]
        self._families = [(found.any, found.entries) for found in compiled]
        self._any = _compile_union(tuple(found.any_source for found in compiled))
        self._open = _compile_open(tuple(found.open_source for found in compiled))

    def may_match(self, text: bytes) -> bool:
        """Whether any rule may match; also across texts that were joined by line breaks."""
        return self._any.search(text) is not None

    def find(self, text: bytes, pos: int = 0) -> list[Match]:
        """Return the matches of every rule that start at or after `pos`, by their start.

        Matches of one rule never overlap, those of different rules may.
        """
        if self._any.search(text, pos) is None:
            return []
        found: list[Match] = []
        for any_of_family, entries in self._families:
            if any_of_family.search(text, pos) is not None:
                for regexp, check, rule in entries:
                    _find_one(regexp, check, rule, text, pos, found)
        found.sort(key=_START)
        return found

    def open_from(self, text: bytes, pos: int) -> int:
        """Return where the longest ending of `text` starts that may still become a match.

        The length of `text` if there is none.
        """
        match = self._open.search(text, pos)
        return len(text) if match is None else int(match.start())


class _Family(NamedTuple):
    any: Any
    any_source: str
    open_source: str
    entries: tuple[tuple[Any, Check | None, Rule], ...]


@lru_cache(maxsize=64)
def _compile_family(rules: tuple[Rule, ...]) -> _Family:
    parsed = [parse(rule.pattern) for rule in rules]
    any_source = union(anywhere(items) for items in parsed)
    return _Family(
        compile_pattern(any_source, max_mem=_UNION_MEMORY_BYTES),
        any_source,
        union(beginnings(items) for items in parsed),
        tuple((compile_pattern(rule.pattern), rule.check, rule) for rule in rules),
    )


@lru_cache(maxsize=16)
def _compile_union(sources: tuple[str, ...]) -> Any:
    return _warmed(compile_pattern(union(sources), max_mem=_UNION_MEMORY_BYTES))


@lru_cache(maxsize=16)
def _compile_open(sources: tuple[str, ...]) -> Any:
    return _warmed(compile_pattern(rf"(?:{union(sources)})\z", max_mem=_UNION_MEMORY_BYTES))


_USUAL = [*(chr(code) for code in range(0x20, 0x7F)), "\n", "é", "“", "中"]


def _warmed(regexp: Any) -> Any:
    """Let RE2 build the states that every text leads to, so that no first call pays for them."""
    for char in _USUAL:
        for text in (char, f" {char}", f"{char} ", f"a{char}", f"{char}a", f"1{char}", f"{char}1"):
            regexp.search(text.encode("utf-8"))
    return regexp


def _find_one(
    regexp: Any, check: Check | None, rule: Rule, text: bytes, pos: int, found: list[Match]
) -> None:
    group = 1 if regexp.groups else 0
    # RE2's binding takes a place behind the end for the end: an empty match there would never end.
    while pos < len(text) and (match := regexp.search(text, pos)) is not None:
        whole_start, whole_end = match.span()
        start, end = match.span(group)
        if start < 0 or start == end:
            start, end = whole_start, whole_end
        if check is not None and (checked := check(text, start, end)) != end:
            if checked <= start:
                # Not beyond the candidate: a match may start inside of what was none.
                pos = whole_start + 1
                continue
            end = whole_end = checked
        if whole_end == whole_start:
            pos = whole_end + 1
            continue
        found.append(Match(start, end, whole_start, whole_end, rule))
        pos = whole_end
