"""llama.cpp's streamed JSON as our chunks, with running token counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from openworks.core.errors import (
    AppError,
    ContextLengthExceededError,
    InternalError,
    InvalidRequestError,
)
from openworks.core.ids import NewId
from openworks.ports.calls import Usage
from openworks.ports.text import FinishReason, TextChunk, TokenLogprob, ToolCallDelta

Json = Mapping[str, Any]


class ChunkReader:
    """Reads the events of one request, whose `n` answers arrive interleaved.

    llama.cpp counts every answer by itself; the sums are made here. (Its own total for `n` answers
    is that of one of them.)
    """

    def __init__(self, *, new_id: NewId, top_logprobs: int | None) -> None:
        self._new_id = new_id
        self._top_logprobs = top_logprobs
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._completion_tokens: dict[int, int] = {}
        self._reasoning_tokens = 0
        self._called_tools: set[int] = set()
        self._index = 0

    def read(self, event: Json) -> Iterator[TextChunk]:
        """Yield what one event says.

        Raises:
            AppError: The event is an error.
        """
        if (error := event.get("error")) is not None:
            raise error_of(error)
        for choice in event["choices"]:
            self._index = choice["index"]
            before = self._completion_tokens.get(self._index, 0)
            self._count(event)
            if (choice.get("delta") or {}).get("reasoning_content"):
                self._reasoning_tokens += self._completion_tokens.get(self._index, 0) - before
            if (chunk := self._chunk(choice)) is not None:
                yield chunk
        if not event["choices"]:
            self._count(event)
        if "usage" in event or "prompt_progress" in event:
            yield TextChunk(index=self._index, usage=self._usage())

    def _count(self, event: Json) -> None:
        if (progress := event.get("prompt_progress")) is not None:
            self._prompt_tokens = progress["total"]
            self._cached_tokens = progress["cache"]
        if (timings := event.get("timings")) is not None:
            self._completion_tokens[self._index] = timings["predicted_n"]
        if (usage := event.get("usage")) is not None:
            self._prompt_tokens = usage["prompt_tokens"]
            self._completion_tokens[self._index] = usage["completion_tokens"]

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=sum(self._completion_tokens.values()),
            cached_tokens=self._cached_tokens,
            reasoning_tokens=self._reasoning_tokens,
        )

    def _chunk(self, choice: Json) -> TextChunk | None:
        delta = choice.get("delta") or {"content": choice.get("text")}
        tool_calls = tuple(self._tool_call(call) for call in delta.get("tool_calls") or ())
        if tool_calls:
            self._called_tools.add(self._index)
        finish_reason = choice["finish_reason"]
        if finish_reason == "stop" and self._index in self._called_tools:
            finish_reason = "tool_calls"
        content, reasoning = delta.get("content") or "", delta.get("reasoning_content") or ""
        if not (content or reasoning or tool_calls or finish_reason):
            return None
        return TextChunk(
            index=self._index,
            content=content,
            reasoning=reasoning,
            tool_calls=tool_calls,
            logprobs=self._logprobs(choice.get("logprobs")),
            finish_reason=cast("FinishReason | None", finish_reason),
            usage=self._usage(),
        )

    def _tool_call(self, call: Json) -> ToolCallDelta:
        function = call.get("function") or {}
        name = function.get("name")
        return ToolCallDelta(
            index=call["index"],
            id=self._new_id("call_") if name else None,
            name=name or None,
            arguments=function.get("arguments") or "",
        )

    def _logprobs(self, logprobs: Json | None) -> tuple[TokenLogprob, ...]:
        if self._top_logprobs is None or logprobs is None:
            return ()
        return tuple(_token(item, self._top_logprobs) for item in logprobs["content"])


def _token(item: Json, top: int) -> TokenLogprob:
    return TokenLogprob(
        token=item["token"],
        bytes=tuple(item["bytes"]),
        logprob=item["logprob"],
        top=tuple(_token(rival, 0) for rival in item.get("top_logprobs", ())[:top]),
    )


def error_of(error: Json) -> AppError:
    """Translate an error object of llama.cpp's."""
    message = str(error.get("message", "llama.cpp gave no reason")).rstrip(".")
    match error.get("type"):
        case "exceed_context_size_error":
            prompt_tokens, context_tokens = error["n_prompt_tokens"], error["n_ctx"]
            return ContextLengthExceededError(
                f"This model's maximum context length is {context_tokens} tokens. However, your "
                f"messages resulted in {prompt_tokens} tokens. Please reduce the length of the "
                "messages.",
                param="messages",
            )
        case "invalid_request_error":
            return InvalidRequestError(f"The engine refused the request: {message}.")
        case _:
            return InternalError(f"The engine failed: {message}.")
