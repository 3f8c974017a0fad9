"""Logs in memory, for what reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from openworks.core.errors import StorageError
from openworks.core.ids import AccountId, RequestId
from openworks.ports.calls import CallBodies, CallRecord, Usage
from openworks.ports.logs import BodyInfo, LogChange, LogPage, LogQuery, StoredCall

ACCOUNT = AccountId("acct")
NOON_S = 1_790_078_400.0
CALL = CallRecord(
    id=RequestId("log"),
    created_at_s=NOON_S,
    account_id=ACCOUNT,
    key_id=None,
    route="/r",
    model="gpt-4o-mini",
    deployment=None,
    stream=False,
    usage=Usage(prompt_tokens=10, completion_tokens=5),
    cost_usd=0.25,
    first_token_ms=None,
    duration_ms=400.0,
    outcome="ok",
    status=200,
    gateway_id="gw",
    provider="openai",
    endpoint="chat/completions",
)


class MemoryLogs:
    """A `LogStore` that knows the filters `model` and `success`; `scanned` counts what it gave."""

    def __init__(self) -> None:
        self.calls: list[StoredCall] = []
        self.bodies: dict[str, CallBodies] = {}
        self.scanned = 0
        self.is_away = False

    def add(
        self,
        number: int,
        response: bytes | None = None,
        *,
        feedback: int | None = None,
        **changes: Any,
    ) -> None:
        """Keep one call, with bodies if there is a response."""
        record = msgspec.structs.replace(
            CALL,
            **{"id": RequestId(f"log-{number}"), "created_at_s": NOON_S + number, **changes},
        )
        info = None
        if response is not None:
            self.bodies[record.id] = CallBodies(request=b'{"q":1}', response=response)
            info = BodyInfo(
                request_bytes=7,
                response_bytes=len(response),
                request_type="application/json",
                response_type="application/json",
                is_partial=False,
            )
        self.calls.append(StoredCall(call=record, feedback=feedback, bodies=info))

    async def list(self, query: LogQuery, *, page: int = 1, per_page: int = 20) -> LogPage:
        found = [item for item in self.calls if _matches(query, item)][::-1]
        return LogPage(items=found[(page - 1) * per_page :][:per_page], total=len(found))

    async def scan(
        self, query: LogQuery, *, batch: int = 500
    ) -> AsyncIterator[Sequence[StoredCall]]:
        if self.is_away:
            raise StorageError("The database is away.")
        found = [item for item in self.calls if _matches(query, item)]
        for begin in range(0, len(found), batch):
            items = found[begin : begin + batch]
            self.scanned += len(items)
            yield items

    async def get(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId
    ) -> StoredCall | None:
        return next((item for item in self.calls if item.call.id == log_id), None)

    async def get_bodies(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId
    ) -> CallBodies | None:
        return self.bodies.get(log_id)

    async def change(
        self, account_id: AccountId, gateway_id: str, log_id: RequestId, change: LogChange
    ) -> StoredCall | None:
        raise NotImplementedError

    async def delete(self, query: LogQuery, *, limit: int | None = None) -> int:
        raise NotImplementedError


def _matches(query: LogQuery, item: StoredCall) -> bool:
    call = item.call
    if query.until_s is not None and call.created_at_s >= query.until_s:
        return False
    values = {"model": call.model, "success": call.outcome == "ok"}
    return all(values[condition.key] in condition.values for condition in query.filters)
