"""Clients that no one here wrote, through the gateway: OpenAI's, Anthropic's and Cloudflare's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import MessageParam, ToolParam
from cloudflare import NOT_GIVEN, Cloudflare
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionUserMessageParam,
)

from tests.gateway.gateway_server import PROVIDER_KEY, TOKEN, Place
from tests.gateway.stand_in import Reply, Request, Tokens, anthropic_message, chat_completion

_OURS = {"cf-aig-authorization": f"Bearer {TOKEN}"}
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello"}]
GREETING: list[MessageParam] = [{"role": "user", "content": "Hello"}]
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
FORECAST: ToolParam = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
def openai_client(place: Place) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=place.url("openai"),
        api_key=PROVIDER_KEY,
        default_headers=_OURS,
        max_retries=0,
        timeout=20,
    ) as client:
        yield client


@pytest.fixture
def anthropic_client(place: Place) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=place.url("anthropic"),
        api_key=PROVIDER_KEY,
        default_headers=_OURS,
        max_retries=0,
        timeout=20,
    ) as client:
        yield client


def _tool_call(_: Request) -> Reply:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'},
    }
    reply = chat_completion(Tokens(model="mock", prompt=3, completion=4))
    body = json.loads(reply.body)
    body["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    body["choices"][0]["finish_reason"] = "tool_calls"
    return Reply(body=json.dumps(body).encode())


def test_openai_answers_whole(openai_client: OpenAI, place: Place) -> None:
    raw = openai_client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=HELLO
    )
    answer = raw.parse()

    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 64
    (record,) = place.records(1)
    assert record.id == raw.headers["cf-aig-log-id"]


def test_openai_streams(openai_client: OpenAI, place: Place) -> None:
    stream = openai_client.chat.completions.create(
        model="mock-t9-p4",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(f" tok{number}" for number in range(9))
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9
    assert place.records(1)[0].usage.completion_tokens == 9


def test_openai_calls_tools(openai_client: OpenAI, place: Place) -> None:
    place.provider.script(_tool_call)

    answer = openai_client.chat.completions.create(model="mock", messages=HELLO, tools=[WEATHER])

    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert place.provider.requests[0].json()["tools"] == [WEATHER]


def test_openai_embeds(openai_client: OpenAI, place: Place) -> None:
    answer = openai_client.embeddings.create(
        model="mock", input=["a", "b"], encoding_format="float"
    )

    assert [len(row.embedding) for row in answer.data] == [8, 8]
    assert place.records(1)[0].usage.prompt_tokens == 16


def test_openai_lists_models(openai_client: OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["mock"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_openai_raises_its_own_errors(
    openai_client: OpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as caught:
        openai_client.chat.completions.create(model=f"mock-x{status}", messages=HELLO)

    assert caught.value.status_code == status
    assert f"mock {status}" in caught.value.message
    assert caught.value.code == "mock"


def test_openai_raises_its_own_errors_for_our_refusals(place: Place) -> None:
    with (
        OpenAI(base_url=place.url("openai"), api_key="sk-ow-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="mock", messages=HELLO)

    assert caught.value.status_code == 401


def test_openai_raises_when_a_stream_breaks(openai_client: OpenAI) -> None:
    stream = openai_client.chat.completions.create(model="mock-k5-t30", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="closed the connection"):
        for _ in stream:
            pass


def test_openai_times_out_and_the_provider_is_told(openai_client: OpenAI, place: Place) -> None:
    with pytest.raises(openai.APITimeoutError):
        openai_client.with_options(timeout=0.3).chat.completions.create(
            model="mock-h", messages=HELLO
        )

    deadline_s = time.monotonic() + 5
    while place.provider.counters.aborted == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


async def test_async_openai_answers_and_streams(place: Place) -> None:
    async with AsyncOpenAI(
        base_url=place.url("openai"), api_key=PROVIDER_KEY, default_headers=_OURS
    ) as client:
        answer = await client.chat.completions.create(model="mock", messages=HELLO)
        stream = await client.chat.completions.create(model="mock-t5", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]

    assert answer.choices[0].message.content
    assert len(chunks) == 5


def test_openai_with_one_of_our_keys_alone_uses_the_stored_credential(place: Place) -> None:
    _, secret = place.server.process.make_key(account=place.account)
    place.make("gw")
    place.keep_credential("sk-stored")
    with OpenAI(base_url=place.url("openai", "gw"), api_key=secret, max_retries=0) as client:
        client.chat.completions.create(model="mock", messages=HELLO)

    assert place.provider.requests[0].header("authorization") == "Bearer sk-stored"


def test_openai_reaches_anthropic_through_compat(place: Place) -> None:
    place.make("gw")
    place.keep_credential("sk-ant", provider="anthropic")
    with OpenAI(base_url=place.url("compat", "gw"), api_key=TOKEN, max_retries=0) as client:
        answer = client.chat.completions.create(
            model="anthropic/mock-t6-p5", messages=HELLO, max_tokens=64
        )
        stream = list(
            client.chat.completions.create(
                model="anthropic/mock-t6-p5",
                messages=HELLO,
                max_tokens=64,
                stream=True,
                stream_options={"include_usage": True},
            )
        )

    assert answer.choices[0].message.content == "lorem ipsum dolor sit amet"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 6)
    said = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert said == "".join(f" tok{number}" for number in range(6))
    assert stream[-1].usage is not None
    assert stream[-1].usage.completion_tokens == 6
    for request in place.provider.requests:
        assert request.path == "/v1/messages"
        assert request.header("x-api-key") == "sk-ant"
    assert {(r.usage.prompt_tokens, r.usage.completion_tokens) for r in place.records(2)} == {
        (5, 6)
    }


def test_anthropic_answers_whole(anthropic_client: Anthropic, place: Place) -> None:
    answer = anthropic_client.messages.create(
        model="claude-haiku-4-5", max_tokens=64, messages=GREETING
    )

    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens == 64
    assert place.provider.requests[0].path == "/v1/messages"
    (record,) = place.records(1)
    assert record.cost_usd == pytest.approx((120 * 1.0 + 64 * 5.0) / 1e6)


def test_anthropic_streams(anthropic_client: Anthropic, place: Place) -> None:
    with anthropic_client.messages.stream(
        model="mock-t9-p4", max_tokens=64, messages=GREETING
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()

    assert text == "".join(f" tok{number}" for number in range(9))
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, 9)
    usage = place.records(1)[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (4, 9)


def test_anthropic_calls_tools(anthropic_client: Anthropic, place: Place) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}}
    reply = anthropic_message(Tokens(model="mock", prompt=1, completion=2))
    body = {**json.loads(reply.body), "content": [use], "stop_reason": "tool_use"}
    place.provider.queue(Reply(body=json.dumps(body).encode()))

    answer = anthropic_client.messages.create(
        model="mock", max_tokens=64, messages=GREETING, tools=[FORECAST]
    )

    assert answer.stop_reason == "tool_use"
    assert answer.content[0].type == "tool_use"
    assert answer.content[0].input == {"city": "Rome"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.InternalServerError),
    ],
)
def test_anthropic_raises_its_own_errors(
    anthropic_client: Anthropic, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(kind):
        anthropic_client.messages.create(model=f"mock-x{status}", max_tokens=64, messages=GREETING)


def test_anthropic_raises_when_a_stream_breaks(anthropic_client: Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIError, match="closed the connection"),
        anthropic_client.messages.stream(
            model="mock-k5-t30", max_tokens=64, messages=GREETING
        ) as stream,
    ):
        for _ in stream:
            pass


async def test_async_anthropic_streams(place: Place) -> None:
    async with (
        AsyncAnthropic(
            base_url=place.url("anthropic"), api_key=PROVIDER_KEY, default_headers=_OURS
        ) as client,
        client.messages.stream(model="mock-t3", max_tokens=64, messages=GREETING) as stream,
    ):
        message = await stream.get_final_message()

    assert message.usage.output_tokens == 3


def test_cloudflares_client_sets_up_what_openais_then_uses(place: Place) -> None:
    required: dict[str, Any] = {
        "cache_ttl": 60,
        "cache_invalidate_on_update": True,
        "collect_logs": True,
        "rate_limiting_interval": 600,
        "rate_limiting_limit": 3,
    }
    account = place.account
    with Cloudflare(
        base_url=f"{place.server.url}/client/v4", api_token=TOKEN, max_retries=0
    ) as cloudflare:
        gateway = cloudflare.ai_gateway.create(account_id=account, id="made", **required)
        keep: Callable[..., Any] = cloudflare.ai_gateway.provider_configs.create
        keep(
            "made",
            account_id=account,
            alias="main",
            default_config=True,
            provider_slug="openai",
            secret="sk-kept-here",
            secret_id=NOT_GIVEN,
        )
        end = {"id": "end", "type": "end", "outputs": {}}
        model = {
            "id": "model",
            "type": "model",
            "properties": {"provider": "openai", "model": "mock", "retries": 0, "timeout": 9000},
            "outputs": {"success": {"elementId": "end"}, "fallback": {"elementId": "end"}},
        }
        start = {"id": "start", "type": "start", "outputs": {"next": {"elementId": "model"}}}
        create: Callable[..., Any] = cloudflare.ai_gateway.dynamic_routing.create
        route = create("made", account_id=account, name="support", elements=[start, model, end])
        url = cloudflare.ai_gateway.urls.get("openai", account_id=account, gateway_id=gateway.id)

        assert place.server.url in str(url)
        with OpenAI(base_url=str(url), api_key=TOKEN, max_retries=0) as client:
            client.chat.completions.create(model="mock", messages=HELLO)
        with OpenAI(base_url=place.url("compat", "made"), api_key=TOKEN, max_retries=0) as client:
            routed = client.chat.completions.with_raw_response.create(
                model="dynamic/support", messages=HELLO, temperature=0.5
            )
            assert routed.headers["cf-aig-model"] == "mock"
            client.chat.completions.create(model="openai/mock", messages=HELLO, n=1, seed=2)
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(model="openai/mock", messages=HELLO, seed=1)

    assert route.id
    shown = {request.header("authorization") for request in place.provider.requests}
    assert shown == {"Bearer sk-kept-here"}
