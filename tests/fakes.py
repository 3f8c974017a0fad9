"""Fakes of the ports: in memory, without surprises, and held to the same contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import assert_never

from openworks.core.errors import ConflictError, InvalidRequestError
from openworks.core.ids import AccountId, KeyId, RequestId
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import CallRecord, Usage, UsageGroup, UsageRow
from openworks.ports.keys import ApiKey
from openworks.ports.stored_completions import StoredCompletion


class FakeClock:
    """Time that moves only when told to; sleeping moves it."""

    def __init__(self, now_s: float = 1_790_000_000.0) -> None:
        self._now_s = now_s
        self._monotonic_s = 0.0
        self.slept_s: list[float] = []

    def now_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
        self._monotonic_s += seconds


class CountingIds:
    """`new_id` that counts: `chatcmpl-1`, `key-2`, …"""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"


class MemoryKeyStore:
    """Keys in a dict."""

    def __init__(self) -> None:
        self._keys: dict[KeyId, ApiKey] = {}

    async def insert(self, key: ApiKey) -> None:
        if key.id in self._keys or await self.get_by_hash(key.hash) is not None:
            raise ConflictError(f"A key with id '{key.id}' or its hash exists already.")
        self._keys[key.id] = key

    async def get_by_hash(self, key_hash: str) -> ApiKey | None:
        return next((key for key in self._keys.values() if key.hash == key_hash), None)

    async def list(self, *, account_id: AccountId | None = None) -> Sequence[ApiKey]:
        keys = [key for key in self._keys.values() if account_id in (None, key.account_id)]
        return sorted(keys, key=lambda key: (key.created_at_s, key.id))

    async def revoke(self, key_id: KeyId, *, at_s: float) -> bool:
        key = self._keys.get(key_id)
        if key is not None and key.revoked_at_s is None:
            self._keys[key_id] = replace(key, revoked_at_s=at_s)
        return key is not None

    async def count_unrevoked(self) -> int:
        return sum(key.revoked_at_s is None for key in self._keys.values())


class MemoryRecordStore:
    """The ledger in a dict; `records` is what tests look at."""

    def __init__(self) -> None:
        self._records: dict[RequestId, CallRecord] = {}

    @property
    def records(self) -> list[CallRecord]:
        return list(self._records.values())

    async def insert_many(self, records: Sequence[CallRecord]) -> None:
        for record in records:
            self._records.setdefault(record.id, record)

    async def summarise(
        self,
        *,
        group: UsageGroup,
        since_s: float | None = None,
        account_id: AccountId | None = None,
    ) -> Sequence[UsageRow]:
        groups: dict[str, list[CallRecord]] = {}
        for record in self._records.values():
            recent = since_s is None or record.created_at_s >= since_s
            if recent and account_id in (None, record.account_id):
                groups.setdefault(_group_of(record, group), []).append(record)
        rows = [_usage_row(name, records) for name, records in groups.items()]
        return sorted(rows, key=lambda row: (-row.calls, row.group))

    async def list_recent(self, *, limit: int) -> Sequence[CallRecord]:
        newest = sorted(
            self._records.values(),
            key=lambda record: (record.created_at_s, record.id),
            reverse=True,
        )
        return newest[:limit]


class MemoryStoredCompletionStore:
    """Stored completions in a dict."""

    def __init__(self) -> None:
        self._items: dict[str, StoredCompletion] = {}

    async def insert(self, item: StoredCompletion) -> None:
        if item.id in self._items:
            raise ConflictError(f"A completion with id '{item.id}' is stored already.")
        self._items[item.id] = item

    async def get(self, account_id: AccountId, completion_id: str) -> StoredCompletion | None:
        item = self._items.get(completion_id)
        return item if item is not None and item.account_id == account_id else None

    async def list(
        self,
        account_id: AccountId,
        page: PageRequest,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[StoredCompletion]:
        def matches(item: StoredCompletion) -> bool:
            return model in (None, item.model) and all(
                item.metadata.get(key) == value for key, value in (metadata or {}).items()
            )

        mine = [item for item in self._items.values() if item.account_id == account_id]
        return _page_of(mine, page, matches=matches)

    async def set_metadata(
        self, account_id: AccountId, completion_id: str, metadata: Mapping[str, str]
    ) -> StoredCompletion | None:
        item = await self.get(account_id, completion_id)
        if item is None:
            return None
        self._items[completion_id] = replace(item, metadata=dict(metadata))
        return self._items[completion_id]

    async def delete(self, account_id: AccountId, completion_id: str) -> bool:
        if await self.get(account_id, completion_id) is None:
            return False
        del self._items[completion_id]
        return True


def _page_of(
    items: Iterable[StoredCompletion],
    page: PageRequest,
    *,
    matches: Callable[[StoredCompletion], bool],
) -> Page[StoredCompletion]:
    oldest_first = sorted(items, key=lambda item: (item.created_at_s, item.id))
    ordered = oldest_first if page.order == "asc" else oldest_first[::-1]
    positions = {item.id: position for position, item in enumerate(ordered)}
    first, end = 0, len(ordered)
    for param, cursor in (("after", page.after), ("before", page.before)):
        if cursor is None:
            continue
        if cursor not in positions:
            raise InvalidRequestError(
                f"{param} must be the id of an item in the list, got '{cursor}'.",
                code="invalid_cursor",
                param=param,
            )
        if param == "after":
            first = positions[cursor] + 1
        else:
            end = positions[cursor]
    found = [item for item in ordered[first:end] if matches(item)]
    backwards = page.before is not None and page.after is None
    kept = found[-page.limit :] if backwards else found[: page.limit]
    return Page(items=kept, has_more=len(found) > page.limit)


def _group_of(record: CallRecord, group: UsageGroup) -> str:
    match group:
        case "model":
            return record.model
        case "account":
            return record.account_id
        case "key":
            return record.key_id or ""
        case "day":
            return datetime.fromtimestamp(record.created_at_s, UTC).date().isoformat()
        case "route":
            return record.route
        case _:
            assert_never(group)


def _usage_row(group: str, records: Sequence[CallRecord]) -> UsageRow:
    first_tokens_ms = [
        record.first_token_ms for record in records if record.first_token_ms is not None
    ]
    return UsageRow(
        group=group,
        calls=len(records),
        errors=sum(record.outcome == "error" for record in records),
        usage=sum((record.usage for record in records), Usage()),
        cost_usd=sum(record.cost_usd for record in records),
        mean_first_token_ms=sum(first_tokens_ms) / len(first_tokens_ms)
        if first_tokens_ms
        else None,
        mean_duration_ms=sum(record.duration_ms for record in records) / len(records),
    )
