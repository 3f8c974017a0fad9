"""The text of an answer as a parser pulls it, character by character, while it is still coming.

A parser is a coroutine that yields when it has read all there is. It cannot see where the text was
cut, so what it finds is the same however the text came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Generator
from typing import TypeAlias, TypeVar

_Result = TypeVar("_Result")

Steps: TypeAlias = Generator[None, None, _Result]
"""A part of a parser: yields to ask for more text, returns what it found."""

SPACE = " \t\r\n"

_INSIDE = re.compile(r'[^"\\]+')
"""In a JSON string: what neither ends nor escapes."""
_OUTSIDE = re.compile(r'[^"{}\[\]<]+')
"""Between strings: what neither opens nor closes, nor begins a marker."""


class NotACall(Exception):
    """What looked like a call is none; the text is to be given out as it is."""


class Reader:
    """Text that grows at one end and is read at the other."""

    def __init__(self) -> None:
        self._text = ""
        self._start = 0  # the place of the first character that is still kept
        self._next = 0  # where in the kept text the next character is
        self._forgotten = 0  # as far as that nobody goes back
        self.ended = False
        """No more text will come."""

    def feed(self, text: str) -> None:
        self._text = self._text[self._forgotten :] + text
        self._start += self._forgotten
        self._next -= self._forgotten
        self._forgotten = 0

    @property
    def at(self) -> int:
        """The place of the next character, counted from the beginning of the answer."""
        return self._start + self._next

    def back(self, at: int) -> None:
        """Read again from `at`, which was not forgotten."""
        assert at >= self._start + self._forgotten
        self._next = at - self._start

    def forget(self) -> None:
        """Keep nothing of what was read; no `back` before this place."""
        self._forgotten = self._next

    def since(self, at: int) -> str:
        """What was read from `at` on."""
        return self._text[at - self._start : self._next]

    def unread(self) -> str:
        """What has come and was not read."""
        return self._text[self._next :]

    def skip(self, length: int) -> None:
        self._next += length

    def peek(self) -> Steps[str]:
        """Return the next character; an empty text at the end."""
        while self._next == len(self._text):
            if self.ended:
                return ""
            yield
        return self._text[self._next]

    def skip_space(self) -> Steps[None]:
        while (letter := (yield from self.peek())) and letter in SPACE:
            self.skip(1)

    def accept(self, literal: str) -> Steps[bool]:
        """Read `literal` if the text goes on with it, else nothing."""
        begin = self.at
        for letter in literal:
            if (yield from self.peek()) != letter:
                self.back(begin)
                return False
            self.skip(1)
        return True

    def expect(self, literal: str) -> Steps[None]:
        """Read `literal`.

        Raises:
            NotACall: The text goes on otherwise.
        """
        if not (yield from self.accept(literal)):
            raise NotACall

    def word(self, known: Collection[str], ends: str) -> Steps[str]:
        """Read one of the `known` words, up to a character of `ends`, which is not read.

        Raises:
            NotACall: As soon as none of them begins like the text.
        """
        begin = self.at
        while (letter := (yield from self.peek())) and letter not in ends:
            self.skip(1)
            _check_begun(self.since(begin), known)
        if (word := self.since(begin)) not in known:
            raise NotACall
        return word

    def string(self, known: Collection[str] | None = None) -> Steps[str]:
        """Read a JSON string and return what it stands for.

        Args:
            known: What it may be; None for anything.

        Raises:
            NotACall: It is no JSON string, or none of the `known`.
        """
        begin = self.at
        yield from self.expect('"')
        escaped = False
        while (letter := (yield from self.peek())) and (escaped or letter != '"'):
            self.skip(1)
            escaped = letter == "\\" and not escaped
            if known is not None and "\\" not in (inside := self.since(begin)[1:]):
                _check_begun(inside, known)
        yield from self.expect('"')
        text = decoded(self.since(begin))
        assert isinstance(text, str)
        if known is not None and text not in known:
            raise NotACall
        return text

    def value(self) -> Steps[str]:
        """Read any JSON value and return its text.

        Raises:
            NotACall: It is not JSON.
        """
        begin = self.at
        letter = yield from self.peek()
        if letter == '"':
            yield from self.string()
        elif letter in {"{", "["}:
            yield from self.nested(lambda _: None)
        else:
            while (letter := (yield from self.peek())).isalnum() or letter in {"-", "+", "."}:
                self.skip(1)
        decoded(text := self.since(begin))
        return text

    def nested(self, put: Callable[[str], None], stops: tuple[str, ...] = ()) -> Steps[bool]:
        """Read an object or a list, whatever is inside, and hand its characters to `put`.

        Args:
            put: Takes each piece at once.
            stops: Texts that end it too where JSON has no place for them; they are not read. Each
                begins with `<` or `[`.

        Returns:
            Whether it was closed.
        """
        depth, in_string, escaped = 0, False, False
        while letter := (yield from self.peek()):
            if run := self._run(_INSIDE if in_string else _OUTSIDE, escaped=escaped):
                put(run)
                continue
            if not in_string and (yield from self._stands_before(stops)):
                return False
            self.skip(1)
            put(letter)
            if in_string:
                in_string = escaped or letter != '"'
                escaped = letter == "\\" and not escaped
            else:
                in_string = letter == '"'
                depth += (letter in "{[") - (letter in "}]")
                if depth == 0:
                    return True
        return False

    def _run(self, kind: re.Pattern[str], *, escaped: bool) -> str:
        """Read as many characters of a kind as have come; none right after a backslash."""
        found = None if escaped else kind.match(self._text, self._next)
        self.skip(len(run := found.group() if found else ""))
        return run

    def _stands_before(self, stops: tuple[str, ...]) -> Steps[bool]:
        begin = self.at
        for stop in stops:
            if (yield from self.accept(stop)):
                self.back(begin)
                return True
        return False


def decoded(text: str) -> object:
    """Return what a JSON text stands for.

    Raises:
        NotACall: It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise NotACall from exc


def _check_begun(text: str, known: Collection[str]) -> None:
    if not any(word.startswith(text) for word in known):
        raise NotACall
