"""The universal endpoint: steps, fallbacks, and whose setting counts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.gateway_server import TOKEN, Place, chat_body, message_body
from tests.gateway.stand_in import Reply


def _step(model: str, provider: str = "openai", **more: Any) -> dict[str, Any]:
    is_openai = provider != "anthropic"
    return {
        "provider": provider,
        "endpoint": "chat/completions" if is_openai else "v1/messages",
        "headers": {"authorization": f"Bearer sk-{provider}", "content-type": "application/json"},
        "query": chat_body(model) if is_openai else message_body(model),
        **more,
    }


def test_one_step_may_stand_alone_or_in_an_array(place: Place) -> None:
    for body in (_step("mock"), [_step("mock")]):
        answer = place.post("", body)
        assert answer.status_code == 200
        assert answer.json()["object"] == "chat.completion"
        assert answer.headers["cf-aig-step"] == "0"

    assert [r.path for r in place.provider.requests] == ["/v1/chat/completions"] * 2


def test_a_steps_query_is_sent_as_it_was_written(place: Place) -> None:
    query = '{ "model":"mock",\\n"messages" : [ ] , "x": 1.50 }'.replace("\\n", "\n")

    place.post(
        "", f'[{{"provider":"openai","endpoint":"chat/completions","query":{query}}}]'.encode()
    )

    assert place.provider.requests[0].body == query.encode()


def test_the_next_step_answers_when_one_fails(place: Place) -> None:
    steps = [_step("mock-x500"), _step("mock-x429", "groq"), _step("mock-t5-p9", "anthropic")]

    answer = place.post("", steps)

    assert answer.status_code == 200
    assert answer.json()["type"] == "message"
    assert answer.headers["cf-aig-step"] == "2"
    record = place.record_of(answer)
    assert (record.provider, record.model) == ("anthropic", "mock-t5-p9")
    assert (record.step, record.attempts) == (2, 3)
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (9, 5)
    assert (record.outcome, record.status) == ("ok", 200)


def test_every_error_status_leads_to_the_next_step(place: Place) -> None:
    for status in (400, 401, 403, 404, 422, 503):
        answer = place.post("", [_step(f"mock-x{status}"), _step("mock")])
        assert (answer.status_code, answer.headers["cf-aig-step"]) == (200, "1")


def test_a_step_that_takes_too_long_is_left(place: Place) -> None:
    slow = _step("mock-d5000", config={"requestTimeout": 100})

    answer = place.post("", [slow, _step("mock")])

    assert answer.headers["cf-aig-step"] == "1"
    assert answer.elapsed.total_seconds() < 4


def test_the_last_answer_is_told_when_every_step_fails(place: Place) -> None:
    answer = place.post("", [_step("mock-x500"), _step("mock-x418")])

    assert answer.status_code == 418
    assert answer.json()["error"]["message"] == "mock 418"
    assert place.record_of(answer).status == 418


def test_each_step_is_sent_its_own_headers_and_no_others(place: Place) -> None:
    place.post("", [_step("mock-x500"), _step("mock", "groq")], headers={"x-outer": "1"})

    first, second = place.provider.requests
    assert first.header("authorization") == "Bearer sk-openai"
    assert second.header("authorization") == "Bearer sk-groq"
    for request in (first, second):
        assert request.header("x-outer") is None
        assert TOKEN.encode() not in b"".join(value for _, value in request.headers)


def test_steps_without_a_key_use_the_stored_one(place: Place) -> None:
    place.make("gw")
    place.keep_credential("sk-stored")
    bare = {"provider": "openai", "endpoint": "chat/completions", "query": chat_body()}

    assert place.post("", bare, gateway="gw").status_code == 200

    assert place.provider.requests[0].header("authorization") == "Bearer sk-stored"


def test_a_steps_config_goes_before_headers_and_those_before_the_gateway(place: Place) -> None:
    place.make("gw", retry_max_attempts=2, retry_delay=0)
    attempts: list[int] = []
    for headers, config in (
        ({}, {}),
        ({"cf-aig-max-attempts": "3"}, {}),
        ({"cf-aig-max-attempts": "3"}, {"maxAttempts": 4}),
    ):
        place.provider.clear()
        place.provider.queue(*[Reply(status=502, body=b"{}")] * 5)
        model = f"mock-{len(attempts)}"
        place.post("", [_step(model, config=config)], gateway="gw", headers=headers)
        attempts.append(len(place.provider.requests))

    assert attempts == [2, 3, 4]


def test_fallback_streams_come_as_streams(place: Place) -> None:
    stream = _step("mock-t3", "anthropic")
    stream["query"]["stream"] = True

    answer = place.post("", [_step("mock-x500"), stream])

    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.endswith('data: {"type":"message_stop"}\n\n')
    assert place.record_of(answer).stream


def test_a_stream_that_breaks_before_content_falls_back(place: Place) -> None:
    broken, good = _step("mock-k1", "anthropic"), _step("mock-t3")
    broken["query"]["stream"] = good["query"]["stream"] = True
    good["query"]["stream_options"] = {"include_usage": True}

    answer = place.post("", [broken, good])

    assert answer.headers["cf-aig-step"] == "1"
    assert b"message_start" not in answer.content
    assert answer.text.endswith("data: [DONE]\n\n")
    record = place.record_of(answer)
    assert (record.provider, record.usage.completion_tokens) == ("openai", 3)
    assert (record.outcome, record.attempts) == ("ok", 2)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"[]", "1 to 20"),
        (b'{"endpoint": "x"}', "provider"),
        (b'[{"provider": "openai", "config": {"maxAttempts": 9}}]', "maxAttempts"),
        (b'[{"provider": "openai", "config": {"nosuch": 9}}]', "[0].config.nosuch"),
        (b'"text"', "array of steps"),
    ],
)
def test_bodies_without_sense_are_refused_by_name(place: Place, body: bytes, shown: str) -> None:
    answer = place.post("", body)

    assert answer.status_code == 400
    assert shown in answer.json()["message"]
    assert not place.provider.requests


def test_a_step_cannot_smuggle_headers(place: Place) -> None:
    step = _step("mock")
    step["headers"]["x-bad"] = "a\r\nx-evil: 1"

    answer = place.post("", step)

    assert answer.status_code == 400
    assert not place.provider.requests


def test_a_step_may_be_of_openais_shape_for_any_provider(place: Place) -> None:
    place.make("gw")
    place.keep_credential("sk-ant", provider="anthropic")
    steps = [
        {"provider": "compat", "endpoint": "chat/completions", "query": chat_body(model)}
        for model in ("groq/mock-x500", "anthropic/mock-t3")
    ]

    answer = place.post("", steps, gateway="gw")

    assert answer.json()["choices"][0]["message"]["content"] == "lorem ipsum dolor sit amet"
    assert answer.headers["cf-aig-step"] == "1"
    paths = [request.path for request in place.provider.requests]
    assert paths == ["/groq/v1/chat/completions", "/v1/messages"]


def test_a_dynamic_route_may_be_the_only_step(place: Place) -> None:
    place.make("gw")
    model = {
        "id": "m",
        "type": "model",
        "properties": {"provider": "groq", "model": "mock-t3"},
        "outputs": {"success": {"elementId": "end"}},
    }
    start = {"id": "start", "type": "start", "outputs": {"next": {"elementId": "m"}}}
    place.make_route([start, model, {"id": "end", "type": "end", "outputs": {}}])
    step = {"provider": "compat", "endpoint": "chat/completions", "query": chat_body("dynamic/r")}

    alone = place.post("", [step], gateway="gw")
    beside = place.post("", [step, _step("mock")], gateway="gw")

    assert alone.headers["cf-aig-model"] == "mock-t3"
    assert beside.status_code == 400
    assert "only step" in beside.json()["message"]
