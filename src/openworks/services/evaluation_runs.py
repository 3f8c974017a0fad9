"""Runs evaluations, one at a time, in the background; what a restart interrupts begins anew."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import AppError, StorageError
from openworks.core.ids import RequestId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.calls import CallBodies
from openworks.ports.document_scan import DocumentScan
from openworks.ports.documents import Document, DocumentStore
from openworks.ports.logs import LogStore, StoredCall
from openworks.services.audit import Actor, Audit
from openworks.services.datasets import dataset_query
from openworks.services.evaluations import COMPLETED, FAILED, RUNNING, STATUSES
from openworks.services.graders import AskModel, Grader, make_grader
from openworks.wire.cloudflare.envelope import timestamp
from openworks.wire.cloudflare.evaluations import StoredGraders
from openworks.wire.cloudflare.fields import checked

log = logging.getLogger(__name__)

MAX_LOGS: Final = 100_000
"""So many logs count for a figure."""
MAX_READ: Final = 10_000
"""So many answers a grader reads."""
MAX_ASKED: Final = 200
"""So many answers a model judges."""
_BATCH: Final = 100
_MOST_FAILURES: Final = 20
"""A grader that fails so often in a row has no result."""


@dataclass(slots=True)
class _Tally:
    """What one result has come to."""

    limit: int
    grader: Grader | None = None
    figure: Callable[[StoredCall], float | None] | None = None
    count: int = 0
    total: float = 0.0
    is_cut: bool = False
    failures: int = field(default=0)
    error: str | None = None

    @property
    def is_full(self) -> bool:
        return self.count >= self.limit or self.error is not None


class EvaluationRuns:
    """Evaluations that are not processed are its queue; `services.background` calls it."""

    def __init__(
        self,
        scan: DocumentScan,
        store: DocumentStore,
        logs: LogStore,
        audit: Audit,
        *,
        clock: Clock,
        ask: AskModel | None,
    ) -> None:
        self._scan = scan
        self._store = store
        self._logs = logs
        self._audit = audit
        self._clock = clock
        self._ask = ask

    async def run_all(self) -> int:
        """Run every evaluation that is not processed; return how many there were."""
        count = 0
        async for batch in self._scan.scan("evaluation"):
            for document in batch:
                if document.body.get("processed") is False:
                    await self._run(document)
                    count += 1
        return count

    async def _run(self, document: Document) -> None:
        """Judge, and write the results down."""
        results = _results(document)
        for result in results:
            result |= {"status": RUNNING, "status_description": STATUSES[RUNNING]}
        if not await self._keep(document, results, processed=False, total=0):
            return  # it was deleted
        try:
            tallies = self._tallies(document, results)
            total = await self._judge(document, list(tallies.values()))
        except StorageError:
            raise  # it is tried again
        except AppError as error:
            log.warning("evaluation.failed", extra={"id": document.id, "error": error.message})
            for result in results:
                result |= {"status": FAILED, "status_description": error.message}
            await self._keep(document, results, processed=True, total=0)
            return
        for result in results:
            result |= _outcome(str(result["evaluation_type_id"]), tallies[str(result["id"])])
        await self._keep(document, results, processed=True, total=total)

    def _tallies(self, document: Document, results: Sequence[JsonObject]) -> Mapping[str, _Tally]:
        stored = checked(StoredGraders, {"graders": document.body["graders"]})
        graders = {shape.id: make_grader(shape, self._ask) for shape in stored.graders}
        found = {}
        for result in results:
            grader = graders.get(str(result["grader_id"]))
            if grader is None:
                figure = _FIGURES[str(result["evaluation_type_id"])]
                tally = _Tally(MAX_LOGS, figure=figure)
            else:
                tally = _Tally(MAX_ASKED if grader.asks_model else MAX_READ, grader=grader)
            found[str(result["id"])] = tally
        return found

    async def _judge(self, document: Document, tallies: Sequence[_Tally]) -> int:
        """Go once through the logs of all datasets; return how many they are."""
        total = 0
        async for item in self._logs_of(document):
            total += 1
            bodies: CallBodies | None = None
            for tally in tallies:
                if tally.is_full:
                    tally.is_cut = True
                elif tally.figure is not None:
                    _add(tally, tally.figure(item))
                elif item.bodies is not None and item.call.outcome == "ok":
                    bodies = bodies or await self._bodies(item)
                    await _grade(tally, bodies)
            if total >= MAX_LOGS:
                break
        return total

    async def _logs_of(self, document: Document) -> AsyncIterator[StoredCall]:
        """Yield each log once, though several datasets may choose it."""
        datasets = document.body["datasets"]
        assert isinstance(datasets, list)
        seen: set[RequestId] = set()
        for dataset in datasets:
            assert isinstance(dataset, dict)
            query = dataset_query(document.account_id, document.parent, dataset)
            query = replace(query, until_s=document.created_at_s)
            async for batch in self._logs.scan(query, batch=_BATCH):
                for item in batch:
                    if item.call.id not in seen:
                        if len(datasets) > 1:
                            seen.add(item.call.id)
                        yield item

    async def _bodies(self, item: StoredCall) -> CallBodies | None:
        call = item.call
        try:
            return await self._logs.get_bodies(call.account_id, call.gateway_id, call.id)
        except StorageError:  # a blob that is gone is no reason to begin anew for ever
            return None

    async def _keep(
        self, document: Document, results: Sequence[JsonObject], *, processed: bool, total: int
    ) -> bool:
        now_s = self._clock.now_s()
        kept: list[JsonValue] = [{**item, "modified_at": timestamp(now_s)} for item in results]
        body = {**document.body, "results": kept, "processed": processed, "total_logs": total}
        after = replace(document, body=body, modified_at_s=now_s)
        actor = Actor(account_id=document.account_id, name="system")
        return await self._store.replace(after, self._audit.updated(actor, after, document.body))


async def _grade(tally: _Tally, bodies: CallBodies | None) -> None:
    if bodies is None:  # not kept any more
        return
    assert tally.grader is not None
    try:
        passes = await tally.grader.passes(bodies)
    except AppError as error:
        tally.failures += 1
        if tally.failures >= _MOST_FAILURES:
            tally.error = error.message
        return
    tally.failures = 0
    _add(tally, 1.0 if passes else 0.0)


def _add(tally: _Tally, value: float | None) -> None:
    if value is not None:
        tally.count += 1
        tally.total += value


def _cost(item: StoredCall) -> float | None:
    return item.call.cost_usd or None


def _speed(item: StoredCall) -> float | None:
    return item.call.duration_ms


def _feedback(item: StoredCall) -> float | None:
    return None if not item.feedback else float(item.feedback > 0)


_FIGURES: Final[Mapping[str, Callable[[StoredCall], float | None]]] = {
    "cost": _cost,
    "speed": _speed,
    "feedback": _feedback,
}


def _outcome(type_id: str, tally: _Tally) -> JsonObject:
    if tally.error is not None:
        return {"status": FAILED, "status_description": tally.error, "total_logs": tally.count}
    described = STATUSES[COMPLETED]
    if tally.is_cut:
        described += f", over the first {tally.count} logs"
    mean = tally.total / tally.count if tally.count else None
    if mean is not None and type_id not in ("cost", "speed"):
        mean *= 100
    return {
        "status": COMPLETED,
        "status_description": described,
        "result": "" if mean is None else f"{mean:.10g}",
        "total_logs": tally.count,
    }


def _results(document: Document) -> list[JsonObject]:
    items = document.body["results"]
    assert isinstance(items, list)
    return [dict(item) for item in items if isinstance(item, dict)]
