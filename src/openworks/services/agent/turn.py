"""One turn of a model: what it is asked, what it says piece by piece, and what that adds up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from openworks.ports.calls import Call, Usage
from openworks.ports.text import ChatRequest, FinishReason, TextChunk, TokenLogprob, ToolCallDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function that the model wants to be called."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model has said in one turn."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One call of the model."""

    call: Call
    request: ChatRequest
    """Asks for one answer."""
    told: Said = Said()
    """What listeners have heard of this turn from an attempt that broke off.

    The turn is made anew, and they hear what goes beyond it. With the seed of the broken attempt
    the two are the same; where they are not, the answer at the end counts.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A turn that has ended."""

    said: Said
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()


class Listener(Protocol):
    """Hears a turn while it is made, each piece once."""

    async def on_text(self, piece: str, logprobs: Sequence[TokenLogprob]) -> None:
        """Hear more of the answer's text."""
        ...

    async def on_reasoning(self, piece: str) -> None:
        """Hear more of what the model thinks before it answers."""
        ...

    async def on_tool_call(self, index: int, call: ToolCall) -> None:
        """Hear that a call begins; its `arguments` are empty."""
        ...

    async def on_arguments(self, index: int, piece: str) -> None:
        """Hear more of a call's arguments."""
        ...


@dataclass(slots=True)
class _OpenCall:
    id: str
    name: str
    arguments: str = ""

    @property
    def closed(self) -> ToolCall:
        return ToolCall(id=self.id, name=self.name, arguments=self.arguments)


@dataclass(slots=True)
class TurnMaker:
    """Adds the chunks of a turn up, and tells a listener what it has not heard yet."""

    told: Said
    listener: Listener
    text: str = ""
    reasoning: str = ""
    usage: Usage = Usage()
    finish_reason: FinishReason = "stop"
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, _OpenCall] = field(default_factory=dict)

    async def add(self, chunk: TextChunk) -> None:
        """Take the next chunk."""
        if chunk.reasoning:
            fresh = _fresh(chunk.reasoning, behind=len(self.reasoning), heard=self.told.reasoning)
            self.reasoning += chunk.reasoning
            if fresh:
                await self.listener.on_reasoning(fresh)
        self.logprobs.extend(chunk.logprobs)
        if chunk.content:
            fresh = _fresh(chunk.content, behind=len(self.text), heard=self.told.text)
            self.text += chunk.content
            if fresh:
                await self.listener.on_text(fresh, chunk.logprobs)
        for delta in chunk.tool_calls:
            await self._add_call(delta)
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason

    def answer(self) -> Answer:
        """Return what it came to."""
        return Answer(
            said=Said(
                text=self.text,
                reasoning=self.reasoning,
                tool_calls=tuple(call.closed for _, call in sorted(self.calls.items())),
            ),
            finish_reason=self.finish_reason,
            usage=self.usage,
            logprobs=tuple(self.logprobs),
        )

    async def _add_call(self, delta: ToolCallDelta) -> None:
        heard = dict(enumerate(self.told.tool_calls)).get(delta.index)
        call = self.calls.get(delta.index)
        if call is None:
            # A call that was announced keeps its id: an answer to it may be under way.
            call = _OpenCall(heard.id if heard else delta.id or "", delta.name or "")
            self.calls[delta.index] = call
            if heard is None:
                await self.listener.on_tool_call(delta.index, call.closed)
        before = len(call.arguments)
        call.arguments += delta.arguments
        fresh = _fresh(delta.arguments, behind=before, heard=heard.arguments if heard else "")
        if fresh:
            await self.listener.on_arguments(delta.index, fresh)


def _fresh(piece: str, *, behind: int, heard: str) -> str:
    """Return the part of a piece, which begins `behind` characters in, that was not heard yet."""
    return piece[max(0, len(heard) - behind) :]
