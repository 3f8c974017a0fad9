"""Checks every body that the server emits against the SDK's own models, and nothing more.

The SDK itself takes whatever comes: unknown fields become attributes, and missing ones surface
where somebody reads them. Here both are faults.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import httpx2
from openai.pagination import SyncCursorPage, SyncPage
from openai.types import (
    Batch,
    Completion,
    CreateEmbeddingResponse,
    FileDeleted,
    FileObject,
    Model,
    ModelDeleted,
    Upload,
)
from openai.types.beta import Assistant, AssistantDeleted, Thread, ThreadDeleted
from openai.types.beta.threads import Message, MessageDeleted, MessageDeltaEvent, Run
from openai.types.beta.threads.runs import RunStep, RunStepDeltaEvent
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionDeleted,
    ChatCompletionMessage,
    ChatCompletionStoreMessage,
)
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.conversations import Conversation, ConversationDeletedResource
from openai.types.responses import (
    CompactedResponse,
    InputTokenCountResponse,
    Response,
    ResponseItem,
    ResponseStreamEvent,
)
from openai.types.uploads import UploadPart
from pydantic import BaseModel, ConfigDict, RootModel

_OWN_FIELDS: Mapping[type[BaseModel], frozenset[str]] = {
    # Split reasoning, in the field that other open servers use.
    ChatCompletionMessage: frozenset({"reasoning_content"}),
    ChoiceDelta: frozenset({"reasoning_content"}),
    # What a model is and whether it is loaded.
    Model: frozenset(
        {
            "name",
            "task",
            "context_window",
            "capabilities",
            "license",
            "state",
            "memory_bytes",
            "root",
            "parent",
            "fine_tuned_model",
            "finetune_id",
        }
    ),
    # OpenAI sends it and leaves it out of the SDK's type.
    Assistant: frozenset({"reasoning_effort"}),
    Run: frozenset({"reasoning_effort"}),
    # OpenAI sends these on every list; the SDK's page reads only the first two.
    SyncCursorPage[ChatCompletion]: frozenset({"object", "first_id", "last_id"}),
    SyncCursorPage[Batch]: frozenset({"object", "first_id", "last_id"}),
    SyncCursorPage[FileObject]: frozenset({"object", "first_id", "last_id"}),
    SyncCursorPage[Assistant]: frozenset({"object", "first_id", "last_id"}),
    SyncCursorPage[Message]: frozenset({"object", "first_id", "last_id"}),
    SyncCursorPage[Run]: frozenset({"object", "first_id", "last_id"}),
    SyncCursorPage[RunStep]: frozenset({"object", "first_id", "last_id"}),
    SyncCursorPage[Thread]: frozenset({"object", "first_id", "last_id"}),
}

_KINDS: Mapping[str, type[BaseModel]] = {
    "chat.completion": ChatCompletion,
    "chat.completion.chunk": ChatCompletionChunk,
    "chat.completion.deleted": ChatCompletionDeleted,
    "text_completion": Completion,
    "file": FileObject,
    "upload": Upload,
    "upload.part": UploadPart,
    "assistant": Assistant,
    "batch": Batch,
    "assistant.deleted": AssistantDeleted,
    "thread": Thread,
    "thread.deleted": ThreadDeleted,
    "thread.message": Message,
    "thread.message.delta": MessageDeltaEvent,
    "thread.run": Run,
    "thread.run.step": RunStep,
    "thread.run.step.delta": RunStepDeltaEvent,
    "thread.message.deleted": MessageDeleted,
    "response": Response,
    "response.compaction": CompactedResponse,
    "response.input_tokens": InputTokenCountResponse,
    "conversation": Conversation,
    "conversation.deleted": ConversationDeletedResource,
    "model": Model,
}
_DELETED: Mapping[str, type[BaseModel]] = {"file": FileDeleted, "model": ModelDeleted}
"""What tells of a deletion by the kind of the thing itself."""
_STREAM_EVENTS: Mapping[str, type[BaseModel]] = {
    get_args(event.model_fields["type"].annotation)[0]: event
    for event in get_args(get_args(ResponseStreamEvent)[0])
}
_LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_LISTS: Mapping[str, type[BaseModel]] = {
    "assistant": SyncCursorPage[Assistant],
    "batch": SyncCursorPage[Batch],
    "chat.completion": SyncCursorPage[ChatCompletion],
    "embedding": CreateEmbeddingResponse,
    "file": SyncCursorPage[FileObject],
    "model": SyncPage[Model],
    "thread": SyncCursorPage[Thread],
    "thread.message": SyncCursorPage[Message],
    "thread.run": SyncCursorPage[Run],
    "thread.run.step": SyncCursorPage[RunStep],
}


class _Error(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What every error of the server looks like."""

    model_config = ConfigDict(extra="forbid", strict=True)

    error: _Error


class StoredMessage(ChatCompletionStoreMessage):
    """A message of a stored completion; the SDK's type knows only assistants."""

    role: Literal["system", "developer", "user", "assistant", "tool"]  # type: ignore[assignment] # wider than the SDK's
    name: str | None = None
    tool_call_id: str | None = None


class MessagePage(BaseModel):
    """A page of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    object: Literal["list"]
    data: list[StoredMessage]
    first_id: str
    last_id: str
    has_more: bool


class Item(RootModel[ResponseItem]):
    """An item of a response or of a conversation."""


class ItemPage(BaseModel):
    """A page of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    object: Literal["list"]
    data: list[ResponseItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseDeleted(BaseModel):
    """Tells that a response is gone; the SDK does not read it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class _RerankUsage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    prompt_tokens: int
    total_tokens: int


class RerankBody(BaseModel):
    """A rerank answer, which the SDK has no model for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    object: str
    model: str
    results: list[_Result]
    usage: _RerankUsage


def check_body(data: bytes) -> None:
    """Fail unless `data` is a whole, well-formed document of the API."""
    body = json.loads(data)
    kind = kind_of(body)
    if kind is CreateEmbeddingResponse:
        for row in body["data"]:
            if isinstance(row["embedding"], str):  # the SDK decodes base64 before it reads the type
                row["embedding"] = [
                    number for (number,) in struct.iter_unpack("<f", b64decode(row["embedding"]))
                ]
        data = json.dumps(body).encode()
    if kind is Completion:
        for choice in body["choices"]:  # the SDK's type has no null, which OpenAI streams
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        data = json.dumps(body).encode()
    strictly(kind, data)


def check_events(lines: Iterable[bytes]) -> None:
    """Fail unless every event of a stream is well-formed, and the last one is its end."""
    blocks = [line for line in lines if line]
    if not blocks:  # whoever takes a stream up behind its last event hears no more
        return
    if blocks[0].startswith((b"event: response.", b"event: error")):
        check_response_events(blocks)
        return
    if blocks[0].startswith((b"event: thread.", b"event: done")):
        check_run_events(blocks)
        return
    payloads = [block.removeprefix(b"data: ") for block in blocks]
    for payload in payloads:
        if payload != b"[DONE]":
            check_body(payload)
    assert payloads[-1] == b"[DONE]" or "error" in json.loads(payloads[-1])
    assert b"[DONE]" not in payloads[:-1]


def check_response_events(blocks: Sequence[bytes]) -> None:
    """Fail unless the events of a response are well-formed, without a gap, and end as they must."""
    numbers = []
    for block in blocks:
        name, _, data = block.removeprefix(b"event: ").partition(b"\ndata: ")
        body = json.loads(data)
        assert body["type"] == name.decode()
        strictly(_STREAM_EVENTS[body["type"]], data)
        numbers.append(body["sequence_number"])
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert body["type"] in _LAST_EVENTS


def check_run_events(blocks: Sequence[bytes]) -> None:
    """Fail unless the events of a run are well-formed, without a gap, and end as they must."""
    numbers, names = [], []
    for block in blocks:
        name, number, data = block.split(b"\n")
        names.append(name.removeprefix(b"event: ").decode())
        numbers.append(int(number.removeprefix(b"id: ")))
        payload = data.removeprefix(b"data: ")
        if payload == b"[DONE]":
            continue
        check_body(payload)
        kind = json.loads(payload).get("object")
        assert kind is None or names[-1].startswith(kind)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert names.index("done") == len(names) - 1


def kind_of(body: Any) -> type[BaseModel]:
    """Return the model that a document must fit."""
    if "object" not in body:
        return ErrorBody if "error" in body else Item
    if body["object"] == "response" and "deleted" in body:
        return ResponseDeleted
    if body["object"] in _DELETED and "deleted" in body:
        return _DELETED[body["object"]]
    if body["object"] != "list":
        return _KINDS[body["object"]]
    if "results" in body:
        return RerankBody
    rows = body["data"]
    if not rows:
        return SyncCursorPage[ChatCompletion] if "has_more" in body else SyncPage[Model]
    if "object" not in rows[0]:
        return ItemPage if "type" in rows[0] else MessagePage
    return _LISTS[rows[0]["object"]]


def strictly(kind: type[BaseModel], data: bytes) -> None:
    """Fail unless `data` has every field of `kind` with its exact type, and no field beyond."""
    for model in _models_in(kind.model_validate_json(data, strict=True)):
        unknown = set(model.model_extra or ()) - _OWN_FIELDS.get(type(model), frozenset())
        assert not unknown, f"{type(model).__name__} has no {sorted(unknown)}: {data[:500]!r}"


def _models_in(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _models_in(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from _models_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _models_in(item)


class CheckedTransport(httpx2.HTTPTransport):
    """Looks at every answer on its way to the SDK."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Checked(response.stream, response)
        return response


class AsyncCheckedTransport(httpx2.AsyncHTTPTransport):
    """Looks at every answer on its way to the SDK."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _AsyncChecked(response.stream, response)
        return response


class _Checked(httpx2.SyncByteStream):
    """A body that is checked when it has been read to its end; a reader may leave before."""

    def __init__(self, inner: httpx2.SyncByteStream, response: httpx2.Response) -> None:
        self._inner = inner
        self._response = response
        self._parts: list[bytes] = []  # the SDK may stop at [DONE] and read the rest afterwards

    def __iter__(self) -> Iterator[bytes]:
        for part in self._inner:
            self._parts.append(part)
            yield part
        _check(self._response, b"".join(self._parts))

    def close(self) -> None:
        self._inner.close()


class _AsyncChecked(httpx2.AsyncByteStream):
    """The same for a client that does not block."""

    def __init__(self, inner: httpx2.AsyncByteStream, response: httpx2.Response) -> None:
        self._inner = inner
        self._response = response
        self._parts: list[bytes] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            self._parts.append(part)
            yield part
        _check(self._response, b"".join(self._parts))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _check(response: httpx2.Response, body: bytes) -> None:
    assert response.headers["x-request-id"].startswith("req_")
    assert int(response.headers["openai-processing-ms"]) >= 0
    if response.headers["content-type"].startswith("text/event-stream"):
        check_events(body.split(b"\n\n"))
    elif "content-disposition" in response.headers:  # the content of a file
        assert response.headers["x-content-type-options"] == "nosniff"
        assert int(response.headers["content-length"]) == len(body)
    else:
        assert response.headers["content-type"] == "application/json"
        check_body(body)
