"""DLP on a stream of server-sent events, as they flow.

An event goes on at once, byte for byte, unless the end of a text in it may be the beginning of a
match; then it waits, and the events after it behind it, until that is decided. What is redacted is
taken out of the deltas such that they add up to the redacted text.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any

import orjson

from openworks.gateway.guard.bodies import NESTED, redact_body
from openworks.gateway.guard.channel import Channel
from openworks.gateway.guard.events import ALL, texts_of_event
from openworks.gateway.guard.policies import SidePolicies
from openworks.gateway.guard.rules import Finding
from openworks.gateway.guard.verdicts import Tally, Verdict, decode, encode, redact

MAX_EVENT_BYTES = 8 << 20
"""A longer event blocks the stream: it cannot be looked at."""
MAX_QUEUED_BYTES = 4 << 20
"""When more bytes wait, the texts that they wait for are decided as they are."""
MAX_IDLE_EVENTS = 256
"""A text that others wait for is decided as it is when so many events have not continued it."""
MAX_TEXTS = 256
"""Texts that are open at the same time; more of them end the oldest."""

_EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")
_DONE = b"[DONE]"
_OTHER_LINES = (b":", b"event", b"id", b"retry", b"data")
"""How an event without data begins."""


class _Event:
    """An event that may have to wait, with the pieces of texts in it."""

    __slots__ = ("is_plain", "pieces", "raw", "rewritten", "value")

    def __init__(self, raw: bytes, value: Any = None, *, is_plain: bool = False) -> None:
        self.raw = raw
        self.value = value
        self.is_plain = is_plain
        """The data are a text, not JSON."""
        self.rewritten = False
        self.pieces: list[tuple[Channel, int, bytes, Any, Any]] = []
        """(text, where the piece begins in it, the piece, object or array, key)"""


class StreamGuard:
    """Looks at one stream. Not to be shared, and to be fed in order.

    At most `MAX_HELD_BYTES` of each text, and the events that carry them, are held back.
    """

    __slots__ = (
        "_channels",
        "_count",
        "_passes",
        "_policies",
        "_queue",
        "_queued_bytes",
        "_rest",
        "_tally",
        "blocked",
    )

    def __init__(self, policies: SidePolicies) -> None:
        """Begin; `compiled.response` is what to pass."""
        self._policies = policies
        self._tally = Tally(policies)
        self._passes = not policies.interferes  # flags only: nothing waits, nothing changes
        self._channels: dict[tuple[Any, Any], Channel] = {}
        self._queue: deque[_Event] = deque()
        self._queued_bytes = 0
        self._rest = b""
        self._count = 0  # events read
        self.blocked = False
        """A policy blocks: nothing more comes out, and the stream is to end with an error event."""

    @property
    def findings(self) -> list[Finding]:
        """What was found so far; places count bytes of UTF-8 within the text concerned."""
        return self._tally.findings

    def verdict(self) -> Verdict:
        """Say what was found so far, and what follows from it."""
        return self._tally.verdict()

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they came, and return what may go on now: any number of whole events."""
        if self.blocked:
            return b""
        rest = self._rest
        data = rest + chunk if rest else chunk
        out: list[bytes] = []
        done = 0
        # Three bytes back, for the end of an event may itself have come in two chunks.
        for match in _EVENT_END.finditer(data, max(0, len(rest) - 3)):
            end = match.end()
            self._take(data[done:end], out)
            done = end
        self._rest = data[done:] if done else data
        if len(self._rest) > MAX_EVENT_BYTES:
            self.blocked = self._policies.interferes
            self._rest = b""
        if self._passes:
            return chunk
        return self._joined(out)

    def end(self) -> bytes:
        """Say that nothing more comes; returns all that was still held back."""
        if self.blocked:
            return b""
        out: list[bytes] = []
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest, out)
        self._close(ALL)
        self._flush(out)
        return b"" if self._passes else self._joined(out)

    def _joined(self, out: list[bytes]) -> bytes:
        if self.blocked:
            # Events that were complete before the one that blocks may still go.
            self._queue.clear()
            self._channels.clear()
        return out[0] if len(out) == 1 else b"".join(out)

    def _block_if_found(self) -> None:
        if self._tally.blocks:
            self.blocked = True

    def _take(self, raw: bytes, out: list[bytes]) -> None:
        if self.blocked:
            return
        event, closes = self._read(raw)
        for group in closes:
            self._close(group)
        if self.blocked:
            return
        if not self._queue and not event.rewritten and _is_decided(event):
            if event.pieces and self._is_changed(event):
                out.append(_render(event))
            else:
                out.append(event.raw)
            return
        self._queue.append(event)
        self._queued_bytes += len(raw)
        self._flush(out)
        while self._queue and not self.blocked and self._waits_too_long(self._queue[0]):
            for channel, *_ in self._queue[0].pieces:
                self._settle(channel, is_final=True)
            self._flush(out)

    def _waits_too_long(self, event: _Event) -> bool:
        if self._queued_bytes > MAX_QUEUED_BYTES:
            return True
        since = self._count - MAX_IDLE_EVENTS
        return since > 0 and any(channel.touched < since for channel, *_ in event.pieces)

    def _read(self, raw: bytes) -> tuple[_Event, list[Any]]:
        """Find the texts of an event, and decide about them as far as possible."""
        self._count += 1
        data = _data_of(raw)
        if data is None:
            if not raw.lstrip().startswith(_OTHER_LINES):
                # No event at all: an answer that is no stream, or the rest of one.
                raw = redact_body(self._policies, raw, self._tally)
                self._block_if_found()
            return _Event(raw), []
        if data == _DONE:
            return _Event(raw), [ALL]
        value = _parse(data)
        if type(value) is not dict and type(value) is not list:
            return self._read_plain(raw, data), []
        event = _Event(raw, value)
        texts = texts_of_event(value)
        for parent, key in texts.wholes:
            self._whole(event, parent, key)
        if texts.pieces:
            self._end_others(texts.pieces)
            for group, name, parent, key in texts.pieces:
                self._continue(event, group, name, parent, key)
        return event, texts.closes

    def _read_plain(self, raw: bytes, data: bytes) -> _Event:
        event = _Event(raw, {"data": data.decode("utf-8", "replace")}, is_plain=True)
        if data:
            self._continue(event, None, "data", event.value, "data")
        return event

    def _whole(self, event: _Event, parent: Any, key: Any) -> None:
        raw = encode(parent[key])
        redacted = redact(self._policies, raw, self._tally, nested=key in NESTED)
        if redacted is not raw:
            parent[key] = decode(redacted)
            event.rewritten = True
        self._block_if_found()

    def _continue(self, event: _Event, group: Any, name: Any, parent: Any, key: Any) -> None:
        channels = self._channels
        channel = channels.get((group, name))
        if channel is None:
            if len(channels) >= MAX_TEXTS:
                self._settle(channels.pop(next(iter(channels))), is_final=True)
            is_nested = key in NESTED or (type(name) is tuple and "arguments" in str(name[0]))
            channel = channels[group, name] = Channel(is_nested=is_nested)
        piece = encode(parent[key])
        event.pieces.append((channel, channel.end, piece, parent, key))
        channel.append(piece)
        channel.touched = self._count
        self._settle(channel, is_final=False)

    def _settle(self, channel: Channel, *, is_final: bool) -> None:
        channel.settle(self._policies, self._tally, is_final=is_final)
        self._block_if_found()

    def _end_others(self, pieces: list[Any]) -> None:
        """End the texts of an answer that goes on with another one of its texts."""
        if len(self._channels) == 0:
            return
        spoken = {(piece.group, piece.name) for piece in pieces}
        groups = {piece.group for piece in pieces}
        ended = [key for key in self._channels if key[0] in groups and key not in spoken]
        for key in ended:
            self._settle(self._channels.pop(key), is_final=True)

    def _close(self, group: Any) -> None:
        for key in [key for key in self._channels if group == ALL or key[0] == group]:
            self._settle(self._channels.pop(key), is_final=True)

    def _flush(self, out: list[bytes]) -> None:
        queue = self._queue
        while queue and not self.blocked and _is_decided(queue[0]):
            event = queue.popleft()
            self._queued_bytes -= len(event.raw)
            changed = self._is_changed(event)
            out.append(_render(event) if changed else event.raw)

    def _is_changed(self, event: _Event) -> bool:
        for channel, start, piece, parent, key in event.pieces:
            if channel.edits:
                text = channel.rewritten(piece, start)
                if text is not piece:
                    parent[key] = decode(text)
                    event.rewritten = True
        return event.rewritten


def _is_decided(event: _Event) -> bool:
    for channel, start, piece, _, _ in event.pieces:
        if channel.released < start + len(piece):
            return False
    return True


def _parse(data: bytes) -> Any:
    """Decode JSON; None for anything else."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data.decode("utf-8"))  # halves of surrogate pairs
        except ValueError:
            return None


def _data_of(raw: bytes) -> bytes | None:
    """Return the data of an event, None if it has none."""
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:
        return raw[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in raw.splitlines() if line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None


def _render(event: _Event) -> bytes:
    """Write an event anew; all of its lines but the data stay."""
    if event.is_plain:
        datas = encode(event.value["data"]).split(b"\n")
    else:
        datas = [_dump(_without_logprobs(event.value))]
    newline = b"\r\n" if b"\r\n" in event.raw else b"\n"
    others = [line for line in event.raw.splitlines() if line and line[:5] != b"data:"]
    return newline.join((*others, *(b"data: " + data for data in datas), b"", b""))


def _without_logprobs(value: Any) -> Any:
    """Take away log probabilities: they name the tokens that were redacted."""
    if isinstance(value, dict):
        value.pop("logprobs", None)
        for choice in value.get("choices") or ():
            if isinstance(choice, dict) and "logprobs" in choice:
                choice["logprobs"] = None
    return value


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # halves of surrogate pairs
        return json.dumps(value, separators=(",", ":")).encode("ascii")
