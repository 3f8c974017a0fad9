"""A listener that writes down what it hears, for the tests of turns and of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from openworks.ports.text import TokenLogprob
from openworks.services.agent.turn import Said, ToolCall


@dataclass(slots=True)
class Notes:
    """What was said before an attempt broke off, and what was heard since, together."""

    said: Said = Said()
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    text: str = field(init=False)
    reasoning: str = field(init=False)
    calls: list[ToolCall] = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.said.text
        self.reasoning = self.said.reasoning
        self.calls = list(self.said.tool_calls)

    @property
    def all(self) -> Said:
        return Said(text=self.text, reasoning=self.reasoning, tool_calls=tuple(self.calls))

    async def on_text(self, piece: str, logprobs: Sequence[TokenLogprob]) -> None:
        self.pieces.append(piece)
        self.logprobs += logprobs
        self.text += piece

    async def on_reasoning(self, piece: str) -> None:
        self.pieces.append(piece)
        self.reasoning += piece

    async def on_tool_call(self, index: int, call: ToolCall) -> None:
        assert call.arguments == ""
        assert index == len(self.calls)
        self.calls.append(call)

    async def on_arguments(self, index: int, piece: str) -> None:
        self.pieces.append(piece)
        call = self.calls[index]
        self.calls[index] = ToolCall(id=call.id, name=call.name, arguments=call.arguments + piece)
