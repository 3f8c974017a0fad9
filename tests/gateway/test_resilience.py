"""Retries, fallbacks, circuit breakers, hedging, and streams that break."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.gateway.gateway_server import Place, chat_body, message_body
from tests.gateway.stand_in import Reply, Request, Tokens, anthropic_stream, chat_stream

_FAST = {"cf-aig-max-attempts": "3", "cf-aig-retry-delay": "1"}


@pytest.fixture
def rested(place: Place) -> Place:
    """Retries are a share of the traffic; here they shall not have to wait for some."""
    for _ in range(40):
        place.chat("mock-rest")
    place.provider.clear()
    return place


def _failing(status: int = 503, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(status=status, body=b'{"error":{}}', headers=headers)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_call_is_made_again_after_an_error_that_may_pass(rested: Place, status: int) -> None:
    rested.provider.queue(_failing(status), _failing(status))

    answer = rested.chat(f"mock-again-{status}", headers=_FAST)

    assert answer.status_code == 200
    assert len(rested.provider.requests) == 3
    record = rested.record_of(answer)
    assert (record.attempts, record.step, record.outcome) == (3, 0, "ok")
    bodies = {request.body for request in rested.provider.requests}
    assert len(bodies) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_call_is_not_made_again_after_an_error_that_stays(place: Place, status: int) -> None:
    place.provider.queue(_failing(status))

    answer = place.chat(f"mock-stays-{status}", headers=_FAST)

    assert answer.status_code == status
    assert len(place.provider.requests) == 1


def test_without_a_policy_nothing_is_asked_twice(place: Place) -> None:
    place.provider.queue(_failing())

    assert place.chat("mock-once").status_code == 503
    assert len(place.provider.requests) == 1


def test_a_reset_before_the_answer_is_retried(rested: Place) -> None:
    broken = Reply(cut_after_bytes=9, reset=True)
    rested.provider.queue(broken, broken)

    answer = rested.chat("mock-reset", headers=_FAST)

    assert answer.status_code == 200
    assert rested.record_of(answer).attempts == 3


def test_retry_after_is_waited_out(rested: Place) -> None:
    rested.provider.queue(_failing(429, (("retry-after-ms", "400"),)))

    answer = rested.chat("mock-later", headers=_FAST)

    assert answer.status_code == 200
    assert 0.38 < answer.elapsed.total_seconds() < 3


def test_a_retry_after_of_hours_is_told_and_not_waited_for(place: Place) -> None:
    place.provider.queue(_failing(429, (("retry-after", "7200"),)))

    answer = place.chat("mock-much-later", headers=_FAST)

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7200"
    assert len(place.provider.requests) == 1


def test_a_stream_that_breaks_before_content_is_asked_for_again(rested: Place) -> None:
    rested.provider.queue(
        Reply(
            headers=(("content-type", "text/event-stream"),),
            chunks=[b": wait\n\n", b""],
            cut_after_chunks=1,
            reset=True,
        )
    )

    answer = rested.chat("mock-begin", stream=True, headers=_FAST)

    assert answer.text.endswith("data: [DONE]\n\n")
    assert b"wait" not in answer.content
    assert b"error" not in answer.content
    assert rested.record_of(answer).attempts == 2


def test_after_content_nothing_is_asked_again_and_the_stream_says_that_it_broke(
    place: Place,
) -> None:
    body = chat_body("mock-k5-t30", stream=True)
    answer = place.post("openai/chat/completions", body, headers=_FAST)

    assert answer.status_code == 200
    assert len(place.provider.requests) == 1
    events = [e for e in answer.text.split("\n\n") if e]
    last = json.loads(events[-1].removeprefix("data: "))
    assert len(events) == 6
    assert last["error"]["code"] == "upstream_failed"
    assert "[DONE]" not in answer.text
    record = place.record_of(answer)
    assert (record.outcome, record.status, record.error_code) == ("error", 502, "upstream_failed")
    assert record.estimated
    assert 0 < record.usage.completion_tokens < 30


def test_a_broken_anthropic_stream_ends_with_its_own_kind_of_error(place: Place) -> None:
    answer = place.post("anthropic/messages", message_body("mock-k5-t30", stream=True))

    events = [e for e in answer.text.split("\n\n") if e]
    name, data = events[-1].split("\n")
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))
    assert error["type"] == "error"
    assert error["error"]["message"]
    assert place.record_of(answer).outcome == "error"


_CUT_EVERY_BYTES = 1 if os.environ.get("SOAK") else 13


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_stream_cut_at_any_byte_ends_with_an_error_that_a_client_can_read(
    place: Place, kind: str
) -> None:
    """The caller gets the lines that came whole, and one error event that stands alone."""
    tokens = Tokens(model="mock", prompt=3, completion=4)
    reply = chat_stream(tokens) if kind == "openai" else anthropic_stream(tokens)
    whole = b"".join(reply.chunks or ())
    path = "openai/chat/completions" if kind == "openai" else "anthropic/messages"
    last_line = whole.rstrip().rfind(b"data:")
    offsets = range(1, len(whole), _CUT_EVERY_BYTES)

    for number, at in enumerate(offsets):
        is_reset = number % 2 == 0
        place.provider.queue(
            Reply(
                headers=reply.headers, chunks=[whole[:at], b""], cut_after_chunks=1, reset=is_reset
            )
        )
        answer = place.post(path, message_body(f"mock-cut-{kind}-{at}", stream=True))
        assert answer.status_code == 200
        blocks = [block for block in answer.content.split(b"\n\n") if block.strip()]
        data = [
            json.loads(line[5:])
            for block in blocks
            for line in block.split(b"\n")
            if line.startswith(b"data:") and b"[DONE]" not in line
        ]  # every line is whole
        if at <= last_line:
            assert "error" in data[-1], (at, data[-1])
            assert not any("error" in each for each in data[:-1])
        if not is_reset and at <= last_line:  # a reset may overtake what was sent
            came = whole[: whole.rfind(b"\n", 0, at) + 1]
            assert answer.content.startswith(came), at
    records = place.records(len(offsets))
    assert len(records) == len(offsets)
    broken = [record for record in records if record.outcome == "error"]
    assert len(broken) >= sum(at <= last_line for at in offsets)


def test_an_ill_provider_is_skipped_while_another_step_is_there(place: Place) -> None:
    def step(model: str) -> dict[str, Any]:
        return {"provider": "openai", "endpoint": "chat/completions", "query": chat_body(model)}

    steps = [step("mock-x500-ill"), step("mock-well")]
    answers = [place.post("", steps) for _ in range(20)]

    assert all(answer.status_code == 200 for answer in answers)
    asked = [request.model for request in place.provider.requests]
    assert asked.count("mock-x500-ill") == 10
    assert asked.count("mock-well") == 20
    assert answers[-1].headers["cf-aig-step"] == "1"
    assert place.record_of(answers[-1]).attempts == 1


def test_the_illness_of_one_callers_key_is_nothing_to_another_caller(place: Place) -> None:
    def ask(key: str) -> httpx2.Response:
        steps = [
            {
                "provider": "openai",
                "endpoint": "chat/completions",
                "headers": {"authorization": f"Bearer {key}"},
                "query": chat_body("mock-of-two"),
            },
            {"provider": "groq", "endpoint": "chat/completions", "query": chat_body("mock-well")},
        ]
        return place.post("", steps)

    def only_good_keys(request: Request) -> Reply:
        bad = request.header("authorization") == "Bearer sk-bad"
        return _failing(500) if bad else Reply(body=b'{"ok":1}')

    place.provider.script(only_good_keys)
    for _ in range(12):
        ask("sk-bad")

    assert ask("sk-good").headers["cf-aig-step"] == "0"
    assert ask("sk-bad").headers["cf-aig-step"] == "1"


def test_an_ill_provider_without_an_alternative_is_still_asked(place: Place) -> None:
    for _ in range(15):
        assert place.chat("mock-x500-alone").status_code == 500

    assert len(place.provider.requests) == 15


def test_a_slow_first_answer_is_hedged_by_a_second_question(rested: Place) -> None:
    rested.make("gw", hedge_after_ms=50)
    rested.provider.queue(Reply(body=b'{"slow": 1}', delay_s=3.0), Reply(body=b'{"fast": 1}'))

    answer = rested.chat("mock-hedged", gateway="gw")

    assert answer.content == b'{"fast": 1}'
    assert answer.elapsed.total_seconds() < 2.5
    assert rested.record_of(answer).attempts == 2
    deadline_s = time.monotonic() + 5
    while rested.provider.counters.aborted == 0:
        assert time.monotonic() < deadline_s, "the slow question was not taken back"
        time.sleep(0.01)


def test_a_quick_answer_is_not_hedged(place: Place) -> None:
    place.make("gw", hedge_after_ms=2000)

    assert place.chat("mock-quick", gateway="gw").status_code == 200
    assert len(place.provider.requests) == 1


def test_equal_credentials_share_the_load_and_a_retry_takes_another(rested: Place) -> None:
    rested.make("gw", byok_only=True)
    for name in ("a", "b"):
        rested.keep_credential(f"sk-{name}", alias=name, default=name == "a")

    def only_b(request: Request) -> Reply:
        bad = request.header("authorization") == "Bearer sk-a"
        return _failing(500) if bad else Reply(body=b'{"ok":1}')

    rested.provider.script(only_b)
    headers = {"cf-aig-byok-alias": "a,b", **_FAST}
    answers = [rested.chat("mock-equals", gateway="gw", headers=headers) for _ in range(20)]

    assert all(answer.status_code == 200 for answer in answers)
    shown = [request.header("authorization") for request in rested.provider.requests]
    assert shown.count("Bearer sk-b") == 20
    assert shown.count("Bearer sk-a") < 20


@pytest.mark.parametrize(("model", "stream"), [("mock-h", False), ("mock-c50-t500", True)])
def test_a_caller_that_leaves_ends_the_call_at_the_provider(
    place: Place, model: str, stream: bool
) -> None:
    with (
        suppress(httpx2.ReadTimeout),
        place.server.http.stream(
            "POST",
            place.url("openai/chat/completions"),
            json=chat_body(model, stream=stream),
            headers=place.headers(),
            timeout=0.3,
        ) as answer,
    ):
        next(answer.iter_raw())

    deadline_s = time.monotonic() + 5
    while place.provider.counters.aborted == 0:
        assert time.monotonic() < deadline_s, "it still runs at the provider"
        time.sleep(0.01)
    (record,) = place.records(1)
    assert (record.outcome, record.status) == ("client_closed", 499)
