"""Dynamic routes: which model answers, and who decided."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import httpx2
import pytest

from tests.gateway.gateway_server import Place, chat_body


def _to(target: str) -> dict[str, str]:
    return {"elementId": target}


def _start(target: str) -> dict[str, Any]:
    return {"id": "start", "type": "start", "outputs": {"next": _to(target)}}


_END: dict[str, Any] = {"id": "end", "type": "end", "outputs": {}}


def _model(
    name: str, model: str, *, fallback: str | None = None, provider: str = "openai", **more: Any
) -> dict[str, Any]:
    outputs = {"success": _to("end")} | ({"fallback": _to(fallback)} if fallback else {})
    return {
        "id": name,
        "type": "model",
        "properties": {"provider": provider, "model": model, "timeout": 60_000, "retries": 0}
        | more,
        "outputs": outputs,
    }


def _ask(place: Place, *, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
    return place.post(
        "compat/chat/completions",
        chat_body("dynamic/r", **more),
        gateway="gw",
        headers=headers,
    )


@pytest.mark.parametrize("spelling", ["condition", "conditions"])
def test_a_condition_chooses_the_model(place: Place, spelling: str) -> None:
    place.make()
    place.make_route(
        [
            _start("by-plan"),
            {
                "id": "by-plan",
                "type": "conditional",
                "properties": {spelling: {"metadata.plan": {"$eq": "paid"}}},
                "outputs": {"true": _to("large"), "false": _to("small")},
            },
            _model("large", "mock-large"),
            _model("small", "mock-small"),
            _END,
        ]
    )

    paid = _ask(place, headers={"cf-aig-metadata": '{"plan":"paid"}'})
    free = _ask(place)

    assert paid.headers["cf-aig-model"] == "mock-large"
    assert free.headers["cf-aig-model"] == "mock-small"
    assert paid.headers["cf-aig-provider"] == "openai"
    assert [r.model for r in place.provider.requests] == ["mock-large", "mock-small"]
    record = place.record_of(paid)
    assert record.model == "mock-large"
    assert (record.routed_by or "").startswith("r@")


def test_a_split_sticks_to_its_session_and_spreads_over_sessions(place: Place) -> None:
    place.make()
    place.make_route(
        [
            _start("split"),
            {
                "id": "split",
                "type": "percentage",
                "outputs": {"30%": _to("a"), "else": _to("b")},
            },
            _model("a", "mock-a"),
            _model("b", "mock-b"),
            _END,
        ]
    )

    def of(session: int) -> str:
        headers = {"cf-aig-session-id": f"session-{session}"}
        model: str = _ask(place, headers=headers).headers["cf-aig-model"]
        return model

    chosen = [of(session) for session in range(200)]

    assert chosen[:30] == [of(session) for session in range(30)]
    assert 35 <= Counter(chosen)["mock-a"] <= 85


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("rate", {"limitType": "count", "window": 600}),
        ("rate_limit", {"limit_type": "count", "interval": 600, "technique": "sliding"}),
    ],
)
def test_over_its_rate_a_route_takes_the_other_way(
    place: Place, kind: str, properties: dict[str, Any]
) -> None:
    place.make()
    place.make_route(
        [
            _start("rate"),
            {
                "id": "rate",
                "type": kind,
                "properties": {"key": "metadata.user", "limit": 2, **properties},
                "outputs": {"success": _to("good"), "fallback": _to("cheap")},
            },
            _model("good", "mock-good"),
            _model("cheap", "mock-cheap"),
            _END,
        ]
    )

    def of(user: str) -> str:
        answer = _ask(place, headers={"cf-aig-metadata": f'{{"user":"{user}"}}'})
        model: str = answer.headers["cf-aig-model"]
        return model

    good, cheap = "mock-good", "mock-cheap"
    assert [of(user) for user in "aaabb"] == [good, good, cheap, good, good]


def test_over_its_rate_a_route_without_another_way_is_a_429(place: Place) -> None:
    place.make()
    place.make_route(
        [
            _start("rate"),
            {
                "id": "rate",
                "type": "rate",
                "properties": {"limitType": "count", "key": "", "limit": 1, "window": 600},
                "outputs": {"success": _to("only")},
            },
            _model("only", "mock"),
            _END,
        ]
    )

    assert _ask(place).status_code == 200
    refused = _ask(place)
    assert (refused.status_code, refused.json()["internalCode"]) == (429, 2003)
    assert "retry-after" in refused.headers
    assert place.record_of(refused).status == 429


def test_a_models_fallback_answers_when_it_fails(place: Place) -> None:
    place.make()
    place.make_route(
        [
            _start("first"),
            _model("first", "mock-x500", fallback="slow", retries=1),
            _model("slow", "mock-d9000", fallback="last", timeout=100),
            _model("last", "mock-t4-p6", provider="groq"),
            _END,
        ]
    )

    answer = _ask(place)

    assert answer.status_code == 200
    assert answer.headers["cf-aig-model"] == "mock-t4-p6"
    assert (answer.headers["cf-aig-provider"], answer.headers["cf-aig-step"]) == ("groq", "2")
    record = place.record_of(answer)
    assert (record.step, record.attempts) == (2, 4)
    assert record.usage.completion_tokens == 4


def test_the_last_answer_is_told_when_every_model_fails(place: Place) -> None:
    place.make()
    place.make_route(
        [
            _start("first"),
            _model("first", "mock-x500", fallback="last"),
            _model("last", "mock-x503"),
            _END,
        ]
    )

    answer = _ask(place)

    assert answer.status_code == 503
    assert place.record_of(answer).outcome == "error"


def test_routed_streams_come_as_streams(place: Place) -> None:
    place.make()
    place.make_route(
        [
            _start("first"),
            _model("first", "mock-k0-t9", fallback="last", provider="groq"),
            _model("last", "mock-t3"),
            _END,
        ]
    )

    answer = _ask(place, stream=True, stream_options={"include_usage": True})

    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    record = place.record_of(answer)
    assert record.stream
    assert record.outcome == "ok"


def test_a_new_version_answers_once_it_is_deployed(place: Place) -> None:
    place.make()
    route = place.make_route([_start("only"), _model("only", "mock-one"), _END])
    path = f"/gateways/gw/routes/{route['id']}"
    version = place.server.control(
        "POST",
        f"{path}/versions",
        {"elements": [_start("only"), _model("only", "mock-two"), _END]},
        account=place.account,
    )
    assert _ask(place).headers["cf-aig-model"] == "mock-one"

    place.server.control(
        "POST",
        f"{path}/deployments",
        {"version_id": version["version_id"]},
        account=place.account,
    )

    deadline_s = time.monotonic() + 3
    while _ask(place).headers["cf-aig-model"] != "mock-two":
        assert time.monotonic() < deadline_s


def test_a_route_that_does_not_exist_is_a_404(place: Place) -> None:
    place.make()

    answer = _ask(place)

    assert answer.status_code == 404
    assert "'r'" in answer.json()["message"]


def test_stored_credentials_serve_routed_calls(place: Place) -> None:
    place.make(byok_only=True)
    place.keep_credential("sk-stored")
    place.make_route([_start("only"), _model("only", "mock"), _END])

    assert _ask(place).status_code == 200
    assert place.provider.requests[0].header("authorization") == "Bearer sk-stored"
