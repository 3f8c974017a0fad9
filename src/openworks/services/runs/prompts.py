"""What a run asks its model: instructions, as much of the thread as fits, the run's own calls."""

from __future__ import annotations

import base64
import mimetypes
import zlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

import orjson

from openworks.core.errors import InvalidRequestError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject, JsonValue
from openworks.core.pages import PageRequest
from openworks.ports.calls import Call
from openworks.ports.catalog import Deployment, Task
from openworks.ports.files import File
from openworks.ports.runs import Run, RunStep
from openworks.ports.text import ChatRequest, JsonFormat, Sampling
from openworks.ports.threads import Message, MessageStore
from openworks.services.agent.loop import Incomplete

_FIRST_LOOK: Final = 100
"""Messages of a thread that are read at first; with `auto`, more if they leave room."""
_MOST_READ: Final = 1 << 20
_MAX_ROOM: Final = 1024
"""Tokens kept free for an answer whose length was left open, in a context that has them."""
_TEMPLATE_BYTES: Final = 512
"""More than templates add to a conversation, and to each of its messages (the next)."""
_MESSAGE_BYTES: Final = 64
_TOOLS_BYTES: Final = 2048
_MAX_IMAGE_BYTES: Final = 20 << 20


class Counter(Protocol):
    """What knows how long a conversation is, and how long it may be."""

    async def count_tokens(self, call: Call, request: ChatRequest) -> int:
        """Count the tokens of a prompt."""
        ...

    async def resolve(self, call: Call, task: Task) -> Deployment:
        """Return what would answer a call."""
        ...


class ImageFiles(Protocol):
    """Where the files of images are."""

    async def find(self, account_id: AccountId, file_id: str) -> File | None:
        """Return one; None when it is not there any more."""
        ...

    def read(self, file: File) -> AsyncGenerator[bytes, None]:
        """Yield the content."""
        ...


@dataclass(frozen=True, slots=True)
class RunPrompts:
    """Makes the requests of runs."""

    counter: Counter
    messages: MessageStore
    files: ImageFiles

    async def request(
        self, run: Run, steps: Sequence[RunStep], call: Call
    ) -> ChatRequest | Incomplete:
        """Return what the model is asked in the run's next turn, or why nothing may be asked.

        Args:
            run: As it stands.
            steps: Of turns that have ended.
            call: Of the turn.

        Raises:
            InvalidRequestError: The thread says nothing, or shows an image that is not there.
        """
        settings, used = run.settings, run.usage
        left = _left(settings.max_completion_tokens, used.completion_tokens)
        if left == 0:
            return Incomplete("max_tokens")
        budget = _left(settings.max_prompt_tokens, used.prompt_tokens)
        if budget == 0:
            return Incomplete("max_prompt_tokens")
        talk = _Talk(run, max_tokens=left)
        if settings.last_messages is None:
            return await self._as_much_as_fits(talk, steps, call, budget)
        history, own, _ = await self._read(run, steps, settings.last_messages)
        request = talk.about(history, own)
        if budget is not None and await self.counter.count_tokens(call, request) > budget:
            return Incomplete("max_prompt_tokens")
        return request

    async def _as_much_as_fits(
        self, talk: _Talk, steps: Sequence[RunStep], call: Call, budget: int | None
    ) -> ChatRequest | Incomplete:
        """Drop the oldest messages until the rest leaves room for an answer.

        Where nothing is left to be dropped, the model says itself that it is too much.
        """
        context = (await self.counter.resolve(call, "text-generation")).context_tokens
        limits = [] if budget is None else [budget]
        if context is not None:
            room = min(talk.max_tokens or _MAX_ROOM, _MAX_ROOM, context // 4)
            limits.append(context - room)
        num_read = _FIRST_LOOK
        while True:
            history, own, has_more = await self._read(talk.run, steps, num_read)
            request = talk.about(history, own)
            if not limits or await self._fits(request, call, min(limits)):
                if not has_more or num_read >= _MOST_READ:
                    return request
                num_read *= 4
                continue
            starts = _starts(history)
            low, high = 0, len(starts)  # the first start that fits
            while low < high:
                middle = (low + high) // 2
                request = talk.about(history[starts[middle] :], own)
                if await self._fits(request, call, min(limits)):
                    high = middle
                else:
                    low = middle + 1
            if low == len(starts) and budget is not None and budget == min(limits):
                return Incomplete("max_prompt_tokens")
            newest = len(starts) - 1
            return talk.about(history[starts[min(low, newest)] :] if starts else history, own)

    async def _fits(self, request: ChatRequest, call: Call, limit: int) -> bool:
        # No token is shorter than a byte: short prompts need not be counted.
        return _most_tokens(request) <= limit or (
            await self.counter.count_tokens(call, request) <= limit
        )

    async def _read(
        self, run: Run, steps: Sequence[RunStep], num_messages: int
    ) -> tuple[list[JsonObject], list[JsonObject], bool]:
        """Return the newest messages of the thread, oldest first, and what the run itself did.

        And whether the thread has older ones.
        """
        num_own = sum(step.message_id is not None for step in steps)
        newest = PageRequest(limit=num_messages + num_own, order="desc", most=2 * _MOST_READ)
        page = await self.messages.list(run.account_id, run.thread_id, newest)
        if page is None:
            return [], [], False
        found = [*reversed(page.items)]
        before = [each for each in found if each.run_id != run.id][-num_messages:]
        history: list[JsonObject] = [
            {"role": each.role, "content": await self._content(run, each.content)}
            for each in before
            if each.content
        ]
        return history, _own(steps, {each.id: each for each in found}), page.has_more

    async def _content(self, run: Run, parts: Sequence[JsonObject]) -> JsonValue:
        if all(part["type"] == "text" for part in parts):
            return "\n".join(_text(part) for part in parts)
        return [await self._part(run, part) for part in parts]

    async def _part(self, run: Run, part: JsonObject) -> JsonObject:
        match part["type"]:
            case "text":
                return {"type": "text", "text": _text(part)}
            case "image_file":
                image = cast("JsonObject", part["image_file"])
                url = await self._data_url(run, str(image["file_id"]))
                return {"type": "image_url", "image_url": {"url": url, "detail": image["detail"]}}
            case _:
                return part

    async def _data_url(self, run: Run, file_id: str) -> str:
        file = await self.files.find(run.account_id, file_id)
        if file is None:
            raise InvalidRequestError(f"The image file '{file_id}' of the thread is gone.")
        kind = file.media_type
        if not kind.startswith("image/"):
            kind = mimetypes.guess_type(file.filename)[0] or ""
        if not kind.startswith("image/") or file.size_bytes > _MAX_IMAGE_BYTES:
            raise InvalidRequestError(
                f"The file '{file_id}' is no image of at most {_MAX_IMAGE_BYTES} bytes: it is "
                f"{file.filename!r} with {file.size_bytes}."
            )
        data = b"".join([piece async for piece in self.files.read(file)])
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True, slots=True)
class _Talk:
    """A run's next turn, but for what the model is told."""

    run: Run
    max_tokens: int | None

    def about(self, history: Sequence[JsonObject], own: Sequence[JsonObject]) -> ChatRequest:
        """Return the request with these messages behind the instructions."""
        run, settings = self.run, self.run.settings
        told = [*history, *own]
        if not told:
            raise InvalidRequestError(f"Thread '{run.thread_id}' has no message to be answered.")
        if settings.instructions:
            told.insert(0, {"role": "system", "content": settings.instructions})
        return ChatRequest(
            messages=told,
            tools=settings.tools,
            # Who forces a call wants one, and then an answer.
            tool_choice="auto" if run.num_turns else _tool_choice(settings.tool_choice),
            parallel_tool_calls=settings.parallel_tool_calls,
            response_format=_format(settings.response_format),
            reasoning_effort=settings.reasoning_effort,
            sampling=Sampling(
                max_tokens=self.max_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=seed_of(run),
            ),
        )


def seed_of(run: Run) -> int:
    """Return the seed of the next turn: the same when that turn is made anew after a crash."""
    return zlib.crc32(f"{run.id}/{run.num_turns}".encode()) >> 1


def _left(most: int | None, used: int) -> int | None:
    return None if most is None else max(0, most - used)


def _starts(history: Sequence[JsonObject]) -> list[int]:
    """Return where a conversation may begin once the first message is dropped.

    Many templates want a user to begin; the last message stays in any case.
    """
    last = len(history) - 1
    return [at for at in range(1, last + 1) if history[at]["role"] == "user" or at == last]


def _own(steps: Iterable[RunStep], messages: Mapping[str, Message]) -> list[JsonObject]:
    """Return what a run has said and was told, as messages of a chat."""
    found: list[JsonObject] = []
    turn = -1
    for step in steps:
        if step.turn != turn:
            turn = step.turn
            found.append({"role": "assistant", "content": ""})
        said = next(each for each in reversed(found) if each["role"] == "assistant")
        if step.message_id is not None:
            if step.message_id in messages:
                said["content"] = "\n".join(map(_text, messages[step.message_id].content))
        else:
            functions: list[JsonValue] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in step.tool_calls
            ]
            if functions:
                said["tool_calls"] = functions
            found += [
                {"role": "tool", "tool_call_id": call.id, "content": call.output or ""}
                for call in step.tool_calls
            ]
    return found


def _text(part: JsonObject) -> str:
    return str(cast("JsonObject", part["text"])["value"])


def _most_tokens(request: ChatRequest) -> float:
    """Return a number of tokens that a prompt cannot have; infinity where images are seen."""
    if any(isinstance(each["content"], list) for each in request.messages):
        return float("inf")
    size = len(orjson.dumps([*request.messages])) + _TEMPLATE_BYTES
    if request.tools:
        size += 2 * len(orjson.dumps([*request.tools])) + _TOOLS_BYTES
    return size + _MESSAGE_BYTES * len(request.messages)


def _tool_choice(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    return str(cast("JsonObject", cast("JsonObject", value)["function"])["name"])


def _format(value: JsonValue) -> JsonFormat | None:
    if not isinstance(value, dict) or value["type"] == "text":
        return None
    if value["type"] == "json_object":
        return JsonFormat()
    schema = cast("JsonObject", value["json_schema"]).get("schema")
    return JsonFormat(schema=cast("JsonObject", schema) if schema else None)
