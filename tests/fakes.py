"""Fakes of the ports: in memory, without surprises, and held to the same contracts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import assert_never

import msgspec

from openworks.core.errors import AuthenticationError, ConflictError, InvalidRequestError
from openworks.core.ids import AccountId, KeyId, RequestId
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import CallBodies, CallRecord, Principal, Usage, UsageGroup, UsageRow
from openworks.ports.gateways import LogPolicy
from openworks.ports.keys import ApiKey
from openworks.ports.limits import Admission, Claim, Refusal
from openworks.ports.logbook import Entry, Report
from openworks.ports.snapshots import GatewaySnapshot
from openworks.ports.stored_completions import StoredCompletion
from openworks.ports.upstream import (
    Counted,
    Headers,
    Timeouts,
    UpstreamError,
    UpstreamRequest,
)


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


class MemoryLogSink:
    """A log writer that keeps what it is given; `entries` is what tests look at."""

    def __init__(self) -> None:
        self.last = Report()
        self.lost_rows = 0
        self.lost_bodies = 0
        self.batches: list[list[Entry]] = []

    @property
    def entries(self) -> list[Entry]:
        return [entry for batch in self.batches for entry in batch]

    @property
    def records(self) -> list[CallRecord]:
        return [entry.record for entry in self.entries]

    async def write(self, batch: bytes | bytearray) -> Report:
        self.batches.append(msgspec.msgpack.decode(batch, type=list[Entry]))
        self.last = Report(number=len(self.batches))
        return self.last

    async def replayed(self) -> None:
        return


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a scripted provider answers to one request."""

    status: int = 200
    headers: Headers = field(default_factory=lambda: [(b"content-type", b"application/json")])
    body: bytes = b"{}"
    chunks: tuple[bytes, ...] | None = None
    """In the place of `body`: an answer whose length is not told."""
    breaks: UpstreamError | None = None
    """How the body ends, after what came of it."""
    fails: UpstreamError | None = None
    """In the place of an answer."""
    takes_s: float = 0.0
    """Until the head comes, on the clock of the transport."""
    hangs: bool = False
    """Whether no head ever comes."""
    holds: asyncio.Event | None = None
    """What the head waits for."""
    stalls_after: int | None = None
    """After how many chunks the body waits for ever."""
    counted: Counted | None = None
    """What a model of this server counted, once its answer is over."""


def events_of(*data: bytes, status: int = 200, breaks: UpstreamError | None = None) -> Said:
    """Return a stream with one event a chunk."""
    return Said(
        status=status,
        headers=[(b"content-type", b"text/event-stream")],
        chunks=tuple(b"data: %b\n\n" % each for each in data),
        breaks=breaks,
    )


class FakeTransport:
    """A provider that answers as it is told, and remembers what it was asked."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.script: deque[Said] = deque()
        """The answers to come; the last one is given again and again."""
        self.requests: list[UpstreamRequest] = []
        self.timeouts: list[Timeouts] = []
        self.responses: list[FakeResponse] = []
        self.cancelled = 0

    @property
    def open(self) -> int:
        """How many requests nobody has read to the end or let go of."""
        return sum(not response.is_over for response in self.responses)

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> FakeResponse:
        self.requests.append(request)
        self.timeouts.append(timeouts)
        said = self.script.popleft() if len(self.script) > 1 else self.script[0]
        try:
            if said.hangs:
                await asyncio.get_running_loop().create_future()
            if said.holds is not None:
                await said.holds.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        patience_s = timeouts.first_byte_s
        if patience_s is not None and said.takes_s > patience_s:
            self._clock.advance(patience_s)
            raise UpstreamError("The provider was too slow.", kind="timeout", unread=False)
        self._clock.advance(said.takes_s)
        if said.fails is not None:
            raise said.fails
        response = FakeResponse(said)
        self.responses.append(response)
        return response

    async def close(self) -> None:
        for response in self.responses:
            response.abort()


class FakeResponse:
    """One scripted answer."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self.status = said.status
        self.headers: Headers = list(said.headers)
        if said.chunks is None:
            self.headers.append((b"content-length", b"%d" % len(said.body)))
        self.is_over = False
        self.was_aborted = False
        self.num_read = 0

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        self.is_over = True
        if self._said.breaks is not None:
            raise self._said.breaks
        return self._said.body if self._said.chunks is None else b"".join(self._said.chunks)

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return _FakeChunks(self, self._said)

    @property
    def counted(self) -> Counted | None:
        return self._said.counted if self.is_over else None

    def abort(self) -> None:
        self.was_aborted = self.was_aborted or not self.is_over
        self.is_over = True


class _FakeChunks(AsyncGenerator[bytes, None]):
    """Pieces that, as the real ones, can be closed before the first was asked for."""

    def __init__(self, response: FakeResponse, said: Said) -> None:
        self._response = response
        self._said = said
        self._parts = list(said.chunks if said.chunks is not None else (said.body,))

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if self._response.was_aborted:
            raise StopAsyncIteration
        if self._said.stalls_after == self._response.num_read:
            await asyncio.get_running_loop().create_future()
        if self._response.num_read < len(self._parts):
            self._response.num_read += 1
            return self._parts[self._response.num_read - 1]
        self._response.is_over = True
        if self._said.breaks is not None:
            raise self._said.breaks
        raise StopAsyncIteration

    async def asend(self, value: None) -> bytes:
        return await self.__anext__()

    async def athrow(self, typ: object, val: object = None, tb: object = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        self._response.abort()


class MemoryRecorder:
    """A recorder that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.bodies: list[CallBodies | None] = []
        self.policies: list[LogPolicy | None] = []

    def record(
        self,
        record: CallRecord,
        bodies: CallBodies | None = None,
        *,
        policy: LogPolicy | None = None,
    ) -> None:
        self.records.append(record)
        self.bodies.append(bodies)
        self.policies.append(policy)


class FakeAdmission:
    """A call that passed; `settled` is what it gave back."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.settled: list[tuple[int, float]] = []
        self.remaining: Headers = [(b"x-ratelimit-remaining-requests", b"7")]

    def settle(self, *, tokens: int, cost_usd: float) -> None:
        self.settled.append((tokens, cost_usd))


class FakeLimiter:
    """Lets everything pass, at once or after a turn, until it is told to refuse."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.refusals: dict[str, Refusal] = {}
        """Those of one gateway or count alone, by its id."""
        self.turn: asyncio.Event | None = None
        """What calls wait for; None lets them pass at once."""
        self.admissions: list[FakeAdmission] = []
        self.left_the_queue = 0

    @property
    def unsettled(self) -> int:
        return sum(not admission.settled for admission in self.admissions)

    def admit(self, claim: Claim) -> Admission | Refusal | Awaitable[Admission | Refusal]:
        return self._decide(claim) if self.turn is None else self._later(claim, self.turn)

    def _decide(self, claim: Claim) -> Admission | Refusal:
        refusal = self.refusals.get(claim.gateway.id, self.refusal)
        if refusal is not None:
            return refusal
        admission = FakeAdmission(claim)
        self.admissions.append(admission)
        return admission

    async def _later(self, claim: Claim, turn: asyncio.Event) -> Admission | Refusal:
        try:
            await turn.wait()
        except asyncio.CancelledError:
            self.left_the_queue += 1
            raise
        return self._decide(claim)


class MemorySnapshots:
    """Gateways by account and id."""

    def __init__(self, *snapshots: GatewaySnapshot) -> None:
        self.by_place = {(each.gateway.account_id, each.gateway.id): each for each in snapshots}
        self.is_fresh = True
        """Whether `snapshot_nowait` knows anything."""
        self.asked: list[tuple[AccountId, str]] = []

    def snapshot_nowait(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        return self._of(account_id, gateway_id) if self.is_fresh else None

    async def snapshot(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        self.asked.append((account_id, gateway_id))
        return self._of(account_id, gateway_id)

    async def existing(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        return self._of(account_id, gateway_id)

    def _of(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        return next(
            (each for place, each in self.by_place.items() if place == (account_id, gateway_id)),
            None,
        )


class FakeCallers:
    """Who has which secret."""

    def __init__(self, *, token: bytes | None = None) -> None:
        self.token = token
        self.by_secret: dict[str | None, Principal] = {}
        self.is_fresh = True
        """Whether `peek` knows anything."""

    def peek(self, secret: str | None) -> Principal | None:
        return self.by_secret.get(secret) if self.is_fresh else None

    async def authenticate(self, secret: str | None) -> Principal:
        found = self.by_secret.get(secret)
        if found is None:
            raise AuthenticationError("Incorrect API key provided.")
        return found
