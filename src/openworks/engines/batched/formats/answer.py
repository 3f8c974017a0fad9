"""One answer while it is parsed: the text that came, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openworks.engines.batched.formats.deltas import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Delta,
    Reasoning,
    merged,
)
from openworks.engines.batched.formats.reader import SPACE, NotACall, Reader, Steps
from openworks.engines.batched.formats.tools import Tool


class Answer:
    """What the coroutine of a format reads from and writes to.

    White space beside a marker belongs to the markup and is not given out.
    """

    def __init__(self, tools: Sequence[Tool], *, parallel: bool) -> None:
        self.reader = Reader()
        self.tools = {tool.name: tool for tool in tools}
        self.done = False
        """The one call that was allowed is complete: nothing more is given out."""
        self._parallel = parallel
        self._num_calls = 0
        self._deltas: list[Delta] = []
        self._gap = ""  # white space before the last marker
        self._after_markup = False

    def drain(self) -> list[Delta]:
        """Return what was given out since the last time."""
        deltas, self._deltas = self._deltas, []
        return merged(deltas)

    def say(self, text: str) -> None:
        """Give out content."""
        if text:
            self._after_markup = False
            self._put(Content(text))

    def think(self, text: str) -> None:
        """Give out reasoning."""
        if text:
            self._after_markup = False
            self._put(Reasoning(text))

    def begin_call(self, name: str) -> None:
        """Give out that a call begins: from here on it is one, whatever follows."""
        self.reader.forget()
        self._after_markup = False
        self._put(CallBegin(self._num_calls, name))

    def argue(self, text: str) -> None:
        """Give out a piece of the arguments of the call that was begun."""
        self._put(CallArguments(self._num_calls, text))
        self.reader.forget()

    def end_call(self) -> None:
        """Give out that the call is complete."""
        self._put(CallEnd(self._num_calls))
        self._num_calls += 1
        self._after_markup = True
        self.done = not self._parallel

    def close_markup(self) -> None:
        """Say that a marker was read: the white space after it is not given out."""
        self._after_markup = True

    def text_until(
        self, markers: tuple[str, ...], put: Callable[[str], None], *, trim: bool = True
    ) -> Steps[str]:
        """Hand text to `put` until a marker, which is read; no marker begins another.

        Args:
            markers: What may end the text; without any it goes on to the end of the answer.
            put: Takes each piece as soon as it is certain.
            trim: Keep back the white space before a marker.

        Returns:
            The marker; an empty text at the end of the answer.
        """
        if self._after_markup:
            yield from self.reader.skip_space()
        while True:
            self.reader.forget()
            text = self.reader.unread()
            at, marker = _find(text, markers)
            clear = len(text[:at].rstrip(SPACE)) if markers and trim else at
            put(text[:clear])
            if marker:
                self._gap = text[clear:at]
                self.reader.skip(at + len(marker))
                return marker
            if self.reader.ended:
                self.reader.skip(len(text))
                put(text[clear:])
                return ""
            self.reader.skip(clear)
            yield

    def attempt(self, steps: Steps[None], marker: str = "") -> Steps[bool]:
        """Read what may be calls; if it is none, give back `marker` and read on behind it.

        Args:
            steps: Raises NotACall before it gives out anything.
            marker: What was read before.

        Returns:
            Whether it was a call.
        """
        begin, gap = self.reader.at, self._gap if marker else ""
        try:
            yield from steps
        except NotACall:
            self.reader.back(begin)
            self.say(gap + marker)
            return False
        return True

    def _put(self, delta: Delta) -> None:
        if not self.done:
            self._deltas.append(delta)


def _find(text: str, markers: tuple[str, ...]) -> tuple[int, str]:
    """Return where a marker is or may be beginning, and the marker if it is all there."""
    firsts = {marker[0] for marker in markers}
    for at, letter in enumerate(text):
        if letter in firsts:
            for marker in markers:
                if text.startswith(marker, at):
                    return at, marker
            if any(marker.startswith(text[at:]) for marker in markers):
                return at, ""
    return len(text), ""
