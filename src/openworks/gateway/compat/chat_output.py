"""OpenAI's answers as translators write them: whole completions, and chunks with a short way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import orjson

from openworks.core.errors import ProviderError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.read import MalformedAnswer, unreadable
from openworks.ports.calls import Usage
from openworks.wire import sse
from openworks.wire.openai.errors import error_body

_STOPS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",  # `tool_calls` when there are calls
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_END: Final = b',"logprobs":null,"finish_reason":null}]}\n\n'
_CONTENT: Final = b'{"content":'
_REASONING: Final = b'{"reasoning_content":'


def finish_reason(native: str, *, has_calls: bool) -> str:
    """Return OpenAI's reason: `tool_calls` if and only if calls were given out whole.

    Raises:
        MalformedAnswer: The provider's reason says that its model's output could not be read.
    """
    if native.startswith("malformed_"):
        raise MalformedAnswer(f"its model's output was broken ({native})")
    reason = _STOPS.get(native, "stop")
    return "tool_calls" if reason == "stop" and has_calls else reason


def usage_body(usage: Usage, cache_write_tokens: int = 0) -> JsonObject:
    """Return OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


@dataclass(slots=True, kw_only=True)
class WholeAnswer:
    """The parts of one completion, gathered in the order in which they were said."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    thinking_blocks: list[JsonValue] = field(default_factory=list)
    calls: list[JsonValue] = field(default_factory=list)
    refusal: str | None = None

    def add_call(self, call_id: str, name: str, arguments: JsonObject) -> None:
        """Take a call."""
        written = orjson.dumps(arguments).decode()
        self.calls.append(
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": written}}
        )

    def add_thinking(self, text: str, signature: str) -> None:
        """Take a block of thinking; its signature lets the caller send it back."""
        if text:
            self.reasoning.append(text)
        if signature:
            self.thinking_blocks.append(thinking_block(text, signature))

    def body(
        self, *, answer_id: str, created: int, model: str, native_stop: str, usage: JsonObject
    ) -> bytes:
        """Return the completion."""
        text = "".join(self.texts)
        message: JsonObject = {
            "role": "assistant",
            "content": text if text or not self.calls else None,
            "refusal": self.refusal,
        }
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.thinking_blocks:
            message["thinking_blocks"] = self.thinking_blocks
        if self.calls:
            message["tool_calls"] = self.calls
        choice: JsonObject = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason(native_stop, has_calls=bool(self.calls)),
        }
        return orjson.dumps(
            {
                "id": answer_id,
                "object": "chat.completion",
                "created": created,
                "model": model,
                "choices": [choice],
                "usage": usage,
            }
        )


def thinking_block(text: str, signature: str) -> JsonObject:
    """Return a block of `thinking_blocks`, in Anthropic's words."""
    return {"type": "thinking", "thinking": text, "signature": signature}


class ChatStream:
    """What translated streams share: chunks are written here, a dialect reads its own events."""

    __slots__ = (
        "_calls", "_common", "_created", "_has_arguments", "_head", "_include_usage", "_is_over",
        "_provider", "cache_write_tokens", "failure", "usage",
    )  # fmt: skip

    def __init__(self, *, provider: str, created: int, include_usage: bool) -> None:
        self.usage = Usage()
        self.cache_write_tokens = 0
        self.failure: ProviderError | None = None
        self._provider = provider
        self._created = created
        self._include_usage = include_usage
        self._common: JsonObject = {}
        self._head = b""  # until the provider has begun
        self._calls = 0
        self._has_arguments = False
        self._is_over = False

    def feed(self, chunk: bytes) -> bytes:
        if self._is_over:
            return b""
        out: list[bytes] = []
        try:
            for events in self._read(chunk):
                out.append(events)
                if self._is_over:
                    break
        except MalformedAnswer as error:
            out.append(self._fail(unreadable(self._provider, error)))
        except ProviderError as error:
            out.append(self._fail(error))
        return b"".join(out)

    def end(self) -> bytes:
        if self._is_over:
            return b""
        return self.broken(
            f"The stream of {self._provider} ended before its last event.", "stream_incomplete"
        )

    def broken(self, message: str, code: str) -> bytes:
        return self._fail(ProviderError(message, code=code))

    def _read(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what each of the provider's events becomes.

        Raises:
            MalformedAnswer: An event is not what the provider documents.
            ProviderError: The provider says that it failed.
        """
        raise NotImplementedError

    def _fail(self, error: ProviderError) -> bytes:
        if self._is_over:
            return b""
        self._is_over = True
        self.failure = error
        return sse.event(error_body(error))

    def _start(self, answer_id: str, model: str) -> bytes:
        self._common = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": model,
        }
        if self._include_usage:
            self._common["usage"] = None
        common = orjson.dumps(self._common)[:-1]
        self._head = b"data: " + common + b',"choices":[{"index":0,"delta":'
        return self._delta({"role": "assistant", "content": ""})

    def _delta(self, delta: JsonObject) -> bytes:
        return self._begun() + orjson.dumps(delta) + _END

    def _text(self, text: str) -> bytes:
        return self._begun() + _CONTENT + orjson.dumps(text) + b"}" + _END if text else b""

    def _reasoning(self, text: str) -> bytes:
        return self._begun() + _REASONING + orjson.dumps(text) + b"}" + _END if text else b""

    def _open_call(self, call_id: str, name: str) -> bytes:
        self._calls += 1
        self._has_arguments = False
        call: JsonObject = {
            "index": self._calls - 1,
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        return self._delta({"tool_calls": [call]})

    def _arguments(self, piece: str) -> bytes:
        if not piece:
            return b""
        self._has_arguments = True
        call: JsonObject = {"index": self._calls - 1, "function": {"arguments": piece}}
        return self._delta({"tool_calls": [call]})

    def _close_call(self) -> bytes:
        """Complete the arguments: a call without any came with no bytes, which are no JSON."""
        return b"" if self._has_arguments else self._arguments("{}")

    def _finish(self, native_stop: str) -> bytes:
        """Return the chunk with the reason."""
        reason = finish_reason(native_stop, has_calls=self._calls > 0)
        end = f'{{}},"logprobs":null,"finish_reason":"{reason}"}}]}}\n\n'
        return self._begun() + end.encode()

    def _done(self) -> bytes:
        """Return what follows the last chunk: usage, if asked for, and `[DONE]`."""
        self._is_over = True
        if not self._include_usage:
            return sse.DONE
        usage = usage_body(self.usage, self.cache_write_tokens)
        return sse.event({**self._common, "choices": [], "usage": usage}) + sse.DONE

    def _begun(self) -> bytes:
        if not self._head:
            raise MalformedAnswer("it did not begin with its first event")
        return self._head
