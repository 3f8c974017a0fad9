"""Every model call leaves exactly one record, whatever the route and however it ends."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.api.asks import HELLO, NO_END
from tests.api.raw import Reply, ask, post
from tests.api.weights import TestModels
from tests.conftest import ClientFor, StartServer
from tests.server import ServerProcess

CHAT: dict[str, Any] = {
    "model": "talker",
    "messages": HELLO,
    "max_tokens": 4,
    "logit_bias": NO_END,
}
CHAT_ROUTE = "/v1/chat/completions"


@pytest.fixture
def fresh(start_server: StartServer, models: TestModels) -> ServerProcess:
    """A server without any record."""
    return start_server({"models": [str(models.encoder), str(models.talker)]})


@pytest.fixture
def fresh_client(fresh: ServerProcess, client_for: ClientFor) -> OpenAI:
    return client_for(fresh)


def samples(server: ServerProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The metrics by name and labels."""
    reply = ask(server, "GET", "/metrics")
    assert reply.status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_leaves_its_tokens_and_times(fresh: ServerProcess, stream: bool) -> None:
    reply = post(fresh, CHAT_ROUTE, {**CHAT, "stream": stream})

    (record,) = fresh.settled_records(1)
    assert record.id == reply.headers["x-request-id"]
    assert (record.route, record.model, record.deployment) == (CHAT_ROUTE, "talker", "talker")
    assert (record.stream, record.outcome, record.status) == (stream, "ok", 200)
    assert record.error_code is None
    assert record.usage.completion_tokens == 4
    assert record.usage.prompt_tokens == 24
    assert record.first_token_ms is not None
    assert 0 < record.first_token_ms <= record.duration_ms


def test_the_record_says_what_the_answer_said(fresh: ServerProcess, fresh_client: OpenAI) -> None:
    for _ in range(2):
        answer = fresh_client.chat.completions.create(**CHAT, n=3)

    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    usage = fresh.settled_records(2)[0].usage
    assert usage.completion_tokens == answer.usage.completion_tokens == 12
    assert usage.prompt_tokens == answer.usage.prompt_tokens
    assert usage.cached_tokens == answer.usage.prompt_tokens_details.cached_tokens
    assert usage.cached_tokens > 0


def test_usage_is_recorded_on_a_stream_that_does_not_send_it(
    fresh: ServerProcess, fresh_client: OpenAI
) -> None:
    list(fresh_client.chat.completions.create(**CHAT, stream=True))

    (record,) = fresh.settled_records(1)
    assert record.usage.completion_tokens == 4


def test_a_name_that_stands_for_another_is_recorded_with_both(fresh: ServerProcess) -> None:
    post(fresh, CHAT_ROUTE, {**CHAT, "model": "gpt-4o-mini"})

    (record,) = fresh.settled_records(1)
    assert (record.model, record.deployment) == ("gpt-4o-mini", "talker")


def test_every_way_to_a_model_leaves_one_record(fresh: ServerProcess) -> None:
    completion = {"model": "talker", "prompt": "Hello", "max_tokens": 2}
    embedding = {"model": "encoder", "input": ["Hello", "Bye"]}
    unknown, wrong = {"model": "nobody"}, {"model": "encoder"}
    asked: list[tuple[Reply, str, bool, str | None]] = [
        (post(fresh, CHAT_ROUTE, CHAT), CHAT_ROUTE, False, None),
        (post(fresh, CHAT_ROUTE, {**CHAT, "stream": True}), CHAT_ROUTE, True, None),
        (post(fresh, CHAT_ROUTE, {**CHAT, **unknown}), CHAT_ROUTE, False, "model_not_found"),
        (post(fresh, CHAT_ROUTE, {**CHAT, **wrong}), CHAT_ROUTE, False, "wrong_task"),
        (
            post(
                fresh, CHAT_ROUTE, {**CHAT, "messages": [{"role": "user", "content": "a" * 5000}]}
            ),
            CHAT_ROUTE,
            False,
            "context_length_exceeded",
        ),
        (
            post(fresh, CHAT_ROUTE, {**CHAT, "reasoning_effort": "low", "stream": True}),
            CHAT_ROUTE,
            True,
            "unsupported_parameter",
        ),
        (post(fresh, "/v1/completions", completion), "/v1/completions", False, None),
        (
            post(fresh, "/v1/completions", {**completion, "stream": True}),
            "/v1/completions",
            True,
            None,
        ),
        (
            post(fresh, "/v1/completions", {**completion, **unknown}),
            "/v1/completions",
            False,
            "model_not_found",
        ),
        (post(fresh, "/v1/embeddings", embedding), "/v1/embeddings", False, None),
        (
            post(fresh, "/v1/embeddings", {**embedding, "input": "a" * 5000}),
            "/v1/embeddings",
            False,
            "context_length_exceeded",
        ),
        (
            post(fresh, "/v1/rerank", {"model": "talker", "query": "a", "documents": ["b"]}),
            "/v1/rerank",
            False,
            "wrong_task",
        ),
    ]

    records = {record.id: record for record in fresh.settled_records(len(asked))}

    assert len(records) == len(fresh.records()) == len(asked)
    for reply, route, stream, code in asked:
        record = records[reply.headers["x-request-id"]]  # type: ignore[index] # an id is a string
        assert (record.route, record.stream, record.error_code) == (route, stream, code)
        assert record.status == reply.status
        assert record.outcome == ("error" if code else "ok")
        assert (record.usage.prompt_tokens > 0) is (code is None)
        assert record.duration_ms > 0


def test_several_prompts_leave_a_record_each(fresh: ServerProcess) -> None:
    body = {"model": "talker", "prompt": ["Hello", "Bye", "Hm"], "max_tokens": 2}

    reply = post(fresh, "/v1/completions", body)

    ids = {str(record.id) for record in fresh.settled_records(3)}
    first = reply.headers["x-request-id"]
    assert ids == {first, f"{first}-1", f"{first}-2"}


def test_what_reaches_no_model_leaves_no_record(fresh: ServerProcess) -> None:
    post(fresh, CHAT_ROUTE, b"{")
    post(fresh, CHAT_ROUTE, {**CHAT, "unknown": 1})
    ask(fresh, "GET", "/v1/models")
    ask(fresh, "GET", "/v1/nothing")
    post(fresh, CHAT_ROUTE, CHAT)

    assert len(fresh.settled_records(1)) == 1


def test_records_outlive_the_server(
    fresh: ServerProcess,
) -> None:
    for _ in range(5):
        post(fresh, CHAT_ROUTE, CHAT)

    assert fresh.stop() == 0

    assert len(fresh.records()) == 5


def test_metrics_carry_the_counts(fresh: ServerProcess) -> None:
    post(fresh, CHAT_ROUTE, CHAT)
    post(fresh, CHAT_ROUTE, {**CHAT, "stream": True})
    post(fresh, CHAT_ROUTE, {**CHAT, "model": "nobody"})
    post(fresh, "/v1/embeddings", {"model": "encoder", "input": "Hello"})

    found = samples(fresh)

    def value(name: str, **labels: str) -> float:
        own = {"provider": "workers-ai", "gateway": "default"}
        if name == "openworks_calls_total":
            own["cached"] = "false"
        return found[name, frozenset({**own, **labels}.items())]

    assert value("openworks_calls_total", route=CHAT_ROUTE, model="talker", outcome="ok") == 2
    assert value("openworks_calls_total", route=CHAT_ROUTE, model="unknown", outcome="error") == 1
    assert value("openworks_tokens_total", model="talker", kind="completion") == 8
    assert value("openworks_tokens_total", model="talker", kind="prompt") == 48
    assert value("openworks_tokens_total", model="encoder", kind="prompt") == 5
    assert value("openworks_first_token_seconds_count", route=CHAT_ROUTE, model="talker") == 2
    assert value("openworks_call_seconds_count", route="/v1/embeddings", model="encoder") == 1


def test_names_that_callers_make_up_are_no_labels(fresh: ServerProcess) -> None:
    for number in range(5):
        post(fresh, CHAT_ROUTE, {**CHAT, "model": f"made-up-{number}"})

    assert not any("made-up" in str(labels) for _, labels in samples(fresh))


def test_health_says_that_all_is_well(server: ServerProcess) -> None:
    assert server.get("/health") == (200, {"status": "ok"})


def test_ready_tells_of_every_loaded_model(server: ServerProcess) -> None:
    post(server, CHAT_ROUTE, CHAT)

    row = server.engines()["talker"]

    assert (row["state"], row["engine"], row["in_flight"], row["restarts"]) == (
        "ready",
        "llamacpp",
        0,
        0,
    )
    assert row["memory_bytes"] > 0
    assert row["load_s"] > 0


def test_prompts_and_answers_stay_out_of_the_log(fresh: ServerProcess) -> None:
    secret = "a most private matter"
    reply = post(fresh, CHAT_ROUTE, {**CHAT, "messages": [{"role": "user", "content": secret}]})
    post(fresh, CHAT_ROUTE, {**CHAT, "messages": [{"role": "user", "content": secret * 500}]})
    fresh.settled_records(2)

    log = fresh.log.read_text()
    assert reply.headers["x-request-id"] in log
    assert secret not in log
