"""What can be wrong with a request, in OpenAI's words and codes.

A check deep inside a body knows what is wrong and not where. It raises a `Fault`; each object and
array on the way out adds its step, and the outermost caller turns the whole into an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from types import NoneType
from typing import ClassVar

from openworks.core.errors import InvalidRequestError

MAX_SHOWN_CHARS = 60

_NAMES: dict[type[object], str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    NoneType: "null",
}


class Fault(Exception):
    """One thing wrong with a value; `steps` lead to it, innermost first."""

    code: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str | int] = []

    def at(self, step: str | int) -> Fault:
        """Add the key or index under which the faulty value lies."""
        self.steps.append(step)
        return self

    def path(self) -> str:
        """Where the fault is, such as `messages[0].content`."""
        parts = [f"[{s}]" if isinstance(s, int) else f".{cut(s)}" for s in reversed(self.steps)]
        return "".join(parts).removeprefix(".")

    def message(self, path: str) -> str:
        raise NotImplementedError

    def error(self) -> InvalidRequestError:
        """The error that the caller reads."""
        path = self.path()
        return InvalidRequestError(self.message(path), code=self.code, param=path)


class MissingParameter(Fault):
    """A required field is not there."""

    code = "missing_required_parameter"

    def message(self, path: str) -> str:
        return f"Missing required parameter: '{path}'."


class UnknownParameter(Fault):
    """A field that the API does not have; its nearest neighbour is offered."""

    code = "unknown_parameter"

    def __init__(self, name: str, known: Collection[str]) -> None:
        super().__init__()
        self._name = cut(name)
        self._known = known

    def message(self, path: str) -> str:
        near = get_close_matches(self._name, self._known, n=1)
        hint = f" Did you mean '{path.removesuffix(self._name)}{near[0]}'?" if near else ""
        return f"Unknown parameter: '{path}'.{hint}"


class InvalidType(Fault):
    """A value of another JSON type than the field takes."""

    code = "invalid_type"

    def __init__(self, expected: Collection[str], value: object) -> None:
        """Take the expected types as nouns without an article, and the value."""
        super().__init__()
        self._expected = expected
        self._got = describe_type(value)

    def message(self, path: str) -> str:
        expected = _one_of(self._expected)
        return f"Invalid type for '{path}': expected {expected}, but got {self._got} instead."


class InvalidValue(Fault):
    """A value of the right type that is not one of the few allowed."""

    code = "invalid_value"

    def __init__(self, value: object, supported: Iterable[object]) -> None:
        super().__init__()
        self._value = value
        self._supported = supported

    def message(self, path: str) -> str:
        supported = _join([quote(value) for value in self._supported], "and")
        return f"Invalid value: {quote(self._value)}. Supported values are: {supported}."


class TooDeep(Fault):
    """A recursive value that goes on for longer than anyone needs."""

    code = "invalid_value"

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def message(self, path: str) -> str:
        return f"'{path}' is nested too deeply: objects may be at most {self._limit} levels deep."

    def path(self) -> str:
        """The top-level field only: the full path would be as long as the value is deep."""
        return str(self.steps[-1]) if self.steps else ""


def describe_type(value: object) -> str:
    """The JSON type of a value, with its article: `a string`, `an integer`, `null`."""
    return _NAMES.get(type(value)) or f"a value of type {type(value).__name__}"


def quote(value: object) -> str:
    """A scalar as messages show it: strings in quotes, booleans as JSON has them."""
    match value:
        case str():
            return f"'{cut(value)}'"
        case bool():
            return "true" if value else "false"
        case _:
            return cut(str(value))


def cut(text: str) -> str:
    """Shorten what came from the caller, so that no message is as long as a prompt."""
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."


def _one_of(nouns: Collection[str]) -> str:
    """`a string`, or `one of a string or array of strings`: only the first noun has an article."""
    words: list[str] = []
    has_article = False
    for noun in nouns:
        if noun.startswith("'") or has_article:
            words.append(noun)
        else:
            words.append(f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}")
            has_article = True
    return words[0] if len(words) == 1 else f"one of {_join(words, 'or')}"


def _join(words: list[str], last: str) -> str:
    """Join with commas and a final `and` or `or`."""
    match words:
        case [one]:
            return one
        case [one, two]:
            return f"{one} {last} {two}"
        case _:
            return f"{', '.join(words[:-1])}, {last} {words[-1]}"
