"""This server's chat stream as Cloudflare's `run` writes it: `data: {"response": "tok"}`."""

from __future__ import annotations

from typing import Final

import orjson

from openworks.core.errors import ProviderError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.read import (
    MalformedAnswer,
    a_list,
    a_text,
    an_object,
    loads,
    unreadable,
)
from openworks.gateway.compat.sse import EventData
from openworks.ports.calls import Usage
from openworks.wire import sse

_RESPONSE: Final = b'data: {"response":'
_END: Final = b"}\n\n"


def run_call(call: JsonObject) -> JsonObject:
    """Return a call as Cloudflare writes it, with its arguments parsed."""
    function = an_object(call.get("function"))
    written = a_text(function.get("arguments"))
    try:
        arguments: JsonValue = orjson.loads(written) if written else {}
    except orjson.JSONDecodeError:
        arguments = written  # cut off by `max_tokens`: as far as it came
    return {"name": function.get("name"), "arguments": arguments}


class RunStream:
    """OpenAI's chunks, of chat or plain completions, as lines of `response`.

    Calls come whole, in one line, when they are complete; usage in the line before `[DONE]`.
    """

    __slots__ = ("_calls", "_events", "_is_over", "_usage_body", "failure", "usage")

    def __init__(self) -> None:
        self._events = EventData()
        self._calls: dict[int, list[str]] = {}  # index → name, then pieces of arguments
        self._usage_body: JsonValue = None
        self._is_over = False
        self.failure: ProviderError | None = None
        self.usage = Usage()

    def feed(self, chunk: bytes) -> bytes:
        if self._is_over:
            return b""
        out: list[bytes] = []
        try:
            for data in self._events.feed(chunk):
                out.append(self._done() if data == b"[DONE]" else self._chunk(loads(data)))
                if self._is_over:
                    break
        except MalformedAnswer as error:
            out.append(self._fail(unreadable("workers-ai", error)))
        return b"".join(out)

    def end(self) -> bytes:
        return self.broken("The stream ended before its last event.", "stream_incomplete")

    def broken(self, message: str, code: str) -> bytes:
        return self._fail(ProviderError(message, code=code))

    def _fail(self, error: ProviderError) -> bytes:
        if self._is_over:
            return b""
        self._is_over = True
        self.failure = error
        said: JsonObject = {"code": error.code, "message": error.message}
        return sse.event({"success": False, "errors": [said]})

    def _chunk(self, chunk: JsonObject) -> bytes:
        if "error" in chunk:
            error = an_object(chunk["error"])
            code = error.get("code")
            return self._fail(
                ProviderError(
                    a_text(error.get("message")), code=None if code is None else str(code)
                )
            )
        if chunk.get("usage") is not None:
            self._count(an_object(chunk["usage"]))
        choices = a_list(chunk.get("choices"))
        return self._choice(an_object(choices[0])) if choices else b""

    def _choice(self, choice: JsonObject) -> bytes:
        if "text" in choice:
            return self._words(choice["text"])
        delta = an_object(choice.get("delta"))
        for value in a_list(delta.get("tool_calls") or []):
            self._add_call(an_object(value))
        lines = self._words(delta.get("content"))
        if delta.get("reasoning_content"):
            lines += sse.event({"response": "", "reasoning_content": delta["reasoning_content"]})
        if choice.get("finish_reason") is not None and self._calls:
            calls: list[JsonValue] = [
                run_call({"function": {"name": name, "arguments": "".join(pieces)}})
                for _, (name, *pieces) in sorted(self._calls.items())
            ]
            lines += sse.event({"response": "", "tool_calls": calls})
        return lines

    def _words(self, text: JsonValue) -> bytes:
        return _RESPONSE + orjson.dumps(a_text(text)) + _END if text else b""

    def _add_call(self, call: JsonObject) -> None:
        index = call.get("index")
        function = an_object(call.get("function"))
        if not isinstance(index, int):
            raise MalformedAnswer("a call has no index")
        known = self._calls.setdefault(index, [""])
        name = function.get("name")
        if name is not None:
            known[0] = a_text(name)
        known.append(a_text(function.get("arguments") or ""))

    def _count(self, said: JsonObject) -> None:
        self._usage_body = said
        prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens")
        details = said.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else 0
        self.usage = Usage(
            prompt_tokens=prompt if isinstance(prompt, int) else 0,
            completion_tokens=completion if isinstance(completion, int) else 0,
            cached_tokens=cached if isinstance(cached, int) else 0,
        )

    def _done(self) -> bytes:
        self._is_over = True
        if self._usage_body is None:
            return sse.DONE
        return sse.event({"response": "", "usage": self._usage_body}) + sse.DONE
