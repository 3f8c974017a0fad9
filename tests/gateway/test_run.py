"""`run`: every model by one body, and Workers AI's own paths on this server's models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.weights import WIDTH, TestModels
from tests.gateway.fronts import Front, open_front, route_to
from tests.gateway.stand_in import Reply

HELLO = [{"role": "user", "content": "Hello"}]
GATEWAY = "/gateway/v1/default/default"


@pytest.fixture(scope="module")
def front(models: TestModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with open_front(tmp_path_factory.mktemp("run"), models) as opened:
        opened.get("/gateway/v1/default/default/compat/models")  # makes the gateway
        opened.keep_credential("openai")
        opened.keep_credential("anthropic")
        yield opened


def events_of(body: bytes) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    return [line if line == b"[DONE]" else json.loads(line) for line in lines]


@pytest.mark.parametrize("path", ["run/plain", "run%2Fplain"])
def test_text_model_answers_in_workers_ais_envelope(front: Front, path: str) -> None:
    answer = front.post(f"{GATEWAY}/workers-ai/{path}", {"prompt": "Hello", "max_tokens": 5})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["success"], body["errors"], body["messages"]) == (True, [], [])
    assert isinstance(body["result"]["response"], str)
    assert body["result"]["usage"]["completion_tokens"] <= 5
    assert answer.headers["cf-aig-log-id"]


def test_run_is_recorded_with_the_models_own_count(front: Front) -> None:
    answer = front.post(f"{GATEWAY}/workers-ai/run/plain", {"prompt": "Hi", "max_tokens": 4})
    record = front.process.record_of(answer.headers["cf-aig-log-id"])
    assert record.provider == "workers-ai"
    assert record.usage.completion_tokens == answer.json()["result"]["usage"]["completion_tokens"]
    assert record.usage.prompt_tokens == answer.json()["result"]["usage"]["prompt_tokens"] > 0
    assert record.deployment == "plain"


@pytest.mark.parametrize("shown", ["Bearer none", "Bearer a-cloudflare-token"])
def test_token_of_another_house_still_means_this_servers_models(front: Front, shown: str) -> None:
    headers = {"authorization": shown}
    native = front.post(f"{GATEWAY}/workers-ai/run/plain", {"prompt": "Hi"}, headers)
    assert native.json()["success"] is True
    body = {"model": "workers-ai/plain", "messages": HELLO, "max_tokens": 2}
    assert front.post(f"{GATEWAY}/compat/chat/completions", body, headers).status_code == 200


def test_text_model_streams_lines_of_response(front: Front) -> None:
    body = {"messages": HELLO, "stream": True, "max_tokens": 6}
    answer = front.post(f"{GATEWAY}/workers-ai/run/plain", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, usage, done = events_of(answer.content)
    assert done == b"[DONE]"
    assert all(set(event) == {"response"} for event in events)
    assert usage["usage"]["completion_tokens"] <= 6


def test_embedding_model_gives_shape_and_data(front: Front) -> None:
    answer = front.post(f"{GATEWAY}/workers-ai/run/encoder", {"text": ["one", "two"]})
    result = answer.json()["result"]
    assert result["shape"] == [2, WIDTH]
    assert [len(vector) for vector in result["data"]] == [WIDTH, WIDTH]


def test_unknown_model_is_workers_ais_own_error(front: Front) -> None:
    answer = front.post(f"{GATEWAY}/workers-ai/@cf/no%2Fsuch-model", {"prompt": "Hello"})
    assert answer.status_code == 400
    body = answer.json()
    assert body["success"] is False
    assert body["errors"][0]["code"] == 5007
    assert "@cf/no/such-model" in body["errors"][0]["message"]


def test_field_that_cannot_be_honoured_is_named(front: Front) -> None:
    answer = front.post(f"{GATEWAY}/workers-ai/run/plain", {"prompt": "Hi", "best_of": 2})
    assert answer.status_code == 400
    assert "best_of" in answer.json()["errors"][0]["message"]


def test_run_endpoint_answers_completed(front: Front) -> None:
    body = {"model": "plain", "input": {"prompt": "Hello", "max_tokens": 3}}
    answer = front.post(f"{GATEWAY}/run", body).json()
    assert (answer["state"], answer["provider"], answer["model"]) == (
        "Completed",
        "workers-ai",
        "plain",
    )
    assert isinstance(answer["result"]["response"], str)


def test_run_endpoint_asks_another_provider_with_the_stored_key(front: Front) -> None:
    body = {"model": "openai/mock-t3", "input": {"messages": HELLO, "max_tokens": 9}}
    answer = front.post(f"{GATEWAY}/run", body).json()
    assert (answer["state"], answer["provider"], answer["model"]) == (
        "Completed",
        "openai",
        "mock-t3",
    )
    assert answer["result"]["usage"]["completion_tokens"] == 3
    asked = front.provider.requests[-1]
    assert (asked.path, asked.model) == ("/v1/chat/completions", "mock-t3")
    assert asked.header("authorization") == "Bearer sk-the-stored-one"
    assert asked.json()["max_tokens"] == 9


def test_run_endpoint_speaks_anthropics_own_schema(front: Front) -> None:
    body = {
        "model": "mock-t3",
        "provider": "anthropic",
        "input": {"messages": HELLO, "max_tokens": 9},
    }
    answer = front.post(f"{GATEWAY}/run", body).json()
    assert answer["result"]["type"] == "message"
    assert front.provider.requests[-1].path == "/v1/messages"


def test_run_endpoint_streams_as_the_provider_does(front: Front) -> None:
    body = {"model": "openai/mock-t4", "input": {"messages": HELLO, "stream": True}}
    answer = front.post(f"{GATEWAY}/run", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events_of(answer.content)[-1] == b"[DONE]"


def test_failed_run_says_the_providers_code_and_message(front: Front) -> None:
    front.provider.queue(
        Reply(status=418, body=b'{"error":{"code":"teapot","message":"Short and stout."}}')
    )
    answer = front.post(f"{GATEWAY}/run", {"model": "openai/m", "input": {"messages": HELLO}})
    assert answer.status_code == 418
    assert answer.json() == {
        "state": "Failed",
        "error": {"code": "teapot", "message": "Short and stout."},
        "provider": "openai",
        "model": "m",
    }


def test_run_names_the_model_that_a_route_chose(front: Front) -> None:
    body = {"name": "r", "elements": route_to("openai", "mock-routed-t2")}
    front.control("POST", "/gateways/default/routes", body)
    answer = front.post(f"{GATEWAY}/run", {"model": "dynamic/r", "input": {"messages": HELLO}})
    told = answer.json()
    assert (told["state"], told["provider"], told["model"]) == (
        "Completed",
        "openai",
        "mock-routed-t2",
    )


def test_blocked_run_has_runs_own_status_and_number(front: Front) -> None:
    front.make("guarded", dlp={"enabled": True, "action": "BLOCK", "profiles": ["financial"]})
    words = {"prompt": "My card is 4111 1111 1111 1111."}
    body = {"model": "plain", "input": words}
    answer = front.post("/gateway/v1/default/guarded/run", body)
    assert answer.status_code == 422
    assert answer.json()["state"] == "Failed"
    assert answer.json()["error"]["code"] == 2017


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input": {"prompt": "x"}}, "model"),
        ({"model": "openai/m"}, "input"),
        ({"model": "openai/m", "input": {"text": "x"}}, "input"),
    ],
)
def test_run_without_sense_is_refused_by_name(
    front: Front, body: dict[str, Any], named: str
) -> None:
    answer = front.post(f"{GATEWAY}/run", body)
    assert answer.status_code == 400
    assert named in answer.json()["error"][0]["message"]


def test_run_takes_post_alone(front: Front) -> None:
    assert front.get(f"{GATEWAY}/run").status_code == 405
