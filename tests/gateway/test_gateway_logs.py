"""Logs, exports, figures, datasets and evaluations of real calls, through the official client."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]  # ships no types
import pytest
from cloudflare import BadRequestError, Cloudflare, NotFoundError

from tests.gateway.gateway_server import TOKEN, Place
from tests.server import wait_until

GATEWAY = "gw"


@dataclass(frozen=True, slots=True)
class Desk:
    """An account with three calls: two good ones, of which the second is larger, and a failure."""

    place: Place
    client: Cloudflare
    ids: tuple[str, str, str]

    @property
    def account(self) -> str:
        return self.place.account

    @property
    def where(self) -> dict[str, Any]:
        """The gateway, as the client wants it named."""
        return {"account_id": self.account, "gateway_id": GATEWAY}

    def found(self, **params: Any) -> list[str]:
        """The ids that a list with these parameters finds."""
        logs = self.client.ai_gateway.logs.list(GATEWAY, account_id=self.account, **params)
        return [item.id for item in logs]

    def get(self, path: str) -> Any:
        """Ask for something that the client does not know."""
        url = f"{self.place.server.url}/client/v4/accounts/{self.account}/ai-gateway{path}"
        return self.place.server.http.get(url, headers={"authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def desk(place: Place) -> Iterator[Desk]:
    place.make(GATEWAY)
    answers = [
        place.chat("mock-a", gateway=GATEWAY, headers={"cf-aig-metadata": '{"team": "blue"}'}),
        place.chat(
            "mock-b",
            gateway=GATEWAY,
            headers={
                "cf-aig-metadata": '{"team": "red", "paid": true, "n": 12}',
                "cf-aig-custom-cost": '{"total_cost": 0.5}',
                "cf-aig-event-id": "event-7",
            },
        ),
        place.post("no-such-provider/chat", {}, gateway=GATEWAY),
    ]
    place.records(3)
    client = Cloudflare(
        base_url=f"{place.server.url}/client/v4", api_token=TOKEN, max_retries=0, timeout=60.0
    )
    with client:
        ids = tuple(answer.headers["cf-aig-log-id"] for answer in answers)
        yield Desk(place, client, ids)  # type: ignore[arg-type]  # there are three


def test_logs_come_newest_first_with_the_fields_of_the_client(desk: Desk) -> None:
    logs = desk.client.ai_gateway.logs.list(GATEWAY, account_id=desk.account, per_page=2)
    first, second, third = logs  # over two pages

    assert (third.id, second.id, first.id) == desk.ids
    assert (second.provider, second.model, second.path) == (
        "openai",
        "mock-b",
        "chat/completions",
    )
    assert (second.success, second.cached, second.status_code, second.step) == (True, False, 200, 0)
    assert (second.cost, second.custom_cost) == (0.5, True)
    assert second.tokens_in
    assert second.duration >= 0
    assert json.loads(second.metadata or "") == {"team": "red", "paid": True, "n": 12}
    assert (first.success, first.metadata) == (False, None)


def test_every_simple_filter_finds_what_it_says(desk: Desk) -> None:
    a, b, failed = desk.ids

    assert desk.found(success=True) == [b, a]
    assert desk.found(success=False) == [failed]
    assert desk.found(cached=True) == []
    assert desk.found(model="mock-a") == [a]
    assert desk.found(provider="openai") == [b, a]
    assert desk.found(min_cost=0.4) == [b]
    assert desk.found(max_cost=0.4) == [failed, a]
    assert desk.found(min_tokens_in=1) == [b, a]
    assert desk.found(max_total_tokens=0) == [failed]
    assert desk.found(search="MOCK-B") == [b]
    assert desk.found(request_content_type="application/json", model="mock-a") == [a]
    assert desk.found(start_date="2026-01-01T00:00:00Z", end_date="2026-01-02T00:00:00Z") == []
    assert desk.found(order_by="model", order_by_direction="asc", success=True) == [a, b]
    assert desk.found(order_by="model_type", direction="desc")[0] == failed


def test_flattened_filters_are_put_together_by_position(desk: Desk) -> None:
    a, b, failed = desk.ids

    def found(*filters: tuple[str, str, list[Any]]) -> list[str]:
        given: Any = [
            {"key": key, "operator": operator, "value": value} for key, operator, value in filters
        ]
        return desk.found(filters=given)

    assert found(("cost", "gt", [0.1]), ("model", "eq", ["mock-b"])) == [b]
    assert found(("cost", "gt", [0.1]), ("model", "eq", ["mock-a"])) == []
    assert found(("model", "eq", ["mock-a", "mock-b"])) == [b, a]
    assert found(("model", "neq", ["mock-a"]), ("success", "eq", [True])) == [b]
    assert found(("metadata.key", "eq", ["paid"])) == [b]
    assert found(("metadata.value", "eq", ["blue"])) == [a]
    assert found(("metadata.value", "eq", [True])) == [b]
    assert found(("metadata.value", "gt", [11])) == [b]
    assert found(("event_id", "contains", ["ent-7"])) == [b]
    assert found(("id", "eq", [failed])) == [failed]
    assert found(("created_at", "gt", ["2026-01-01T00:00:00Z"]), ("tokens", "lt", [1])) == [failed]


def test_filters_beside_each_other_keep_several_values(desk: Desk) -> None:
    a, b, _ = desk.ids
    query = (
        "filters.key=model&filters.operator=eq&filters.value=mock-a&filters.value=mock-b"
        "&filters.key=success&filters.operator=eq&filters.value=true"
    )

    rows = desk.get(f"/gateways/{GATEWAY}/logs?{query}").json()["result"]

    assert [row["id"] for row in rows] == [b, a]


def test_filter_that_makes_no_sense_is_refused_by_name(desk: Desk) -> None:
    with pytest.raises(BadRequestError, match="user_agent"):
        desk.found(filters=[{"key": "user_agent", "operator": "eq", "value": ["x"]}])
    with pytest.raises(BadRequestError, match="must be a number"):
        desk.found(filters=[{"key": "cost", "operator": "gt", "value": ["much"]}])
    with pytest.raises(BadRequestError, match="does not go with"):
        desk.found(filters=[{"key": "cached", "operator": "lt", "value": ["true"]}])
    with pytest.raises(BadRequestError, match="order_by"):
        desk.found(order_by="age")
    with pytest.raises(NotFoundError):
        desk.client.ai_gateway.logs.list("none", account_id=desk.account)


def test_meta_info_says_between_which_bounds_figures_lie(desk: Desk) -> None:
    info = desk.get(f"/gateways/{GATEWAY}/logs?meta_info=true").json()["result_info"]

    assert (info["min_cost"], info["max_cost"]) == (0.0, 0.5)
    assert info["min_tokens_in"] == 0
    assert info["max_duration"] >= info["min_duration"]
    assert (info["count"], info["total_count"]) == (3, 3)


def test_one_log_shows_what_was_said(desk: Desk) -> None:
    logs = desk.client.ai_gateway.logs
    place = desk.where

    found = logs.get(desk.ids[0], **place)
    request: Any = logs.request(desk.ids[0], **place)
    response: Any = logs.response(desk.ids[0], **place)

    assert found.request_head_complete
    assert json.loads(found.request_head or "") == request
    assert found.response_size == len((desk.place.provider.counters and found.response_head) or "")
    assert request["model"] == "mock-a"
    assert response["choices"][0]["message"]["content"]
    with pytest.raises(NotFoundError):
        logs.get("01NONE", **place)


def test_feedback_score_and_metadata_can_be_given_later(desk: Desk) -> None:
    logs = desk.client.ai_gateway.logs
    place = desk.where
    a, b, failed = desk.ids

    logs.edit(a, **place, feedback=1, score=80, metadata={"team": "green"})
    logs.edit(b, **place, feedback=-1)

    assert desk.found(feedback=1) == [a]
    assert desk.found(feedback=0) == [b]
    assert desk.found(filters=[{"key": "feedback", "operator": "eq", "value": [None]}]) == [failed]
    row = desk.get(f"/gateways/{GATEWAY}/logs/{a}").json()["result"]
    assert (row["feedback"], row["score"], json.loads(row["metadata"])) == (
        1,
        80,
        {"team": "green"},
    )
    with pytest.raises(BadRequestError, match="feedback"):
        logs.edit(a, **place, feedback=2)


def test_logs_are_deleted_by_filter_and_the_oldest_first(desk: Desk) -> None:
    logs = desk.client.ai_gateway.logs
    a, b, _ = desk.ids

    done = logs.delete(
        GATEWAY,
        account_id=desk.account,
        filters=[{"key": "success", "operator": "eq", "value": [False]}],
    )
    assert done.success
    assert desk.found() == [b, a]

    logs.delete(GATEWAY, account_id=desk.account, limit=1)
    assert desk.found() == [b]


def test_stored_body_runs_in_no_browser(desk: Desk) -> None:
    answer = desk.get(f"/gateways/{GATEWAY}/logs/{desk.ids[0]}/response")

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"


def test_export_as_lines_follows_the_filters(desk: Desk) -> None:
    answer = desk.get(f"/gateways/{GATEWAY}/logs/export?success=true&bodies=true")
    rows = [json.loads(line) for line in answer.text.splitlines()]

    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [row["id"] for row in rows] == list(desk.ids[:2])
    assert json.loads(rows[0]["request_body"])["model"] == "mock-a"
    assert rows[1]["metadata"] == {"team": "red", "paid": True, "n": 12}
    bare = desk.get(f"/gateways/{GATEWAY}/logs/export").text.splitlines()
    assert len(bare) == 3
    assert "request_body" not in json.loads(bare[0])


def test_export_as_parquet_holds_the_same(desk: Desk) -> None:
    answer = desk.get(f"/gateways/{GATEWAY}/logs/export?format=parquet&bodies=true")
    table = pq.read_table(io.BytesIO(answer.content)).to_pydict()

    assert table["id"] == list(desk.ids)
    assert table["cost"][1] == 0.5
    assert json.loads(table["request_body"][1])["model"] == "mock-b"
    assert table["created_at"][0].tzinfo is not None
    assert desk.get(f"/gateways/{GATEWAY}/logs/export?format=csv").status_code == 400


def test_figures_are_added_up_by_what_is_asked_for(desk: Desk) -> None:
    by_model = desk.get(f"/gateways/{GATEWAY}/analytics?group_by=model,provider").json()
    rows = {row["group"]["model"]: row for row in by_model["result"]}

    assert (rows["mock-b"]["requests"], rows["mock-b"]["cost"]) == (1, 0.5)
    assert rows["mock-a"]["tokens_in"] > 0
    assert rows["mock-a"]["duration"]["p99_ms"] > 0
    whole = desk.get(f"/analytics?where.gateway={GATEWAY}&where.provider=openai").json()["result"]
    assert [(row["requests"], row["errors"]) for row in whole] == [(2, 0)]
    steps = desk.get("/analytics?step=60").json()["result"]
    assert sum(row["requests"] for row in steps) == 3
    assert all(row["at"].endswith("Z") for row in steps)
    assert desk.get("/analytics?group_by=weather").status_code == 400
    assert desk.get("/analytics?since=2026-01-02&until=2026-01-01").status_code == 400


def make_dataset(desk: Desk, name: str = "good", **fields: Any) -> Any:
    given: dict[str, Any] = {
        "name": name,
        "enable": True,
        "filters": [{"key": "success", "operator": "eq", "value": [True]}],
        **fields,
    }
    return desk.client.ai_gateway.datasets.create(GATEWAY, account_id=desk.account, **given)


def test_dataset_chooses_logs_that_are_still_to_come(desk: Desk) -> None:
    datasets = desk.client.ai_gateway.datasets
    made = make_dataset(desk)
    path = f"/gateways/{GATEWAY}/datasets/{made.id}/logs"

    assert desk.get(path).json()["result_info"]["total_count"] == 2
    desk.place.chat("mock-c", gateway=GATEWAY)
    desk.place.records(4)
    assert desk.get(path).json()["result_info"]["total_count"] == 3

    changed = datasets.update(
        made.id,
        account_id=desk.account,
        gateway_id=GATEWAY,
        name="a",
        enable=False,
        filters=[{"key": "model", "operator": "eq", "value": ["mock-a"]}],
    )
    assert [row["id"] for row in desk.get(path).json()["result"]] == [desk.ids[0]]
    listed = datasets.list(GATEWAY, account_id=desk.account, enable=False, search="MOCK-A")
    assert [item.to_dict() for item in listed] == [changed.to_dict()]
    datasets.delete(made.id, account_id=desk.account, gateway_id=GATEWAY)
    with pytest.raises(NotFoundError):
        datasets.get(made.id, account_id=desk.account, gateway_id=GATEWAY)


def test_gateway_has_ten_datasets_and_no_more(desk: Desk) -> None:
    for number in range(10):
        make_dataset(desk, f"number {number}")

    with pytest.raises(Exception, match="10 datasets"):
        make_dataset(desk, "one more")


def test_dataset_with_a_filter_that_makes_no_sense_is_refused(desk: Desk) -> None:
    with pytest.raises(BadRequestError, match=r"filters\.0"):
        make_dataset(desk, filters=[{"key": "cost", "operator": "eq", "value": ["x"]}])


def processed(desk: Desk, evaluation_id: str) -> Any:
    evaluations = desk.client.ai_gateway.evaluations
    found: list[Any] = []

    def is_done() -> bool:
        found[:] = [evaluations.get(evaluation_id, account_id=desk.account, gateway_id=GATEWAY)]
        return bool(found[0].processed)

    wait_until(is_done, what="the evaluation")
    return found[0]


def test_evaluation_runs_by_itself_and_counts_what_it_judged(desk: Desk) -> None:
    place = desk.where
    desk.client.ai_gateway.logs.edit(desk.ids[0], **place, feedback=1)
    types = list(desk.client.ai_gateway.evaluation_types.list(account_id=desk.account))
    dataset = make_dataset(desk)
    text = json.loads(desk.get(f"/gateways/{GATEWAY}/logs/{desk.ids[0]}/response").content)
    said = text["choices"][0]["message"]["content"]

    made = desk.client.ai_gateway.evaluations.create(
        GATEWAY,
        account_id=desk.account,
        name="first",
        dataset_ids=[dataset.id],
        evaluation_type_ids=["cost", "speed", "feedback"],
        extra_body={
            "graders": [
                {"id": "same", "type": "string_check", "operation": "eq", "reference": said},
                {"id": "word", "type": "regex", "pattern": r"\w+"},
                {"id": "json", "type": "json_schema", "schema": {"type": "object"}},
            ]
        },
    )
    done = processed(desk, made.id)

    assert {item.type for item in types} >= {"cost", "speed", "feedback", "regex", "model"}
    assert done.total_logs == 2
    assert [item.name for item in done.datasets] == ["good"]
    results = {item.evaluation_type_id: item for item in done.results}
    assert float(results["cost"].result) >= 0.25
    assert float(results["speed"].result) > 0
    assert (results["feedback"].result, results["feedback"].total_logs) == ("100", 1)
    assert float(results["string_check"].result) >= 50
    assert (results["regex"].result, results["regex"].total_logs) == ("100", 2)
    assert results["json_schema"].result == "0"
    assert {item.status_description for item in done.results} == {"completed"}
    assert [
        item.id
        for item in desk.client.ai_gateway.evaluations.list(GATEWAY, account_id=desk.account)
    ] == [made.id]
    desk.client.ai_gateway.evaluations.delete(made.id, **place)


def test_evaluation_of_what_is_not_there_is_refused(desk: Desk) -> None:
    dataset = make_dataset(desk)

    def make(**fields: Any) -> None:
        desk.client.ai_gateway.evaluations.create(
            GATEWAY,
            account_id=desk.account,
            **{
                "name": "x",
                "dataset_ids": [dataset.id],
                "evaluation_type_ids": ["cost"],
                **fields,
            },
        )

    with pytest.raises(BadRequestError, match="No dataset"):
        make(dataset_ids=["none"])
    with pytest.raises(BadRequestError, match="no evaluation type"):
        make(evaluation_type_ids=["beauty"])
    with pytest.raises(BadRequestError, match="graders"):
        make(evaluation_type_ids=["regex"])
    with pytest.raises(BadRequestError, match="RE2"):
        make(extra_body={"graders": [{"id": "r", "type": "regex", "pattern": "(?=x)"}]})
