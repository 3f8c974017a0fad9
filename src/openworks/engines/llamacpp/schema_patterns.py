"""What llama.cpp makes of regular expressions: a part of them, without knowing JSON's escapes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from openworks.engines.llamacpp.schema_reading import malformed, refusal

MAX_REPETITIONS = 2_000
"""llama.cpp refuses a longer minimum, and reads a longer maximum as none."""
_MAX_CHARS = 500
_TOKEN = re.compile(
    r"(\((?:\?:)?|\)|\||\[(?:\\.|[^\]\\])*\]|\\.|[^\[\\*+?{])"
    r"((?:[*+?]|\{\d*(?:,\d*)?\})\??)?",
    re.DOTALL,
)
_PASSED_OVER = re.compile(r"\{[^}\d]*\}|\{[^}]*$", re.DOTALL)
"""Curly brackets with which llama.cpp gives up a pattern."""
_OPENING = ("(", "(?:")
_LITERAL = re.compile(r"[^\x00-\x1f\"\\\]{}^$.]|\\[][^$.(){}|*+?-]")
_CLASS = re.compile(r"\[(?!\^)(?:[^\x00-\x1f\"\\\]]|\\[][-])+\]")


def check_pattern(pattern: str, path: str) -> None:
    """Return if the grammar enforces a pattern that `count_atoms` takes.

    Raises:
        InvalidRequestError: It does not, or it lets text through that must be escaped in JSON.
    """
    if not _is_anchored(pattern):
        raise refusal(path, f"pattern {pattern!r} without ^ and $ around it is not enforced")
    for atom, quantifier in _tokens(pattern, path):
        if atom in _OPENING:
            fine = not quantifier
        elif atom in {")", "|"} or _CLASS.fullmatch(atom):
            fine = not _spans_escapes(atom)
        else:  # of an escape or beyond ASCII, llama.cpp repeats too much or too little
            fine = bool(_LITERAL.fullmatch(atom))
            fine = fine and (not quantifier or (len(atom) == 1 and atom.isascii()))
        if not fine:
            raise refusal(path, f"{atom + quantifier!r} in pattern {pattern!r} is not enforced")
        if quantifier[1:].endswith("?") or quantifier.startswith("{,"):
            raise refusal(path, f"{quantifier!r} in pattern {pattern!r} is not enforced")
        if _bounds(quantifier)[1] == 0:
            raise refusal(path, f"{quantifier!r} in pattern {pattern!r} is not enforced")


def _spans_escapes(atom: str) -> bool:
    """Whether a range of a class holds a quotation mark or a backslash."""
    ranges = re.findall(r"([^\\])-([^\]])", atom[1:-1]) if atom.startswith("[") else []
    return any(low <= mark <= high for low, high in ranges for mark in '"\\')


def count_atoms(pattern: str, path: str) -> int:
    """Count the atoms of a pattern when what is repeated is written out.

    Raises:
        InvalidRequestError: It is no regular expression, or too long to be read.
    """
    if not _is_anchored(pattern):
        return 1  # llama.cpp passes over it
    if len(pattern) > _MAX_CHARS:
        raise refusal(path, f"a pattern of more than {_MAX_CHARS} characters is not enforced")
    groups = [0]
    for atom, quantifier in _tokens(pattern, path):
        if atom in _OPENING and quantifier == "?":
            return 1  # a lookahead or the like: the same
        if atom in {"|", *_OPENING} and quantifier:
            raise malformed(path, f"pattern {pattern!r} repeats nothing")
        if atom in _OPENING:
            groups.append(0)
            continue
        inner = groups.pop() if atom == ")" else 1
        if not groups:
            raise malformed(path, f"pattern {pattern!r} closes a group that is not open")
        if not inner and quantifier:
            raise malformed(path, f"pattern {pattern!r} repeats nothing")
        groups[-1] += inner * _times(quantifier, path)
    if len(groups) > 1:
        raise malformed(path, f"pattern {pattern!r} leaves a group open")
    return groups[0]


def _is_anchored(pattern: str) -> bool:
    return len(pattern) > 1 and pattern.startswith("^") and pattern.endswith("$")


def _tokens(pattern: str, path: str) -> Iterator[tuple[str, str]]:
    """Cut an anchored pattern into atoms, each with its quantifier or ""."""
    inner = pattern[1:-1]
    at = 0
    while at < len(inner):
        if (match := _TOKEN.match(inner, at)) is not None:
            yield match[1], match[2] or ""
            at = match.end()
        elif (match := _PASSED_OVER.match(inner, at)) is not None:
            yield "{", ""
            at = match.end()
        else:
            raise malformed(path, f"pattern {pattern!r} cannot be read from {inner[at:]!r} on")


def _times(quantifier: str, path: str) -> int:
    low, high = _bounds(quantifier)
    if high is not None and high < low:
        raise malformed(path, f"{quantifier!r} in a pattern lets nothing through")
    if max(low, high or 0) > MAX_REPETITIONS:
        raise refusal(path, f"{quantifier!r} beyond {MAX_REPETITIONS} is not enforced")
    return max(low, high or 1)


def _bounds(quantifier: str) -> tuple[int, int | None]:
    """Return how often at least and at most; None without a limit."""
    if not quantifier.startswith("{"):
        return {"": (1, 1), "*": (0, None), "+": (1, None), "?": (0, 1)}[quantifier[:1]]
    least, comma, most = quantifier.strip("{}?").partition(",")
    low = _number(least)
    return low, (_number(most) if most else None) if comma else low


def _number(digits: str) -> int:
    return int(digits[:9] or 0)
