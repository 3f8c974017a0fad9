from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from openworks.api.answers import Answer, Events, Json
from openworks.api.context import Context, Services
from openworks.api.endpoint import Handler
from openworks.api.gateway import local
from openworks.api.gateway.local import LocalModels, LocalResponse
from openworks.core.errors import AppError, EngineCrashedError, EngineOverloadedError
from openworks.core.ids import AccountId, RequestId
from openworks.ports.calls import CallRecord, Usage
from openworks.ports.upstream import Origin, Timeouts, UpstreamError, UpstreamRequest
from tests.fakes import CountingIds
from tests.unit.gateway.exchange_world import principal

USAGE = Usage(prompt_tokens=3, completion_tokens=4)


class Model:
    """A handler that does as it is told, and remembers how it was asked."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.answer: Answer = Json({"ok": True})
        self.error: AppError | None = None
        self.hangs = False

    async def __call__(self, context: Context) -> Answer:
        self.contexts.append(context)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        self.record(context)
        if self.error is not None:
            raise self.error
        return self.answer

    @staticmethod
    def record(context: Context) -> None:
        assert context.observer is not None
        context.observer(
            CallRecord(
                id=RequestId("req"),
                created_at_s=0.0,
                account_id=AccountId("acme"),
                key_id=None,
                route="",
                model="m",
                deployment="model-id",
                stream=False,
                usage=USAGE,
                cost_usd=0.0,
                first_token_ms=None,
                duration_ms=0.0,
                outcome="ok",
                status=200,
            )
        )


class Stream:
    """Events that can be watched."""

    def __init__(self, *events: bytes, error: AppError | None = None) -> None:
        self.closed = False
        self.events = self._run(events, error)

    async def _run(
        self, events: tuple[bytes, ...], error: AppError | None
    ) -> AsyncGenerator[bytes, None]:
        try:
            for event in events:
                yield event
            if error is not None:
                raise error
        finally:
            self.closed = True


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()
    monkeypatch.setitem(local._HANDLERS, "chat/completions", cast("Handler", made))
    return made


async def send(
    target: bytes = b"v1/chat/completions", *, first_byte_s: float | None = 5.0
) -> LocalResponse:
    services = cast("Services", SimpleNamespace(new_id=CountingIds()))
    transport = LocalModels(lambda: services).transport(principal())
    request = UpstreamRequest(
        origin=Origin(scheme="http", host="localhost", port=0),
        method=b"POST",
        target=target,
        headers=[],
        body=b'{"a": 1}',
    )
    response = await transport.send(request, Timeouts(first_byte_s=first_byte_s))
    await transport.close()
    assert isinstance(response, LocalResponse)
    return response


def fields(body: bytes) -> Any:
    return json.loads(body)


async def test_handler_is_asked_as_the_caller_with_the_body_as_it_is(model: Model) -> None:
    response = await send()
    assert (response.status, await response.read()) == (200, b'{"ok":true}')
    assert dict(response.headers)[b"content-length"] == b"11"
    (context,) = model.contexts
    assert context.principal == principal()
    assert context.body == b'{"a": 1}'
    assert context.route == "/v1/chat/completions"


async def test_answer_counts_for_itself(model: Model) -> None:
    response = await send()
    assert response.counted is not None
    assert (response.counted.usage, response.counted.deployment) == (USAGE, "model-id")


@pytest.mark.parametrize("target", [b"chat/completions", b"v1/chat/completions?x=1"])
async def test_version_and_query_do_not_matter(model: Model, target: bytes) -> None:
    assert (await send(target)).status == 200


async def test_unknown_endpoint_is_named_and_counts_nothing() -> None:
    response = await send(b"v1/audio/speech")
    assert response.status == 404
    assert "'audio/speech'" in fields(await response.read())["error"]["message"]
    assert response.counted is None


async def test_refusal_of_a_handler_is_an_answer_with_its_status(model: Model) -> None:
    model.error = EngineOverloadedError("The queue is full.", retry_after_s=2.0)
    response = await send()
    assert response.status == 429
    assert dict(response.headers)[b"retry-after"] == b"2"
    assert fields(await response.read())["error"]["code"] == "engine_overloaded"


async def test_stream_flows_event_by_event(model: Model) -> None:
    stream = Stream(b"a", b"b", b"c")
    model.answer = Events(stream.events)
    response = await send()
    assert dict(response.headers)[b"content-type"].startswith(b"text/event-stream")
    assert [event async for event in response.chunks()] == [b"a", b"b", b"c"]
    assert stream.closed


async def test_error_before_the_first_event_has_a_status_of_its_own(model: Model) -> None:
    stream = Stream(error=EngineCrashedError("It died."))
    model.answer = Events(stream.events)
    response = await send()
    assert response.status == 503
    assert stream.closed


async def test_error_after_the_first_event_breaks_the_stream(model: Model) -> None:
    model.answer = Events(Stream(b"a", error=EngineCrashedError("It died.")).events)
    chunks = (await send()).chunks()
    assert await anext(chunks) == b"a"
    with pytest.raises(UpstreamError) as caught:
        await anext(chunks)
    assert caught.value.code == "engine_crashed"


async def test_closing_the_stream_ends_the_call(model: Model) -> None:
    stream = Stream(b"a", b"b")
    model.answer = Events(stream.events)
    chunks = (await send()).chunks()
    await anext(chunks)
    await chunks.aclose()
    assert stream.closed


async def test_closing_a_stream_that_nobody_has_read_ends_the_call(model: Model) -> None:
    stream = Stream(b"a", b"b")
    model.answer = Events(stream.events)
    await (await send()).chunks().aclose()
    assert stream.closed


async def test_handler_that_is_too_slow_is_cancelled_and_told(model: Model) -> None:
    model.hangs = True
    with pytest.raises(UpstreamError, match=r"0\.01 seconds") as caught:
        await send(first_byte_s=0.01)
    assert caught.value.kind == "timeout"


async def test_cancelling_reaches_the_handler(model: Model) -> None:
    model.hangs = True
    task = asyncio.create_task(send())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
