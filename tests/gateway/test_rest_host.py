"""The gateway behind the REST hosts, as the official clients of three houses call it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import openai
import pytest
from anthropic import Anthropic
from cloudflare import Cloudflare
from openai import OpenAI

from tests.api.weights import WIDTH, TestModels
from tests.gateway.fronts import PROVIDER_SECRET, Front, open_front, route_to
from tests.gateway.stand_in import Reply
from tests.server import wait_until

TOKEN = "owner-of-the-rest"
ACCOUNT = "default"
AI = f"/client/v4/accounts/{ACCOUNT}/ai"
CARD = "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def front(models: TestModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with open_front(tmp_path_factory.mktemp("rest"), models, token=TOKEN) as opened:
        opened.get(f"/gateway/v1/{ACCOUNT}/default/compat/models")  # makes the gateway
        opened.make("gw")
        for gateway in ("default", "gw"):
            for slug in ("openai", "anthropic"):
                opened.keep_credential(slug, gateway=gateway)
        opened.make("cached", cache_ttl=600)
        yield opened


@pytest.fixture(scope="module")
def guarded(models: TestModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A server whose gateway `default` blocks card numbers."""
    with open_front(tmp_path_factory.mktemp("guarded"), models) as opened:
        opened.make("default", dlp={"enabled": True, "action": "BLOCK", "profiles": ["financial"]})
        yield opened


def openai_client(front: Front, path: str = f"{AI}/v1", **headers: str) -> OpenAI:
    return OpenAI(
        base_url=f"{front.url}{path}", api_key=TOKEN, max_retries=0, default_headers=headers
    )


def ask(client: OpenAI, model: str, text: str = "Hello", tokens: int = 4) -> str | None:
    completion = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=tokens
    )
    return completion.choices[0].message.content


@pytest.mark.parametrize("path", [f"{AI}/v1", "/v1"])
def test_chat_goes_to_the_provider_that_the_model_names(front: Front, path: str) -> None:
    with openai_client(front, path) as client:
        assert "lorem" in str(ask(client, "openai/mock-t3"))
    asked = front.provider.requests[-1]
    assert (asked.path, asked.model) == ("/v1/chat/completions", "mock-t3")
    assert asked.header("authorization") == f"Bearer {PROVIDER_SECRET}"
    assert TOKEN not in str(asked.headers)


@pytest.mark.parametrize("path", [f"{AI}/v1", "/v1"])
def test_chat_with_another_house_is_translated(front: Front, path: str) -> None:
    with openai_client(front, path) as client:
        stream = client.chat.completions.create(
            model="anthropic/mock-t3",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=9,
            stream=True,
        )
        words = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(word or "" for word in words) == " tok0 tok1 tok2"
    assert front.provider.requests[-1].path == "/v1/messages"


def test_chat_on_the_rest_host_answers_by_this_servers_models(front: Front) -> None:
    with openai_client(front) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="plain", messages=[{"role": "user", "content": "Hello"}], max_tokens=3
        )
    record = front.process.record_of(answer.headers["cf-aig-log-id"])
    assert (record.provider, record.deployment) == ("workers-ai", "plain")
    assert record.route == "/client/v4/accounts/{account_id}/ai/v1/chat/completions"


@pytest.mark.parametrize("path", [f"{AI}/v1", "/v1"])
def test_header_names_the_gateway(front: Front, path: str) -> None:
    with openai_client(front, path, **{"cf-aig-gateway-id": "cached"}) as client:
        answers = [
            client.chat.completions.with_raw_response.create(
                model="plain", messages=[{"role": "user", "content": path}], max_tokens=3
            )
            for _ in range(2)
        ]
    assert [answer.headers["cf-aig-cache-status"] for answer in answers] == ["MISS", "HIT"]
    assert answers[0].text == answers[1].text


@pytest.mark.parametrize("path", [f"{AI}/v1", "/v1"])
def test_embeddings_come_from_either_side(front: Front, path: str) -> None:
    with openai_client(front, path) as client:
        there = client.embeddings.create(model="openai/mock", input="one", encoding_format="float")
        here = client.embeddings.create(model="encoder", input="one", encoding_format="float")
    assert len(there.data[0].embedding) == 8
    assert len(here.data[0].embedding) == WIDTH


def test_responses_pass_to_a_provider_that_has_them(front: Front) -> None:
    said = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "mock",
        "status": "completed",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "output_tokens": 3,
            "total_tokens": 14,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    front.provider.queue(Reply(body=json.dumps(said).encode()))
    with openai_client(front) as client:
        answer = client.responses.with_raw_response.create(model="openai/mock", input="Hello")
    assert answer.parse().id == "resp_1"
    asked = front.provider.requests[-1]
    assert (asked.path, asked.model) == ("/v1/responses", "mock")
    record = front.process.record_of(answer.headers["cf-aig-log-id"])
    assert record.usage.prompt_tokens == 11


@pytest.mark.parametrize("path", [f"{AI}", ""])
@pytest.mark.parametrize("model", ["anthropic/claude-mock-t3", "claude-mock-t3"])
def test_messages_are_anthropics_own(front: Front, path: str, model: str) -> None:
    base_url = f"{front.url}{path}"
    with Anthropic(base_url=base_url, api_key=TOKEN, max_retries=0) as client:
        message = client.messages.create(
            model=model, max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
        )
        with client.messages.stream(
            model=model, max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
        ) as stream:
            words = "".join(stream.text_stream)
    assert message.type == "message"
    assert words.startswith(" tok0")
    asked = front.provider.requests[-1]
    assert (asked.path, asked.model) == ("/v1/messages", "claude-mock-t3")
    assert asked.header("x-api-key") == PROVIDER_SECRET
    assert TOKEN not in str(asked.headers)


@pytest.mark.parametrize("path", [f"{AI}/v1", "/v1"])
def test_dynamic_route_is_a_model_name(front: Front, path: str) -> None:
    name = f"r{len(path)}"
    body = {"name": name, "elements": route_to("openai", "mock-routed-t2")}
    front.control("POST", "/gateways/default/routes", body)
    with openai_client(front, path) as client:
        answer = client.chat.completions.with_raw_response.create(
            model=f"dynamic/{name}", messages=[{"role": "user", "content": "Hello"}]
        )
    assert answer.headers["cf-aig-model"] == "mock-routed-t2"
    assert front.provider.requests[-1].model == "mock-routed-t2"


def test_errors_have_the_shape_of_their_path(front: Front) -> None:
    with openai_client(front, **{"cf-aig-gateway-id": "nowhere"}) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, "openai/mock")
        assert refused.value.code == "gateway_not_found"
    base_url = f"{front.url}{AI}"
    with Anthropic(base_url=base_url, api_key=TOKEN, max_retries=0) as client:
        with pytest.raises(anthropic.BadRequestError) as bad:
            client.messages.create(
                model="openai/mock", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
            )
        assert bad.value.body == {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Messages are answered by Anthropic's models alone, as "
                "anthropic/claude-opus-4-5 is, not by 'openai/mock'.",
            },
        }
    with Anthropic(base_url=base_url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError) as stranger:
            client.messages.create(
                model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
            )
        assert isinstance(stranger.value.body, dict)
        assert stranger.value.body["error"]["type"] == "authentication_error"
    answer = front.post(f"{AI}/run/@cf/no/model", {"prompt": "Hello"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, 5007)
    assert answer.json()["result"] is None


@pytest.mark.parametrize(
    ("model", "code"), [("nothing", "model_not_found"), ("nobody/model", "model_not_found")]
)
def test_models_that_nobody_knows_are_told_as_before(front: Front, model: str, code: str) -> None:
    with openai_client(front, "/v1") as client, pytest.raises(openai.NotFoundError) as refused:
        ask(client, model)
    assert refused.value.code == code


@pytest.mark.parametrize("path", [f"{AI}/v1", "/v1"])
@pytest.mark.parametrize("model", ["openai/gpt-4.1", "google/gemma-3-4b-it"])
def test_nothing_is_sent_to_a_provider_without_a_stored_credential(
    front: Front, path: str, model: str
) -> None:
    front.provider.clear()
    headers = {"cf-aig-gateway-id": "cached"}
    with (
        openai_client(front, path, **headers) as client,
        pytest.raises(openai.NotFoundError) as refused,
    ):
        ask(client, model)
    assert refused.value.code == "model_not_found"
    assert "no stored credential" in str(refused.value)
    assert not front.provider.requests


def test_providers_errors_pass(front: Front) -> None:
    with openai_client(front) as client, pytest.raises(openai.RateLimitError):
        ask(client, "openai/mock-x429")


def test_another_account_is_refused(front: Front) -> None:
    _, secret = front.process.make_key(account="mine")
    path = "/client/v4/accounts/other/ai/v1"
    with (
        OpenAI(base_url=f"{front.url}{path}", api_key=secret, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError) as refused,
    ):
        ask(client, "plain")
    assert refused.value.code == "account_mismatch"


# `run`


def cloudflare(front: Front) -> Cloudflare:
    return Cloudflare(base_url=f"{front.url}/client/v4", api_token=TOKEN, max_retries=0)


def test_official_client_runs_a_text_model(front: Front) -> None:
    with cloudflare(front) as client:
        result = client.ai.run("plain", account_id=ACCOUNT, prompt="Hello", max_tokens=3)
    assert isinstance(result, dict)
    assert isinstance(result["response"], str)


def test_official_client_runs_an_embedding_model(front: Front) -> None:
    with cloudflare(front) as client:
        result = client.ai.run("encoder", account_id=ACCOUNT, text=["one", "two"])
    assert isinstance(result, dict)
    assert result["shape"] == [2, WIDTH]


@pytest.mark.parametrize("model", ["@openworks/no-such", "@openworks%2Fno-such"])
def test_slashes_of_a_model_may_be_encoded(front: Front, model: str) -> None:
    answer = front.post(f"{AI}/run/{model}", {"prompt": "Hello"})
    assert "@openworks/no-such" in answer.json()["errors"][0]["message"]


def test_run_streams(front: Front) -> None:
    answer = front.post(f"{AI}/run/plain", {"prompt": "Hello", "stream": True, "max_tokens": 4})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '{"response":' in answer.text


def test_run_by_body_reaches_this_server_and_other_providers(front: Front) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    here = front.post(
        f"{AI}/run", {"model": "plain", "input": {"messages": messages, "max_tokens": 3}}
    ).json()
    assert here["success"] is True
    assert isinstance(here["result"]["response"], str)
    there = front.post(
        f"{AI}/run", {"model": "openai/mock-t3", "input": {"messages": messages}}
    ).json()
    assert there["result"]["state"] == "Completed"
    assert there["result"]["result"]["usage"]["completion_tokens"] == 3


def test_failed_run_keeps_the_providers_message(front: Front) -> None:
    front.provider.queue(Reply(status=429, body=b'{"error":{"message":"Slow down."}}'))
    answer = front.post(f"{AI}/run", {"model": "openai/mock", "input": {"messages": []}})
    assert answer.status_code == 429
    assert answer.json()["errors"] == [{"code": 10429, "message": "Slow down."}]


# The gateway `default` of an account holds for `/v1` too.


def test_plain_local_calls_stay_on_the_direct_way(front: Front) -> None:
    with openai_client(front, "/v1") as client:
        answer = client.chat.completions.with_raw_response.create(
            model="plain", messages=[{"role": "user", "content": "Hello"}], max_tokens=3
        )
    assert "cf-aig-log-id" not in answer.headers


def test_guards_of_the_default_gateway_hold_for_local_calls(guarded: Front) -> None:
    with openai_client(guarded, "/v1") as client:
        with pytest.raises(openai.APIStatusError) as blocked:
            ask(client, "plain", f"My card is {CARD}.")
        assert blocked.value.status_code in (400, 403, 424)
        assert blocked.value.code == "dlp_request"
        assert ask(client, "plain", "Hello") is not None


def test_default_gateways_cache_holds_once_it_is_on(guarded: Front) -> None:
    dlp = {"enabled": True, "action": "BLOCK", "profiles": ["financial"]}
    required = {"collect_logs": True, "cache_invalidate_on_update": False, "cache_ttl": 600}
    limits = {"rate_limiting_interval": 0, "rate_limiting_limit": 0}
    guarded.control("PUT", "/gateways/default", {**required, **limits, "dlp": dlp})

    def hits() -> bool:
        body = {"model": "plain", "messages": [{"role": "user", "content": "Again"}]}
        answer = guarded.post("/v1/chat/completions", {**body, "max_tokens": 3})
        return answer.headers.get("cf-aig-cache-status") == "HIT"

    wait_until(hits, what="a cache hit")
