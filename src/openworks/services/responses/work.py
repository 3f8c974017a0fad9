"""One response while a model works on it, from wherever an earlier attempt has left it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol, assert_never, cast

from openworks.core.clock import Clock
from openworks.core.errors import AppError
from openworks.core.ids import NewId
from openworks.core.json import JsonObject
from openworks.ports.calls import Call
from openworks.ports.catalog import Deployment, Task
from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.jobs import Claim
from openworks.ports.responses import Response, ResponseStore
from openworks.ports.text import ChatRequest, TokenLogprob
from openworks.services.agent.loop import (
    Agent,
    Completed,
    End,
    Incomplete,
    Model,
    NeedsOutputs,
)
from openworks.services.agent.turn import Answer, ToolCall, Turn
from openworks.services.responses.bodies import error_event, error_of, response_event
from openworks.services.responses.chat import chat_request, without_oldest
from openworks.services.responses.context import ItemReader
from openworks.services.responses.stream import Event, EventWriter, OutputStream

_ROOM: Final = 4
"""The part of a context that is left for an answer of any length: one in so many."""


class Models(Model, Protocol):
    """Where models are asked, and what is known of them."""

    async def resolve(self, call: Call, task: Task) -> Deployment:
        """Return what would answer a call."""
        ...

    async def count_tokens(self, call: Call, request: ChatRequest) -> int:
        """Count a conversation's tokens."""
        ...


class ResponseWork:
    """An `AgentWork`: one turn, as this server has no tools of its own for responses."""

    def __init__(
        self,
        response: Response,
        request: ChatRequest,
        call: Call,
        output: OutputStream,
        keeper: Keeper,
        *,
        is_announced: bool,
    ) -> None:
        """Take what the turn needs.

        Args:
            response: In progress.
            request: What the model is asked.
            call: For whom.
            output: Tells of the items; it may know what an earlier attempt has told.
            keeper: Keeps the end.
            is_announced: Whether listeners know of the response.
        """
        self.response = response
        self.is_announced = is_announced
        self._request = request
        self._call = call
        self._output = output
        self._keeper = keeper

    @property
    def call(self) -> Call:
        return self._call

    async def open_calls(self) -> Sequence[ToolCall]:
        return ()

    async def next_turn(self) -> Turn:
        return Turn(call=self._call, request=self._request, told=self._output.told)

    async def end_turn(self, turn: Turn, answer: Answer, end: End | None) -> None:
        assert end is not None, "calls that this server answers itself"
        await self._announce()
        items, events = self._output.end(answer, is_cut=isinstance(end, Incomplete))
        self.response = replace(self.response, output=tuple(items), usage=answer.usage)
        await self._end(end, events)

    async def end_tool(self, call: ToolCall, output: str) -> None:
        raise AssertionError(f"{call.name} is no tool of this server.")

    async def end(self, end: End) -> None:
        await self._end(end, [])

    async def on_text(self, piece: str, logprobs: Sequence[TokenLogprob]) -> None:
        await self._announce()
        await self._output.text(piece, logprobs)

    async def on_reasoning(self, piece: str) -> None:
        await self._announce()
        await self._output.reasoning(piece)

    async def on_tool_call(self, index: int, call: ToolCall) -> None:
        await self._announce()
        await self._output.call(call)

    async def on_arguments(self, index: int, piece: str) -> None:
        await self._output.arguments(index, piece)

    async def fail(self, error: AppError) -> None:
        """Keep that it came to nothing."""
        self.response = await self._keeper.fail(self.response, error)

    async def _announce(self) -> None:
        """Tell of the response when the model has begun: until then, an error has a status."""
        if not self.is_announced:
            self.is_announced = True
            for name in ("response.created", "response.in_progress"):
                await self._keeper.writer.put(*response_event(name, self.response))

    async def _end(self, end: End, events: Sequence[Event]) -> None:
        match end:
            case Completed() | NeedsOutputs():
                self.response = await self._keeper.complete(self.response, events)
            case Incomplete(reason=reason):
                told = "content_filter" if reason == "content_filter" else "max_output_tokens"
                self.response = await self._keeper.cut_off(self.response, events, reason=told)
            case _:
                assert_never(end)


class Keeper:
    """Keeps and tells how a response ends."""

    def __init__(
        self,
        store: ResponseStore | None,
        claim: Claim,
        writer: EventWriter,
        *,
        keeps_events: bool,
        clock: Clock,
    ) -> None:
        """Remember where.

        Args:
            store: None for a response that is not to be stored.
            claim: The right to write.
            writer: Tells listeners.
            keeps_events: Whether what they are told is stored.
            clock: Says when.
        """
        self.writer = writer
        self._store = store
        self._claim = claim
        self._keeps_events = keeps_events
        self._clock = clock

    async def begin(self, response: Response) -> Response:
        """Let a queued response be in progress."""
        begun = replace(response, status="in_progress")
        new = await self.writer.number([response_event("response.in_progress", begun)])
        if self._store is not None:
            await self._store.begin(self._claim, events=self._kept(new))
        self.writer.show(new)
        return begun

    async def complete(self, response: Response, events: Sequence[Event]) -> Response:
        """End with an answer."""
        now_s = self._clock.now_s()
        ended = replace(response, status="completed", completed_at_s=now_s)
        return await self._end(ended, [*events, response_event("response.completed", ended)])

    async def cut_off(
        self, response: Response, events: Sequence[Event], *, reason: str
    ) -> Response:
        """End with a part of an answer."""
        ended = replace(response, status="incomplete", incomplete_reason=reason)
        return await self._end(ended, [*events, response_event("response.incomplete", ended)])

    async def fail(self, response: Response, error: AppError) -> Response:
        """End without an answer, for a reason of ours or of the model's."""
        ended = replace(response, status="failed", error=error_of(error))
        return await self._end(ended, [response_event("response.failed", ended)])

    async def cancel(self, response: Response) -> Response:
        """End because nobody wants the answer any more; OpenAI has no event of that name."""
        event = error_event("response_cancelled", f"The response {response.id!r} was cancelled.")
        return await self._end(replace(response, status="cancelled"), [event])

    async def drop(self) -> None:
        """Forget a response that its caller never heard of."""
        if self._store is not None:
            await self._store.drop(self._claim)

    async def _end(self, ended: Response, events: Sequence[Event]) -> Response:
        new = await self.writer.number(events, ends=True)
        if self._store is not None:
            await self._store.end(self._claim, ended, events=self._kept(new))
        self.writer.show(new)
        return ended

    def _kept(self, new: NewEvents) -> NewEvents | None:
        return new if self._keeps_events else None


class Responder:
    """Has models answer responses."""

    def __init__(self, models: Models, reader: ItemReader, *, clock: Clock, new_id: NewId) -> None:
        self._models = models
        self._reader = reader
        self._agent = Agent(models, {})
        self._clock = clock
        self._new_id = new_id

    def keeper(
        self,
        store: ResponseStore | None,
        claim: Claim,
        writer: EventWriter,
        *,
        keeps_events: bool = False,
    ) -> Keeper:
        """Return what keeps a response's end; arguments as those of `Keeper`."""
        return Keeper(store, claim, writer, keeps_events=keeps_events, clock=self._clock)

    async def messages(
        self, response: Response, items: Sequence[JsonObject]
    ) -> Sequence[JsonObject]:
        """Return the messages of a chat that says what a response goes on from, and its input.

        Raises:
            InvalidRequestError: A file that an item names cannot be shown to a model.
        """
        instructions = cast("str | None", response.settings.get("instructions"))
        return await self._reader.messages(response.account_id, instructions, items)

    async def request(
        self, response: Response, messages: Sequence[JsonObject], call: Call
    ) -> ChatRequest:
        """Return what the model is to be asked, cut to its context if the caller wants that."""
        request = chat_request(response.settings, messages, response.seed)
        if response.settings.get("truncation") != "auto":
            return request
        deployment = await self._models.resolve(call, "text-generation")
        context = deployment.context_tokens
        if context is None:
            return request
        room = min(request.sampling.max_tokens or context // _ROOM, context // 2)

        async def count(asked: ChatRequest) -> int:
            return await self._models.count_tokens(call, asked)

        return await without_oldest(request, most=context - room, count=count)

    def work(
        self,
        response: Response,
        request: ChatRequest,
        call: Call,
        keeper: Keeper,
        *,
        told: Iterable[StreamEvent] = (),
        is_announced: bool = False,
    ) -> ResponseWork:
        """Return the work on a response; `told` is what an earlier attempt has told of it."""
        include = cast("list[str]", response.settings.get("include") or [])
        output = OutputStream(
            keeper.writer,
            self._new_id,
            packs_reasoning="reasoning.encrypted_content" in include,
        )
        output.replay(told)
        return ResponseWork(response, request, call, output, keeper, is_announced=is_announced)

    async def run(self, work: ResponseWork) -> None:
        """Ask the model, and keep what comes of it.

        Raises:
            AppError: As `ChatModel.stream`.
        """
        await self._agent.run(work)
