"""Evaluations: which logs are judged by what. `services.evaluation_runs` does the judging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, InvalidRequestError, NotFoundError
from openworks.core.ids import NewId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.documents import Document, DocumentStore
from openworks.services.audit import Actor, Audit
from openworks.services.datasets import Datasets
from openworks.services.gateways import Gateways
from openworks.services.graders import AskModel, check_graders
from openworks.wire.cloudflare.envelope import timestamp
from openworks.wire.cloudflare.evaluations import EvaluationShape
from openworks.wire.cloudflare.fields import checked

MAX_EVALUATIONS: Final = 100
"""A gateway has at most so many."""

FIGURES: Final = {
    "cost": "Average cost of a request in US dollars, of requests with a cost.",
    "speed": "Average duration of a request in milliseconds.",
    "feedback": "Share of thumbs up among the logs with feedback, in percent.",
}
"""Types that need no grader."""
GRADERS: Final = {
    "string_check": "Share of answers that equal or contain a text.",
    "regex": "Share of answers in which a regular expression is found.",
    "json_schema": "Share of answers that are JSON and follow a schema.",
    "model": "Share of answers that a model finds good.",
}
"""Types that `graders` describe."""

PENDING: Final = 0
RUNNING: Final = 1
COMPLETED: Final = 2
FAILED: Final = 3
STATUSES: Final = {
    PENDING: "pending",
    RUNNING: "in progress",
    COMPLETED: "completed",
    FAILED: "error",
}


class Evaluations:
    """Makes, lists and deletes evaluations of gateways."""

    def __init__(
        self,
        store: DocumentStore,
        audit: Audit,
        gateways: Gateways,
        datasets: Datasets,
        *,
        clock: Clock,
        new_id: NewId,
        ask: AskModel | None,
        wake: Callable[[], None],
    ) -> None:
        """Hold its parts.

        Args:
            store: Keeps them.
            audit: Notes each change.
            gateways: Theirs.
            datasets: What they judge.
            clock: Of this process.
            new_id: Names them.
            ask: The model for graders of that type; None when there is none.
            wake: Tells the runner that there is work.
        """
        self._store = store
        self._audit = audit
        self._gateways = gateways
        self._datasets = datasets
        self._clock = clock
        self._new_id = new_id
        self._ask = ask
        self._wake = wake

    async def create(self, actor: Actor, gateway_id: str, body: JsonValue) -> Document:
        """Make one, which then runs by itself.

        Raises:
            InvalidRequestError: A field is wrong, or a dataset is not there.
            NotFoundError: There is no such gateway.
            ConflictError: The gateway has as many as it may.
        """
        shape = checked(EvaluationShape, body)
        check_graders(shape.graders, self._ask)
        if len(await self.list(actor, gateway_id)) >= MAX_EVALUATIONS:
            raise ConflictError(
                f"The gateway {gateway_id!r} has {MAX_EVALUATIONS} evaluations, which is the "
                "limit.",
                code="too_many_evaluations",
            )
        datasets = [
            await self._dataset(actor, gateway_id, name)
            for name in dict.fromkeys(shape.dataset_ids)
        ]
        now_s = self._clock.now_s()
        evaluation_id = self._new_id("evaluation_")
        document = Document(
            kind="evaluation",
            account_id=actor.account_id,
            parent=gateway_id,
            id=evaluation_id,
            body={
                "name": shape.name,
                "datasets": [_snapshot(item) for item in datasets],
                "graders": [item.model_dump(mode="json", by_alias=True) for item in shape.graders],
                "processed": False,
                "total_logs": 0,
                "results": self._results(evaluation_id, shape, timestamp(now_s)),
            },
            created_at_s=now_s,
            modified_at_s=now_s,
        )
        await self._store.insert(document, self._audit.created(actor, document))
        self._wake()
        return document

    async def list(self, actor: Actor, gateway_id: str) -> Sequence[Document]:
        """Return all of a gateway, newest first.

        Raises:
            NotFoundError: There is no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        return await self._store.list("evaluation", actor.account_id, gateway_id)

    async def get(self, actor: Actor, gateway_id: str, evaluation_id: str) -> Document:
        """Return one, finished or not.

        Raises:
            NotFoundError: There is none, or no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        found = await self._store.get("evaluation", actor.account_id, gateway_id, evaluation_id)
        if found is None:
            raise _no_evaluation(evaluation_id)
        return found

    async def delete(self, actor: Actor, gateway_id: str, evaluation_id: str) -> Document:
        """Delete one, also while it runs.

        Raises:
            NotFoundError: There is none, or no such gateway.
        """
        found = await self.get(actor, gateway_id, evaluation_id)
        entry = self._audit.deleted(actor, found)
        if not await self._store.delete(
            "evaluation", actor.account_id, gateway_id, evaluation_id, entry
        ):
            raise _no_evaluation(evaluation_id)
        return found

    async def _dataset(self, actor: Actor, gateway_id: str, dataset_id: str) -> Document:
        try:
            found = await self._datasets.get(actor, gateway_id, dataset_id)
        except NotFoundError as exc:
            raise InvalidRequestError(exc.message, param="dataset_ids") from exc
        if found.body["enable"] is not True:
            raise InvalidRequestError(
                f"The dataset {dataset_id!r} is not enabled.", param="dataset_ids"
            )
        return found

    def _results(self, evaluation_id: str, shape: EvaluationShape, now: str) -> JsonValue:
        """Return a place for every result that there is to be."""
        types = [(name, "") for name in dict.fromkeys(shape.evaluation_type_ids)]
        for name, _ in types:
            if name in GRADERS and not any(item.type == name for item in shape.graders):
                raise InvalidRequestError(
                    f"The evaluation type {name!r} needs one of 'graders' that describes it.",
                    param="evaluation_type_ids",
                )
            if name not in FIGURES and name not in GRADERS:
                known = ", ".join((*FIGURES, *GRADERS))
                raise InvalidRequestError(
                    f"There is no evaluation type {name[:80]!r}; there are {known}.",
                    param="evaluation_type_ids",
                )
        wanted = [item for item in types if item[0] in FIGURES]
        wanted += [(item.type, item.id) for item in shape.graders]
        return [
            {
                "id": self._new_id("result_"),
                "evaluation_id": evaluation_id,
                "evaluation_type_id": type_id,
                "grader_id": grader_id or None,
                "result": "",
                "status": PENDING,
                "status_description": STATUSES[PENDING],
                "total_logs": 0,
                "created_at": now,
                "modified_at": now,
            }
            for type_id, grader_id in wanted
        ]


def _snapshot(dataset: Document) -> JsonObject:
    """Keep a dataset as it is now: an evaluation does not change with it."""
    return {
        "id": dataset.id,
        "account_id": dataset.account_id,
        "account_tag": dataset.account_id,
        "gateway_id": dataset.parent,
        **dataset.body,
        "created_at": timestamp(dataset.created_at_s),
        "modified_at": timestamp(dataset.modified_at_s),
    }


def _no_evaluation(evaluation_id: str) -> NotFoundError:
    return NotFoundError(f"No evaluation found with id {evaluation_id[:80]!r}.")
