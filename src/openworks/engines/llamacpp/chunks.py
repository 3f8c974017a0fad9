"""llama.cpp's streamed JSON as our chunks, with running token counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from openworks.core.errors import (
    AppError,
    InternalError,
    InvalidRequestError,
)
from openworks.core.ids import NewId
from openworks.engines.stops import StopCutter
from openworks.engines.text_requests import too_long
from openworks.ports.calls import Usage
from openworks.ports.text import FinishReason, TextChunk, TokenLogprob, ToolCallDelta

Json = Mapping[str, Any]

_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large to process.*batch size: (\d+)")


class ChunkReader:
    """Reads the events of one request, whose `n` answers arrive interleaved.

    llama.cpp counts every answer by itself; the sums are made here. (Its own total for `n` answers
    is that of one of them.)
    """

    def __init__(
        self,
        *,
        new_id: NewId,
        top_logprobs: int | None,
        param: str = "messages",
        stops: Sequence[str] = (),
        one_call: bool = False,
        must_call: bool = False,
    ) -> None:
        """Read the events of one request.

        Args:
            new_id: Makes the ids of tool calls.
            top_logprobs: As `Sampling.top_logprobs`.
            param: The field that holds the prompt.
            stops: Texts that end an answer; with any, the request must have one answer.
            one_call: A second tool call ends an answer before it; as with `stops`.
            must_call: Text instead of a tool call ends an answer before it; as with `stops`.
        """
        self.is_over = False
        """Whether the answer has ended before llama.cpp ends it."""
        self._stops = StopCutter(stops) if stops else None
        self._one_call = one_call
        self._must_call = must_call
        self.talked = False
        """Whether there was text where a tool call must be."""
        self._param = param
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
            raise error_of(error, self._param)
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
        finish_reason = choice["finish_reason"]
        calls = delta.get("tool_calls") or ()
        if self._one_call and any(call["index"] for call in calls):
            calls = [call for call in calls if not call["index"]]
            finish_reason, self.is_over = "stop", True
        tool_calls = tuple(self._tool_call(call) for call in calls)
        if tool_calls:
            self._called_tools.add(self._index)
        content, reasoning = delta.get("content") or "", delta.get("reasoning_content") or ""
        logprobs = self._logprobs(choice.get("logprobs"))
        if self._must_call:
            ends_without = finish_reason == "stop" or bool(content.strip())
            if ends_without and self._index not in self._called_tools:
                self.talked = self.is_over = True
                return None
            content = ""  # line breaks around calls
        if self._stops is not None:
            is_last = finish_reason is not None
            content, logprobs = self._stops.feed(content, logprobs, is_last=is_last)
            if self._stops.found:
                finish_reason, self.is_over = "stop", True
        if finish_reason == "stop" and self._index in self._called_tools:
            finish_reason = "tool_calls"
        if not (content or reasoning or tool_calls or finish_reason):
            return None
        return TextChunk(
            index=self._index,
            content=content,
            reasoning=reasoning,
            tool_calls=tool_calls,
            logprobs=logprobs,
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


def error_of(error: Json, param: str = "messages") -> AppError:
    """Translate an error object of llama.cpp's about a request whose prompt is `param`."""
    message = str(error.get("message", "llama.cpp gave no reason")).rstrip(".")
    if (sizes := _TOO_LARGE.search(message)) is not None:  # how it says it of embeddings
        return too_long(param, int(sizes[1]), int(sizes[2]))
    match error.get("type"):
        case "exceed_context_size_error":
            return too_long(param, error["n_prompt_tokens"], error["n_ctx"])
        case "invalid_request_error":
            return InvalidRequestError(f"The engine refused the request: {message}.")
        case _:
            return InternalError(f"The engine failed: {message}.")
