"""The loop of an agent: ask the model, call the tools of this server, ask again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from openworks.ports.calls import Call
from openworks.ports.text import ChatRequest, TextChunk
from openworks.services.agent.turn import Answer, Listener, ToolCall, Turn, TurnMaker

IncompleteReason = Literal["max_tokens", "max_prompt_tokens", "content_filter"]


@dataclass(frozen=True, slots=True)
class Completed:
    """The model has answered."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The model was cut off."""

    reason: IncompleteReason


@dataclass(frozen=True, slots=True)
class NeedsOutputs:
    """The model wants tools to be called that only the caller has."""

    calls: tuple[ToolCall, ...]


End: TypeAlias = Completed | Incomplete | NeedsOutputs


class Model(Protocol):
    """Where turns are made: the pipeline that every call passes."""

    def chat(self, call: Call, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        """Continue a conversation."""
        ...


class Tool(Protocol):
    """A tool that this server has."""

    async def run(self, call: Call, arguments: str) -> str:
        """Return what the model is told. A failure that it may mend is told as well.

        Args:
            call: Of the turn that asked for it: whose it is, and for the ledger.
            arguments: As the model wrote them.
        """
        ...


class AgentWork(Listener, Protocol):
    """One run or response: what it consists of, and where it is kept.

    What a method is given is stored when it returns, so that the loop can begin anew at any time.
    """

    @property
    def call(self) -> Call:
        """For whom tools are called."""
        ...

    async def open_calls(self) -> Sequence[ToolCall]:
        """Return the calls of the last turn that have no output yet, in their order."""
        ...

    async def next_turn(self) -> Turn | Incomplete:
        """Return what the model is to be asked, or why nothing more may be asked."""
        ...

    async def end_turn(self, turn: Turn, answer: Answer, end: End | None) -> None:
        """Keep what the model has said, together with the end if nothing follows."""
        ...

    async def end_tool(self, call: ToolCall, output: str) -> None:
        """Keep what a tool of this server has returned."""
        ...

    async def end(self, end: End) -> None:
        """Keep an end that no turn has led to."""
        ...


class Agent:
    """Brings work to its end, from wherever it stands."""

    def __init__(self, model: Model, tools: Mapping[str, Tool]) -> None:
        """Remember who answers.

        Args:
            model: Makes the turns.
            tools: Those of this server, by the names under which models know them.
        """
        self._model = model
        self._tools = tools

    async def run(self, work: AgentWork) -> None:
        """Make turns until the model has answered, is cut off or needs its caller.

        Raises:
            AppError: As `ChatModel.stream`; what was stored before stays.
        """
        while True:
            waiting = await self._call_tools(work)
            if waiting:
                await work.end(NeedsOutputs(waiting))
                return
            turn = await work.next_turn()
            if isinstance(turn, Incomplete):
                await work.end(turn)
                return
            answer = await self._ask(turn, work)
            end = self._end_of(answer)
            await work.end_turn(turn, answer, end)
            if end is not None:
                return

    async def _call_tools(self, work: AgentWork) -> tuple[ToolCall, ...]:
        """Answer the calls of this server's tools; return those of the caller's."""
        waiting: list[ToolCall] = []
        for call in await work.open_calls():
            tool = self._tools.get(call.name)
            if tool is None:
                waiting.append(call)
            else:
                await work.end_tool(call, await tool.run(work.call, call.arguments))
        return tuple(waiting)

    async def _ask(self, turn: Turn, work: AgentWork) -> Answer:
        maker = TurnMaker(told=turn.told, listener=work)
        async with aclosing(self._model.chat(turn.call, turn.request)) as chunks:
            async for chunk in chunks:
                await maker.add(chunk)
        return maker.answer()

    def _end_of(self, answer: Answer) -> End | None:
        match answer.finish_reason:
            case "length":
                return Incomplete("max_tokens")
            case "content_filter":
                return Incomplete("content_filter")
        calls = answer.said.tool_calls
        if not calls:
            return Completed()
        if any(call.name in self._tools for call in calls):
            return None
        return NeedsOutputs(calls)
