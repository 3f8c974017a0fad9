"""From a pattern, the pattern of everything that could still become a match of it.

A stream must hold text back exactly while it may be the beginning of a match. For `key-[0-9]+` that
is `k`, `ke`, `key`, `key-`, `key-7` and so on. RE2 finds the longest such ending of a text in one
backward pass that stops at the first character that fits nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# The parser behind `re` is the only one in the standard library; the old public name for it,
# `sre_parse`, warns since 3.11. What it yields has been stable for decades, and the tests compare
# both patterns on every built-in rule.
from re import _constants as _c  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, TypeAlias

_Items: TypeAlias = Sequence[tuple[Any, Any]]

_CATEGORIES = {
    _c.CATEGORY_DIGIT: r"\d",
    _c.CATEGORY_NOT_DIGIT: r"\D",
    _c.CATEGORY_SPACE: r"\s",
    _c.CATEGORY_NOT_SPACE: r"\S",
    _c.CATEGORY_WORD: r"\w",
    _c.CATEGORY_NOT_WORD: r"\W",
}
_BOUNDARIES = {_c.AT_BOUNDARY: r"\b", _c.AT_NON_BOUNDARY: r"\B"}
_ENDS = {
    _c.AT_BEGINNING: "^",
    _c.AT_BEGINNING_STRING: r"\A",
    _c.AT_END: "$",
    _c.AT_END_STRING: r"\z",
}
_LONG_COUNT = 12
_FLAGS = ((re.IGNORECASE, "i"), (re.MULTILINE, "m"), (re.DOTALL, "s"))


class UnsupportedPatternError(ValueError):
    """The pattern uses what cannot be searched in linear time; the message names it."""


def parse(pattern: str) -> _Items:
    """Parse a pattern.

    Raises:
        UnsupportedPatternError: It is not a regular expression, or uses look-around and the like.
    """
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise UnsupportedPatternError(str(exc)) from exc
    flags = parsed.state.flags & (re.IGNORECASE | re.MULTILINE | re.DOTALL)
    return [(_c.SUBPATTERN, (None, flags, 0, parsed))]


def anywhere(items: _Items) -> str:
    """Return a pattern that matches wherever the original does, without its `^` and `$`."""
    return "".join(_emit(op, arg, ends=False) for op, arg in items)


def without_groups(items: _Items) -> str:
    """Return the same pattern, without capturing groups."""
    return "".join(_emit(op, arg) for op, arg in items)


def beginnings(items: _Items) -> str:
    r"""Return a pattern of all beginnings of matches, the empty and the whole ones included.

    It is meant to be followed by `\z`. It may match a little more: assertions at the very end of a
    beginning are taken to hold.
    """
    if not items:
        return ""
    (op, arg), rest = items[0], items[1:]
    if op is _c.AT:
        return f"(?:{_emit(op, arg)}{beginnings(rest)})?"
    if _is_one_character(op):
        return f"(?:{_emit(op, arg)}{beginnings(rest)})?"
    if (
        op in (_c.MAX_REPEAT, _c.MIN_REPEAT)
        and _is_one_character(arg[2][0][0])
        and len(arg[2]) == 1
    ):
        # What follows may come early, and the long fixed counts of keys are not counted: a tenth
        # of the states, and hardly any text is open for longer.
        low, high, item = arg
        most = _c.MAXREPEAT if low == high and high >= _LONG_COUNT else high
        return _emit(op, (0, most, item)) + beginnings(rest)
    if not rest:
        return _beginnings_of(op, arg)
    return f"(?:{_emit(op, arg)}{beginnings(rest)}|{_beginnings_of(op, arg)})"


def union(patterns: Iterable[str]) -> str:
    """Return a pattern that matches what any of them matches."""
    return "|".join(f"(?:{pattern})" for pattern in patterns)


def _is_one_character(op: Any) -> bool:
    return op in (_c.LITERAL, _c.NOT_LITERAL, _c.ANY, _c.IN)


def _beginnings_of(op: Any, arg: Any) -> str:
    if op is _c.SUBPATTERN:
        _, added, removed, items = arg
        return _with_flags(added, removed, beginnings(list(items)))
    if op is _c.BRANCH:
        return "(?:" + "|".join(beginnings(list(branch)) for branch in arg[1]) + ")"
    _, high, items = arg
    if high is not _c.MAXREPEAT and int(high) == 0:
        return ""
    most = "" if high is _c.MAXREPEAT else str(int(high) - 1)
    whole = "".join(_emit(inner, value) for inner, value in items)
    return f"(?:{whole}){{0,{most}}}{beginnings(list(items))}"


def _emit(op: Any, arg: Any, *, ends: bool = True) -> str:
    """Write one node in the syntax of RE2; without `ends`, no `^` and `$`."""
    if _is_one_character(op):
        return _emit_character(op, arg)
    if op is _c.AT:
        return _BOUNDARIES.get(arg) or (_ENDS[arg] if ends else "")
    if op is _c.SUBPATTERN:
        _, added, removed, items = arg
        inner = "".join(_emit(*item, ends=ends) for item in items)
        return _with_flags(added, removed, inner)
    if op is _c.BRANCH:
        branches = ("".join(_emit(*item, ends=ends) for item in branch) for branch in arg[1])
        return "(?:" + "|".join(branches) + ")"
    if op in (_c.MAX_REPEAT, _c.MIN_REPEAT):
        low, high, items = arg
        inner = "".join(_emit(*item, ends=ends) for item in items)
        most = "" if high is _c.MAXREPEAT else str(int(high))
        return f"(?:{inner}){{{int(low)},{most}}}"
    raise UnsupportedPatternError(f"{str(op).lower().replace('_', ' ')} is not supported")


def _emit_character(op: Any, arg: Any) -> str:
    if op is _c.ANY:
        return "."
    if op is _c.LITERAL:
        return _character(arg)
    if op is _c.NOT_LITERAL:
        return f"[^{_character(arg)}]"
    return "[" + "".join(_emit_class_item(*item) for item in arg) + "]"


def _emit_class_item(op: Any, arg: Any) -> str:
    if op is _c.NEGATE:
        return "^"
    if op is _c.RANGE:
        return f"{_character(arg[0])}-{_character(arg[1])}"
    if op is _c.LITERAL:
        return _character(arg)
    return _CATEGORIES[arg]


def _character(code: int) -> str:
    """Write one character such that RE2 and `re` both take it literally, in classes as well."""
    char = chr(code)
    return char if char.isalnum() or code >= 0x80 else f"\\x{code:02x}"


def _with_flags(added: int, removed: int, inner: str) -> str:
    on = "".join(letter for flag, letter in _FLAGS if added & flag)
    off = "".join(letter for flag, letter in _FLAGS if removed & flag)
    return f"(?{on}{'-' + off if off else ''}:{inner})"
