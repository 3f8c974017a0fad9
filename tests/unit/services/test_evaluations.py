from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from openworks.core.errors import InvalidRequestError, ModelUnavailableError, StorageError
from openworks.ports.documents import Document, DocumentKind
from openworks.services import evaluation_runs
from openworks.services.audit import Actor, Audit
from openworks.services.datasets import Datasets
from openworks.services.evaluation_runs import EvaluationRuns
from openworks.services.evaluations import Evaluations
from openworks.services.graders import AskModel
from tests.document_store import MemoryDocumentStore
from tests.fakes import CountingIds, FakeClock
from tests.unit.services.log_store import ACCOUNT, NOON_S, MemoryLogs

ACTOR = Actor(account_id=ACCOUNT, name="anonymous")


class AnyGateway:
    """A `Gateways` for which there is every gateway."""

    async def ensure(self, actor: Actor, gateway_id: str) -> None:
        return


class Scan:
    """A `DocumentScan` over the memory store."""

    def __init__(self, store: MemoryDocumentStore) -> None:
        self._store = store

    async def scan(
        self, kind: DocumentKind, *, batch: int = 200
    ) -> AsyncIterator[Sequence[Document]]:
        yield [item for item in self._store.documents if item.kind == kind]


@dataclass(slots=True)
class Desk:
    logs: MemoryLogs
    store: MemoryDocumentStore
    datasets: Datasets
    evaluations: Evaluations
    runs: EvaluationRuns
    woken: list[bool]

    async def dataset(self, *filters: tuple[str, str, list[Any]]) -> str:
        made = await self.datasets.create(
            ACTOR,
            "gw",
            {
                "name": "set",
                "enable": True,
                "filters": [
                    {"key": key, "operator": operator, "value": value}
                    for key, operator, value in filters
                ],
            },
        )
        return made.id

    async def evaluate(self, *types: str, **fields: Any) -> dict[str, dict[str, Any]]:
        """Make an evaluation, run it, and return its results by type or grader."""
        body: Any = {
            "name": "evaluation",
            "dataset_ids": [await self.dataset()],
            "evaluation_type_ids": list(types),
            **fields,
        }
        made = await self.evaluations.create(ACTOR, "gw", body)
        assert await self.runs.run_all() == 1
        return await self.results(made.id)

    async def results(self, evaluation_id: str) -> dict[str, dict[str, Any]]:
        found: Any = await self.evaluations.get(ACTOR, "gw", evaluation_id)
        return {
            item["grader_id"] or item["evaluation_type_id"]: item for item in found.body["results"]
        }


def make_desk(ask: AskModel | None = None) -> Desk:
    logs, store, clock, ids = MemoryLogs(), MemoryDocumentStore(), FakeClock(), CountingIds()
    clock.advance(NOON_S + 1e6 - clock.now_s())
    audit = Audit(store, clock)
    gateways: Any = AnyGateway()
    datasets = Datasets(store, logs, audit, gateways, clock=clock, new_id=ids)
    woken: list[bool] = []
    evaluations = Evaluations(
        store,
        audit,
        gateways,
        datasets,
        clock=clock,
        new_id=ids,
        ask=ask,
        wake=lambda: woken.append(True),
    )
    runs = EvaluationRuns(Scan(store), store, logs, audit, clock=clock, ask=ask)
    return Desk(logs, store, datasets, evaluations, runs, woken)


@pytest.fixture
def desk() -> Desk:
    return make_desk()


def chat(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


async def test_figures_leave_out_logs_that_say_nothing(desk: Desk) -> None:
    desk.logs.add(1, cost_usd=1.0, duration_ms=100.0, feedback=1)
    desk.logs.add(2, cost_usd=3.0, duration_ms=300.0, feedback=-1)
    desk.logs.add(3, cost_usd=0.0, duration_ms=200.0)

    results = await desk.evaluate("cost", "speed", "feedback")

    assert desk.woken == [True]
    assert (results["cost"]["result"], results["cost"]["total_logs"]) == ("2", 2)
    assert (results["speed"]["result"], results["speed"]["total_logs"]) == ("200", 3)
    assert (results["feedback"]["result"], results["feedback"]["total_logs"]) == ("50", 2)


async def test_no_logs_have_no_result(desk: Desk) -> None:
    results = await desk.evaluate("cost")

    assert (results["cost"]["result"], results["cost"]["status_description"]) == ("", "completed")


async def test_log_that_two_datasets_choose_counts_once(desk: Desk) -> None:
    desk.logs.add(1, cost_usd=1.0, model="a")
    desk.logs.add(2, cost_usd=3.0, model="b")
    both, one = await desk.dataset(), await desk.dataset(("model", "eq", ["a"]))

    results = await desk.evaluate("cost", dataset_ids=[both, one])

    assert (results["cost"]["result"], results["cost"]["total_logs"]) == ("2", 2)


async def test_logs_after_the_evaluation_are_not_its_own(desk: Desk) -> None:
    desk.logs.add(1, cost_usd=1.0)
    desk.logs.add(2_000_000, cost_usd=9.0)

    assert (await desk.evaluate("cost"))["cost"]["result"] == "1"


async def test_graders_judge_the_text_of_good_answers(desk: Desk) -> None:
    desk.logs.add(1, chat("Yes, of course."))
    desk.logs.add(2, chat('{"n": 1}'))
    desk.logs.add(3, chat('```json\n{"n": "one"}\n```'))
    desk.logs.add(4, chat("Yes, of course."), outcome="error")
    desk.logs.add(5)  # nothing was kept

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    results = await desk.evaluate(
        graders=[
            {"id": "eq", "type": "string_check", "operation": "eq", "reference": "Yes, of course."},
            {"id": "ne", "type": "string_check", "operation": "ne", "reference": "Yes, of course."},
            {"id": "like", "type": "string_check", "operation": "like", "reference": "yes"},
            {"id": "ilike", "type": "string_check", "operation": "ilike", "reference": "YES"},
            {"id": "re", "type": "regex", "pattern": r"(?i)\byes\b"},
            {"id": "any", "type": "json_schema"},
            {"id": "schema", "type": "json_schema", "schema": schema},
        ]
    )

    shares = {name: round(float(item["result"])) for name, item in results.items()}
    assert shares == {
        "eq": 33,
        "ne": 67,
        "like": 0,
        "ilike": 33,
        "re": 33,
        "any": 67,
        "schema": 33,
    }
    assert {item["total_logs"] for item in results.values()} == {3}


async def test_model_grades_what_it_is_shown() -> None:
    asked: list[str] = []

    async def ask(prompt: str) -> str:
        asked.append(prompt)
        return " **Yes**, it is." if "good" in prompt else "no"

    desk = make_desk(ask)
    desk.logs.add(1, chat("good {{request}}"))
    desk.logs.add(2, chat("bad"))
    results = await desk.evaluate(
        graders=[{"id": "m", "type": "model", "prompt": "Q: {{request}} A: {{response}} Fine?"}]
    )

    assert results["m"]["result"] == "50"
    assert asked[0] == 'Q: {"q":1} A: good {{request}} Fine?'


async def test_model_that_is_away_leaves_no_result_and_hinders_no_other() -> None:
    async def ask(prompt: str) -> str:
        raise ModelUnavailableError("It is being loaded.")

    desk = make_desk(ask)
    for number in range(30):
        desk.logs.add(number, chat("x"))
    results = await desk.evaluate(
        "cost", graders=[{"id": "m", "type": "model", "prompt": "{{response}}"}]
    )

    assert (results["m"]["status"], results["m"]["status_description"]) == (
        3,
        "It is being loaded.",
    )
    assert results["cost"]["status"] == 2


async def test_grader_that_reads_no_further_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_runs, "MAX_READ", 2)
    for number in range(5):
        desk.logs.add(number, chat("x"))
    results = await desk.evaluate(graders=[{"id": "r", "type": "regex", "pattern": "x"}])

    assert results["r"]["status_description"] == "completed, over the first 2 logs"


async def test_evaluation_that_a_stop_interrupted_runs_again(desk: Desk) -> None:
    desk.logs.add(1, cost_usd=1.0)
    body: Any = {
        "name": "e",
        "dataset_ids": [await desk.dataset()],
        "evaluation_type_ids": ["cost"],
    }
    made = await desk.evaluations.create(ACTOR, "gw", body)
    desk.logs.is_away = True
    with pytest.raises(StorageError):
        await desk.runs.run_all()
    assert (await desk.results(made.id))["cost"]["status_description"] == "in progress"
    desk.logs.is_away = False

    assert await desk.runs.run_all() == 1
    assert await desk.runs.run_all() == 0
    assert (await desk.results(made.id))["cost"]["result"] == "1"


async def test_evaluation_keeps_its_datasets_as_they_were(desk: Desk) -> None:
    dataset = await desk.dataset(("success", "eq", [True]))
    desk.logs.add(1, cost_usd=1.0)
    desk.logs.add(2, cost_usd=5.0, outcome="error")
    body: Any = {"name": "e", "dataset_ids": [dataset], "evaluation_type_ids": ["cost"]}
    made = await desk.evaluations.create(ACTOR, "gw", body)
    await desk.datasets.update(
        ACTOR, "gw", dataset, {"name": "other", "enable": True, "filters": []}
    )
    await desk.runs.run_all()

    assert (await desk.results(made.id))["cost"]["result"] == "1"


@pytest.mark.parametrize(
    ("grader", "reason"),
    [
        ({"type": "regex", "pattern": "("}, "RE2"),
        ({"type": "regex", "pattern": r"(a)\1"}, "RE2"),
        ({"type": "json_schema", "schema": {"type": "thing"}}, "JSON Schema"),
        ({"type": "json_schema", "schema": {"items": {"pattern": "(?=a)"}}}, "RE2"),
        ({"type": "json_schema", "schema": {"patternProperties": {"a": {}}}}, "patternProperties"),
        ({"type": "model", "prompt": "{{response}}"}, "no model"),
        ({"type": "model", "prompt": "Is it fine?"}, "response"),
    ],
)
async def test_grader_that_cannot_work_is_refused_at_once(
    desk: Desk, grader: dict[str, Any], reason: str
) -> None:
    body: Any = {
        "name": "e",
        "dataset_ids": [await desk.dataset()],
        "evaluation_type_ids": [],
        "graders": [{"id": "g", **grader}],
    }

    with pytest.raises(InvalidRequestError, match=reason):
        await desk.evaluations.create(ACTOR, "gw", body)


async def test_schema_fetches_nothing_and_takes_no_exponential_time(desk: Desk) -> None:
    desk.logs.add(1, chat(json.dumps("a" * 5000 + "!")))
    results = await desk.evaluate(
        graders=[
            {"id": "p", "type": "json_schema", "schema": {"pattern": "^(a+)+$"}},
            {"id": "f", "type": "json_schema", "schema": {"$ref": "http://127.0.0.1:9/schema"}},
        ]
    )

    assert (results["p"]["result"], results["f"]["result"]) == ("0", "0")


async def test_dataset_that_is_not_enabled_judges_nothing(desk: Desk) -> None:
    dataset = await desk.dataset()
    await desk.datasets.update(ACTOR, "gw", dataset, {"name": "x", "enable": False, "filters": []})
    body: Any = {"name": "e", "dataset_ids": [dataset], "evaluation_type_ids": ["cost"]}

    with pytest.raises(InvalidRequestError, match="not enabled"):
        await desk.evaluations.create(ACTOR, "gw", body)
