"""The output items of a response while they come into being, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, assert_never, cast

import orjson

from openworks.core.ids import NewId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.events import NewEvents, StreamEvent
from openworks.ports.text import TokenLogprob
from openworks.services.agent.turn import Answer, Said, ToolCall
from openworks.services.responses.packed import pack

NUMBER_FIELD = "sequence_number"
"""The field of an event's body that holds its number."""

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
Event: TypeAlias = tuple[str, JsonObject]
_Kind: TypeAlias = Literal["message", "reasoning", "function_call"]


class EventWriter(Protocol):
    """Numbers events and shows them, as `services.journal.StreamWriter` does."""

    async def put(self, name: str, body: JsonObject) -> None: ...

    async def number(self, events: Sequence[Event], *, ends: bool = False) -> NewEvents: ...

    def show(self, new: NewEvents) -> None: ...


@dataclass(slots=True)
class _Item:
    """An output item that listeners have heard of."""

    kind: _Kind
    id: str
    place: int
    """Its index in the output."""
    text: str = ""
    """What was heard of its text, its reasoning or its arguments."""
    call_id: str = ""
    name: str = ""
    is_packed: bool = False
    """Whether its reasoning is given in the form that callers hand back, too."""
    closed: JsonObject | None = None
    """The item as it has ended."""

    def body(self, status: ItemStatus, logprobs: Sequence[TokenLogprob] = ()) -> JsonObject:
        """Return it as answers show it."""
        common: JsonObject = {"id": self.id, "type": self.kind, "status": status}
        match self.kind:
            case "message":
                part = _text_part(self.text, logprobs)
                return {**common, "role": "assistant", "content": [part]}
            case "reasoning":
                if self.is_packed:
                    common["encrypted_content"] = pack(self.text)
                return {**common, "summary": [], "content": [_reasoning_part(self.text)]}
            case "function_call":
                called: JsonObject = {"call_id": self.call_id, "name": self.name}
                return {**common, **called, "arguments": self.text}
            case _:
                assert_never(self.kind)


@dataclass(slots=True)
class OutputStream:
    """Tells of one turn's items as they grow.

    Reasoning ends when something else begins; text and calls end with the turn.
    """

    writer: EventWriter
    new_id: NewId
    packs_reasoning: bool = False
    items: list[_Item] = field(default_factory=list)

    @property
    def told(self) -> Said:
        """What listeners have heard."""
        return Said(
            text=self._heard("message"),
            reasoning=self._heard("reasoning"),
            tool_calls=tuple(
                ToolCall(id=item.call_id, name=item.name, arguments=item.text)
                for item in self.items
                if item.kind == "function_call"
            ),
        )

    async def text(self, piece: str, logprobs: Sequence[TokenLogprob]) -> None:
        """Tell more of the answer's text."""
        item = await self._opened("message")
        item.text += piece
        told: JsonObject = {"delta": piece, "logprobs": [_told_logprob(each) for each in logprobs]}
        await self.writer.put(*_of_part("response.output_text.delta", item, told))

    async def reasoning(self, piece: str) -> None:
        """Tell more of what the model thinks."""
        item = await self._opened("reasoning")
        item.text += piece
        told: JsonObject = {"delta": piece}
        await self.writer.put(*_of_part("response.reasoning_text.delta", item, told))

    async def call(self, call: ToolCall) -> None:
        """Tell that a call begins."""
        await self._close_reasoning()
        item = self._new("function_call")
        item.call_id, item.name = call.id, call.name
        for event in _begun(item):
            await self.writer.put(*event)

    async def arguments(self, index: int, piece: str) -> None:
        """Tell more of the arguments of the call with this index."""
        item = [each for each in self.items if each.kind == "function_call"][index]
        item.text += piece
        told: JsonObject = {"delta": piece}
        await self.writer.put(*_of_item("response.function_call_arguments.delta", item, told))

    def end(self, answer: Answer, *, is_cut: bool) -> tuple[list[JsonObject], list[Event]]:
        """Return the items as the answer has them, and the events that are still to be told.

        Args:
            answer: What the turn came to; it counts, also where listeners heard something else.
            is_cut: Whether the model was cut off, so that its last item is not complete.
        """
        events: list[Event] = []
        said = answer.said
        if said.reasoning and not self._of("reasoning"):
            events += _begun(self._new("reasoning"))
        if (said.text or not said.tool_calls) and not self._of("message"):
            events += _begun(self._new("message"))
        for message in self._of("message"):
            message.text = said.text
        # Of calls that only a broken attempt made, nothing is known but what was told.
        for item, call in zip(self._of("function_call"), said.tool_calls, strict=False):
            item.call_id, item.name, item.text = call.id, call.name, call.arguments
        for item in self.items:
            if item.closed is None:
                is_last = item is self.items[-1]
                status: ItemStatus = "incomplete" if is_cut and is_last else "completed"
                events += _closed(item, status, answer.logprobs)
        return [item.closed for item in self.items if item.closed is not None], events

    def replay(self, events: Iterable[StreamEvent]) -> None:
        """Take up what an earlier attempt has told."""
        for event in events:
            body = cast("dict[str, JsonValue]", orjson.loads(event.data))
            match event.name:
                case "response.output_item.added":
                    self._take_up(cast("JsonObject", body["item"]))
                case "response.output_item.done":
                    self._at(body).closed = cast("JsonObject", body["item"])
                case (
                    "response.output_text.delta"
                    | "response.reasoning_text.delta"
                    | "response.function_call_arguments.delta"
                ):
                    self._at(body).text += str(body["delta"])

    def _take_up(self, body: JsonObject) -> None:
        item = self._new(cast("_Kind", body["type"]))
        item.id = str(body["id"])
        item.call_id, item.name = str(body.get("call_id", "")), str(body.get("name", ""))

    def _at(self, body: JsonObject) -> _Item:
        place = body["output_index"]
        assert isinstance(place, int)
        return self.items[place]

    def _of(self, kind: _Kind) -> list[_Item]:
        return [item for item in self.items if item.kind == kind]

    def _heard(self, kind: _Kind) -> str:
        return "".join(item.text for item in self._of(kind))

    def _new(self, kind: _Kind) -> _Item:
        prefix = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}[kind]
        item = _Item(
            kind=kind,
            id=self.new_id(prefix),
            place=len(self.items),
            is_packed=self.packs_reasoning,
        )
        self.items.append(item)
        return item

    async def _opened(self, kind: Literal["message", "reasoning"]) -> _Item:
        found = [item for item in self._of(kind) if item.closed is None]
        if found:
            return found[-1]
        await self._close_reasoning()
        item = self._new(kind)
        for event in _begun(item):
            await self.writer.put(*event)
        return item

    async def _close_reasoning(self) -> None:
        for item in self._of("reasoning"):
            if item.closed is None:
                for event in _closed(item, "completed"):
                    await self.writer.put(*event)


def _begun(item: _Item) -> list[Event]:
    """Return the events that tell of a new item, which is empty yet."""
    body = item.body("in_progress")
    if item.kind == "function_call":
        return [_of_item("response.output_item.added", item, {"item": body})]
    (part,) = cast("list[JsonObject]", body["content"])
    return [
        _of_item("response.output_item.added", item, {"item": {**body, "content": []}}),
        _of_part("response.content_part.added", item, {"part": part}),
    ]


def _closed(item: _Item, status: ItemStatus, logprobs: Sequence[TokenLogprob] = ()) -> list[Event]:
    """Close an item, and return the events that tell so."""
    item.closed = item.body(status, logprobs)
    done = _of_item("response.output_item.done", item, {"item": item.closed})
    if item.kind == "function_call":
        told: JsonObject = {"arguments": item.text}
        return [_of_item("response.function_call_arguments.done", item, told), done]
    (part,) = cast("list[JsonObject]", item.closed["content"])
    part_done = _of_part("response.content_part.done", item, {"part": part})
    if item.kind == "reasoning":
        text = _of_part("response.reasoning_text.done", item, {"text": item.text})
    else:
        told = {"text": item.text, "logprobs": [_told_logprob(each) for each in logprobs]}
        text = _of_part("response.output_text.done", item, told)
    return [text, part_done, done]


def _of_item(name: str, item: _Item, told: JsonObject) -> Event:
    place: JsonObject = {"output_index": item.place}
    if "item" not in told:
        place["item_id"] = item.id
    return name, {"type": name, **place, **told}


def _of_part(name: str, item: _Item, told: JsonObject) -> Event:
    return _of_item(name, item, {"content_index": 0, **told})


def _text_part(text: str, logprobs: Sequence[TokenLogprob]) -> JsonObject:
    return {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": [
            {**_logprob(each), "top_logprobs": [_logprob(rival) for rival in each.top]}
            for each in logprobs
        ],
    }


def _reasoning_part(text: str) -> JsonObject:
    return {"type": "reasoning_text", "text": text}


def _logprob(token: TokenLogprob) -> JsonObject:
    return {"token": token.token, "bytes": [*token.bytes], "logprob": token.logprob}


def _told_logprob(token: TokenLogprob) -> JsonObject:
    """Events leave the bytes out."""
    rivals: list[JsonValue] = [
        {"token": rival.token, "logprob": rival.logprob} for rival in token.top
    ]
    return {"token": token.token, "logprob": token.logprob, "top_logprobs": rivals}
