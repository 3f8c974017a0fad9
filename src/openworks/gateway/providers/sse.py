"""Reading a stream as it passes by: tokens, whether it ended well, and how to say that it did not.

Bytes are never held back or changed here. Of an event without usage only a few markers are looked
for; JSON is decoded where they are found. Inside JSON strings every `"` is escaped, so a marker
with its quotes is always a real member.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.providers.base import Dialect, Provider
from openworks.gateway.providers.prices import estimate_tokens
from openworks.gateway.providers.usage import (
    Fields,
    GoogleFields,
    Metrics,
    Nested,
    of_fields,
    of_google,
    of_metrics,
)
from openworks.ports.calls import Usage

MAX_LINE_BYTES = 8 << 20
"""A longer line is not read; its usage counts as not given."""
_TAIL_BYTES = 8_192
_LAST_LINE_BYTES = 16_384

_ENDS = frozenset(
    {
        "message_stop",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "message-end",
        "stream-end",
    }
)


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    event_type: str | None = None
    usage: Fields | None = None
    usageMetadata: GoogleFields | None = None  # noqa: N815
    message: Nested | str | None = None
    response: Nested | str | float | None = None  # Workers AI writes numbers as numbers
    delta: Nested | str | None = None
    meta: Fields | None = None
    x_groq: Nested | None = None
    invocation: Metrics | None = msgspec.field(
        default=None, name="amazon-bedrock-invocationMetrics"
    )


_EVENT = msgspec.json.Decoder(_Event)
_METADATA = msgspec.json.Decoder(GoogleFields)


@dataclass(frozen=True, slots=True)
class _Marks:
    """What to look for in a dialect's stream."""

    decoded: tuple[bytes, ...]
    """In a line that is worth decoding."""
    ends: tuple[bytes, ...]
    """In a line that ends the stream, without decoding it."""
    content: tuple[bytes, ...]
    """Members that hold text of the answer, the most frequent first."""


_OPENAI_CONTENT = (
    b'"content":',
    b'"arguments":',
    b'"reasoning_content":',
    b'"reasoning":',
    b'"text":',
)
_USAGE = b'"usage"'
_DONE = b"[DONE]"
_NO_USAGE = b'"usage":null'  # on every event when a caller asked OpenAI for usage
_FINISH_REASONS = (b'"finish_reason":"', b'"finish_reason": "')

_MARKS: Mapping[Dialect, _Marks] = {
    "openai": _Marks((_USAGE,), (_DONE,), _OPENAI_CONTENT),
    "openai-responses": _Marks(
        (b'"response.completed"', b'"response.incomplete"', b'"response.failed"'),
        (),
        (b'"delta":',),
    ),
    "anthropic": _Marks(
        (_USAGE, b'"message_stop"'), (), (b'"text":', b'"partial_json":', b'"thinking":')
    ),
    "google": _Marks((b'"usageMetadata"',), (b'"finishReason"',), (b'"text":',)),
    "cohere": _Marks((b'"message-end"', b'"stream-end"'), (), (b'"text":', b'"arguments":')),
    "workers-ai": _Marks((_USAGE,), (_DONE,), (b'"response":', *_OPENAI_CONTENT)),
    "huggingface": _Marks((_USAGE,), (b'"generated_text":"', _DONE), (b'"text":', b'"content":')),
    "replicate": _Marks((), (b"event: done",), (b"data:",)),
    "bedrock": _Marks((_USAGE,), (), (b'"text":', b'"input":')),
}


class StreamReader:
    """Looks at a stream of server-sent events (or JSON lines) of one dialect."""

    __slots__ = (
        "_buffer",
        "_content",
        "_content_bytes",
        "_content_events",
        "_dialect",
        "_ends",
        "_interesting",
        "_is_skipping",
        "_last",
        "_num_events",
        "_started",
        "is_finished",
        "usage",
    )

    def __init__(self, dialect: Dialect, *, needs_done: bool = True) -> None:
        marks = _MARKS[dialect]
        self.usage: Usage | None = None
        """What the provider counted; the latest where it says so repeatedly."""
        self.is_finished = False
        """Whether the dialect's own end has been seen."""
        self._dialect = dialect
        self._ends = marks.ends if needs_done else marks.ends + _FINISH_REASONS
        self._content = marks.content
        self._interesting = marks.decoded + self._ends
        self._buffer = bytearray()  # grows in place: a long line may come in small pieces
        self._is_skipping = False
        self._last = b""
        self._content_events = 0
        self._content_bytes = 0
        self._num_events = 0
        self._started: Usage | None = None

    @property
    def has_content(self) -> bool:
        """Whether any of the answer's text has come."""
        return self._content_events > 0

    @property
    def estimated_completion_tokens(self) -> int:
        """About how many tokens have come: one an event at least, else four bytes to one."""
        return max(self._content_events, estimate_tokens(self._content_bytes))

    @property
    def unfinished_bytes(self) -> int:
        """How many of the last bytes are a line that has not ended yet."""
        return len(self._buffer)

    def final_usage(self, prompt_bytes: int) -> tuple[Usage, bool]:
        """What to account for now, and whether any of it was estimated here."""
        if self.usage is not None:
            return self.usage, False
        completion = self.estimated_completion_tokens
        started = self._started
        if started is not None:
            # A broken Anthropic stream has told the prompt's tokens at its start.
            return (
                Usage(
                    prompt_tokens=started.prompt_tokens,
                    completion_tokens=max(completion, started.completion_tokens),
                    cached_tokens=started.cached_tokens,
                ),
                True,
            )
        return (
            Usage(prompt_tokens=estimate_tokens(prompt_bytes), completion_tokens=completion),
            True,
        )

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes, wherever they were cut."""
        self._last = chunk if len(chunk) > 3 else self._last[-3:] + chunk
        if self._buffer or self._is_skipping or chunk[-1:] != b"\n":
            chunk = self._whole_lines(chunk)
            if not chunk:
                return
        for mark in self._interesting:
            if mark in chunk:
                if mark is _USAGE and chunk.count(_USAGE) == chunk.count(_NO_USAGE):
                    continue
                self._read_lines(chunk)
                break
        for key in self._content:
            if key in chunk:
                self._count(chunk, key)
                break

    def error_event(self, message: str, code: str) -> bytes:
        """The event that tells a client that the stream broke; nothing may follow it.

        Begins with line breaks where the stream stopped inside an event, so that it stands alone.
        """
        end = self._last.replace(b"\r\n", b"\n")
        start = b"" if not end or end.endswith(b"\n\n") else b"\n"
        if not end.endswith(b"\n") and end:
            start = b"\n\n"
        return start + _error_event(self._dialect, message, code, self._num_events)

    def _whole_lines(self, chunk: bytes) -> bytes:
        """Add to the line under way and return the lines that ended."""
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            if not self._is_skipping:
                self._buffer += chunk
                self._look_at_unfinished()
            return b""
        lines = chunk[:end]
        if self._is_skipping:
            lines = lines[lines.find(b"\n") + 1 :]
            self._is_skipping = False
        elif self._buffer:
            self._buffer += lines
            lines = bytes(self._buffer)
            self._buffer.clear()
        self._buffer += chunk[end:]
        self._look_at_unfinished()
        return lines

    def _look_at_unfinished(self) -> None:
        """Give up a line without end, and read one that may be the last: not all end in a break."""
        if len(self._buffer) > MAX_LINE_BYTES:
            self._buffer.clear()
            self._is_skipping = True
        elif self._buffer.endswith(_DONE) or (
            self._buffer.endswith(b"}") and len(self._buffer) < _LAST_LINE_BYTES
        ):
            self._read_lines(bytes(self._buffer))

    def _read_lines(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            for mark in self._interesting:
                if mark in line:
                    self._read_line(line)
                    break

    def _read_line(self, line: bytes) -> None:
        data = line[5:].strip() if line.startswith(b"data:") else line.strip()
        if data == _DONE or (self._dialect == "replicate" and data == b"event: done"):
            self.is_finished = True
        elif data[:1] == b"{":
            for mark in self._ends:
                if mark != _DONE and mark in data:
                    self.is_finished = True
            self._read_json(data)

    def _read_json(self, data: bytes) -> None:
        """Take usage and end out of one event's JSON; what is not as expected is passed by."""
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self._num_events += 1
        if event.type in _ENDS or event.event_type in _ENDS:
            self.is_finished = True
        found = _usage_of_event(event)
        if found is None:
            return
        if event.type == "message_start":
            self._started = found
        elif event.type == "message_delta" and self._started is not None:
            self.usage = _merged(self._started, found)
        else:
            self.usage = found

    def _count(self, lines: bytes, key: bytes) -> None:
        """Count the text in the members called `key`, without decoding it."""
        at = lines.find(key)
        while at >= 0:
            at += len(key)
            if lines[at : at + 1] == b" ":
                at += 1
            if lines[at : at + 1] == b'"':
                end = _end_of_string(lines, at + 1)
                if end > at + 1:
                    self._content_events += 1
                    self._content_bytes += end - at - 1
                at = end
            elif self._dialect == "replicate":
                self._content_events += 1
            at = lines.find(key, at)


class GoogleArrayReader(StreamReader):
    """Google's stream without `alt=sse`: one JSON array that grows, printed over many lines."""

    __slots__ = ("_is_array", "_tail")

    def __init__(self) -> None:
        super().__init__("google")
        self._is_array: bool | None = None
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        if self._is_array is None and chunk.strip():
            self._is_array = chunk.lstrip().startswith(b"[")
        if not self._is_array:
            super().feed(chunk)
            return
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        self._last = chunk
        if b'"text":' in chunk:
            self._count(chunk, b'"text":')
        if b"}" in chunk or b"]" in chunk:
            self._read_tail()

    def error_event(self, message: str, code: str) -> bytes:
        if not self._is_array:
            return super().error_event(message, code)
        return b",\n" + msgspec.json.encode(_google_error(message, code)) + b"]"

    def _read_tail(self) -> None:
        if self._tail.rstrip().endswith(b"]") and b'"finishReason"' in self._tail:
            self.is_finished = True
        at = self._tail.rfind(b'"usageMetadata"')
        start = self._tail.find(b"{", at) if at >= 0 else -1
        end = _end_of_object(self._tail, start) if start >= 0 else -1
        if end < 0:
            return
        try:
            self.usage = of_google(_METADATA.decode(self._tail[start:end]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return


def sse_reader(provider: Provider, dialect: Dialect) -> StreamReader:
    """The reader of a dialect's text streams."""
    if dialect == "google":
        return GoogleArrayReader()
    return StreamReader(dialect, needs_done=provider.ends_with_done or dialect != "openai")


def _usage_of_event(event: _Event) -> Usage | None:
    if event.usage is not None:
        return of_fields(event.usage)
    if event.usageMetadata is not None:
        return of_google(event.usageMetadata)
    if event.invocation is not None:
        return of_metrics(event.invocation)
    if event.meta is not None:
        return of_fields(event.meta)
    for nested in (event.response, event.message, event.delta, event.x_groq):
        if isinstance(nested, Nested):
            fields = nested.usage or nested.meta
            if fields is not None:
                return of_fields(fields)
    return None


def _merged(started: Usage, delta: Usage) -> Usage:
    """Anthropic tells the prompt at the start and counts the answer up; some repeat all."""
    has_prompt = delta.prompt_tokens > 0
    return Usage(
        prompt_tokens=delta.prompt_tokens if has_prompt else started.prompt_tokens,
        completion_tokens=delta.completion_tokens,
        cached_tokens=delta.cached_tokens if has_prompt else started.cached_tokens,
        reasoning_tokens=delta.reasoning_tokens,
    )


def _end_of_string(text: bytes, start: int) -> int:
    """Where the string that begins at `start` ends; the end of `text` when it does not."""
    end = text.find(b'"', start)
    while end > 0 and text[end - 1] == 0x5C:  # an escaped quote, or a backslash: near enough
        end = text.find(b'"', end + 1)
    return end if end >= 0 else len(text)


def _end_of_object(text: bytes, start: int) -> int:
    """The end of the object that begins at `start` and has no braces in its strings; -1 if open."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == 0x7B:
            depth += 1
        elif text[at] == 0x7D:
            depth -= 1
            if depth == 0:
                return at + 1
    return -1


def _error_event(dialect: Dialect, message: str, code: str, num_events: int) -> bytes:
    body: object
    event = b""
    match dialect:
        case "anthropic":
            event = b"event: error\n"
            body = {"type": "error", "error": {"type": "api_error", "message": message}}
        case "openai-responses":
            event = b"event: error\n"
            body = {
                "type": "error",
                "code": code,
                "message": message,
                "param": None,
                "sequence_number": num_events,
            }
        case "google":
            body = _google_error(message, code)
        case "cohere":
            event = b"event: message-end\n"
            delta = {"finish_reason": "ERROR", "error": message}
            body = {"type": "message-end", "delta": delta}
        case "replicate":
            event = b"event: error\n"
            body = {"detail": message}
        case _:
            error = {"message": message, "type": "provider_error", "param": None, "code": code}
            body = {"error": error}
    return event + b"data: " + msgspec.json.encode(body) + b"\n\n"


def _google_error(message: str, code: str) -> JsonObject:
    details: list[JsonValue] = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code}
    ]
    return {"error": {"code": 502, "message": message, "status": "UNAVAILABLE", "details": details}}
