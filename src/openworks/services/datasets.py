"""Datasets: conditions that choose logs of a gateway. What they choose changes with the logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, NotFoundError
from openworks.core.ids import AccountId, NewId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.documents import Document, DocumentStore
from openworks.ports.logs import LogFilter, LogPage, LogQuery, LogStore
from openworks.services.audit import Actor, Audit
from openworks.services.gateways import Gateways
from openworks.services.log_filters import log_filter
from openworks.wire.cloudflare.datasets import DatasetShape
from openworks.wire.cloudflare.fields import checked

MAX_DATASETS: Final = 10
"""A gateway has at most so many."""


class Datasets:
    """Makes, changes and lists the datasets of gateways."""

    def __init__(
        self,
        store: DocumentStore,
        logs: LogStore,
        audit: Audit,
        gateways: Gateways,
        *,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._store = store
        self._logs = logs
        self._audit = audit
        self._gateways = gateways
        self._clock = clock
        self._new_id = new_id

    async def create(self, actor: Actor, gateway_id: str, body: JsonValue) -> Document:
        """Make one.

        Raises:
            InvalidRequestError: A field is wrong.
            NotFoundError: There is no such gateway.
            ConflictError: The gateway has as many as it may.
        """
        fields = _checked(body)
        if len(await self.list(actor, gateway_id)) >= MAX_DATASETS:
            raise ConflictError(
                f"The gateway {gateway_id!r} has {MAX_DATASETS} datasets, which is the limit.",
                code="too_many_datasets",
            )
        now_s = self._clock.now_s()
        document = Document(
            kind="dataset",
            account_id=actor.account_id,
            parent=gateway_id,
            id=self._new_id("dataset_"),
            body=fields,
            created_at_s=now_s,
            modified_at_s=now_s,
        )
        await self._store.insert(document, self._audit.created(actor, document))
        return document

    async def list(self, actor: Actor, gateway_id: str) -> Sequence[Document]:
        """Return all of a gateway, newest first.

        Raises:
            NotFoundError: There is no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        return await self._store.list("dataset", actor.account_id, gateway_id)

    async def get(self, actor: Actor, gateway_id: str, dataset_id: str) -> Document:
        """Return one.

        Raises:
            NotFoundError: There is none, or no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        found = await self._store.get("dataset", actor.account_id, gateway_id, dataset_id)
        if found is None:
            raise _no_dataset(dataset_id)
        return found

    async def update(
        self, actor: Actor, gateway_id: str, dataset_id: str, body: JsonValue
    ) -> Document:
        """Put other fields in the place of all of one's.

        Raises:
            InvalidRequestError: A field is wrong.
            NotFoundError: There is none, or no such gateway.
        """
        fields = _checked(body)
        before = await self.get(actor, gateway_id, dataset_id)
        after = replace(before, body=fields, modified_at_s=self._clock.now_s())
        if not await self._store.replace(after, self._audit.updated(actor, after, before.body)):
            raise _no_dataset(dataset_id)
        return after

    async def delete(self, actor: Actor, gateway_id: str, dataset_id: str) -> Document:
        """Delete one; its logs stay.

        Raises:
            NotFoundError: There is none, or no such gateway.
        """
        found = await self.get(actor, gateway_id, dataset_id)
        entry = self._audit.deleted(actor, found)
        if not await self._store.delete("dataset", actor.account_id, gateway_id, dataset_id, entry):
            raise _no_dataset(dataset_id)
        return found

    async def logs(
        self, actor: Actor, gateway_id: str, dataset_id: str, *, page: int, per_page: int
    ) -> LogPage:
        """Return a page of the logs that it chooses now, newest first.

        Raises:
            NotFoundError: There is none, or no such gateway.
        """
        found = await self.get(actor, gateway_id, dataset_id)
        query = dataset_query(actor.account_id, gateway_id, found.body)
        return await self._logs.list(query, page=page, per_page=per_page)


def dataset_query(account_id: AccountId, gateway_id: str, body: JsonObject) -> LogQuery:
    """Return the query that a dataset stands for."""
    return LogQuery(account_id=account_id, gateway_id=gateway_id, filters=_filters(body))


def _checked(body: JsonValue) -> JsonObject:
    fields: JsonObject = checked(DatasetShape, body).model_dump(mode="json")
    _filters(fields)
    return fields


def _filters(body: JsonObject) -> tuple[LogFilter, ...]:
    items = body["filters"]
    assert isinstance(items, list)
    return tuple(_filter(item, place) for place, item in enumerate(items))


def _filter(item: JsonValue, place: int) -> LogFilter:
    assert isinstance(item, dict)
    values = item["value"]
    assert isinstance(values, list)
    return log_filter(str(item["key"]), str(item["operator"]), values, param=f"filters.{place}")


def _no_dataset(dataset_id: str) -> NotFoundError:
    return NotFoundError(f"No dataset found with id {dataset_id[:80]!r}.")
