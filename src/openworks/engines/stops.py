"""Stop texts, found in the answer itself, for every engine.

llama.cpp has stops of its own, but on a stream it holds back what may become one and never sends
it when the answer ends by its length; and it looks for them in tool calls and reasoning too.
"""

from __future__ import annotations

from collections.abc import Sequence

from openworks.ports.text import TokenLogprob


class StopCutter:
    """Cuts one answer before the first stop, across pieces. Holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self._held_logprobs: list[tuple[int, tuple[TokenLogprob, ...]]] = []  # with their places
        self.found = False
        """Whether a stop has come; nothing after it belongs to the answer."""

    def feed(
        self, text: str, logprobs: tuple[TokenLogprob, ...], *, is_last: bool
    ) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Take the next piece; return what belongs to the answer for certain."""
        self._held_logprobs.append((len(self._held), logprobs))
        whole = self._held + text
        # The stop that is complete first ends the answer, as it would have token by token.
        places = [(at + len(stop), at) for stop in self._stops if (at := whole.find(stop)) >= 0]
        self.found = bool(places)
        if places:
            _, end = min(places)
        elif is_last:
            end = len(whole) + 1
        else:
            end = len(whole) - max((_begun(whole, stop) for stop in self._stops), default=0)
        ready = tuple(token for at, group in self._held_logprobs if at < end for token in group)
        self._held = whole[end:]
        self._held_logprobs = [(at - end, group) for at, group in self._held_logprobs if at >= end]
        return whole[:end], ready


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
