from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from openworks.core.errors import StorageError
from openworks.core.ids import AccountId, KeyId
from openworks.gateway.limits import restoring
from openworks.gateway.limits.base import LimitsConfig
from openworks.gateway.limits.local import LocalLimiter
from openworks.gateway.limits.restoring import RestoringLimiter
from openworks.ports.calls import Usage
from openworks.ports.gateways import Gateway, RateLimit, Selector, SpendRule
from openworks.ports.limits import Admission, Claim, Refusal, Spent
from openworks.ports.logs import AnalyticsQuery, Dimension, Figures
from openworks.ports.logs import Spent as SpentRow
from tests.fakes import FakeClock
from tests.unit.gateway.limits.claims import ACCOUNT, claim, gateway

DAY = SpendRule(id="day", limit=1.0, window_s=86_400)


class FakeAnalytics:
    """A ledger that says what it is told."""

    def __init__(self) -> None:
        self.figures: list[Figures] = []
        self.rows: list[SpentRow] = []
        self.queries: list[AnalyticsQuery] = []
        self.spent_by: list[tuple[str, ...]] = []
        self.error: StorageError | None = None
        self.gate: asyncio.Event | None = None

    async def query(self, query: AnalyticsQuery) -> Sequence[Figures]:
        self.queries.append(query)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.figures

    async def spent(
        self, account_id: AccountId, gateway_id: str, *, since_s: float, by: tuple[str, ...] = ()
    ) -> Sequence[SpentRow]:
        self.spent_by.append(by)
        return self.rows


class Place:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.analytics = FakeAnalytics()
        self.local = LocalLimiter(clock=self.clock, config=LimitsConfig())
        self.restored: list[list[Spent]] = []
        self.limiter = RestoringLimiter(self.local, self._restore, self.analytics, self.clock)

    def _restore(self, account: AccountId, of: Gateway, rows: Sequence[Spent]) -> None:
        self.restored.append(list(rows))
        self.local.restore(account, of, rows)

    async def admit(self, asked: Claim) -> Admission | Refusal:
        decided = self.limiter.admit(asked)
        return await decided if isinstance(decided, Awaitable) else decided

    def spent_usd(self, of: Gateway) -> float:
        return sum(state.spent for state in self.local.budgets(ACCOUNT, of))


def figures(cost_usd: float, bucket_s: int, **group: str) -> Figures:
    names: dict[str, Dimension] = {"key": "key", "model": "model", "provider": "provider"}
    return Figures(
        bucket_s=bucket_s,
        group={names[name]: value for name, value in group.items()},
        requests=1,
        errors=0,
        cached=0,
        usage=Usage(prompt_tokens=3, completion_tokens=4),
        cost_usd=cost_usd,
        mean_duration_ms=0.0,
        mean_first_token_ms=None,
        duration=None,
        first_token=None,
    )


@pytest.fixture
def place() -> Place:
    return Place()


def bucket_of(place: Place) -> int:
    return int(place.clock.now_s()) // 60 * 60


async def test_first_call_of_a_budget_counts_what_the_ledger_says(place: Place) -> None:
    place.analytics.figures = [figures(0.9, bucket_of(place))]
    of = gateway(DAY)
    refused = await place.admit(claim(of, cost_usd=0.2))
    assert isinstance(refused, Refusal)
    assert refused.used == pytest.approx(0.9)
    assert not isinstance(await place.admit(claim(of, cost_usd=0.05)), Refusal)
    assert len(place.analytics.queries) == 1


async def test_gateway_without_budgets_waits_for_nothing(place: Place) -> None:
    decided = place.limiter.admit(claim(gateway(RateLimit(limit=1, interval_s=60))))
    assert hasattr(decided, "settle")
    assert not place.analytics.queries


async def test_restored_gateway_decides_at_once(place: Place) -> None:
    of = gateway(DAY)
    await place.admit(claim(of))
    assert hasattr(place.limiter.admit(claim(of)), "settle")


async def test_calls_that_come_together_restore_once_and_none_passes_before(place: Place) -> None:
    place.analytics.figures = [figures(0.95, bucket_of(place))]
    place.analytics.gate = asyncio.Event()
    of = gateway(DAY)
    calls = [asyncio.create_task(place.admit(claim(of, cost_usd=0.02))) for _ in range(5)]
    await asyncio.sleep(0.001)
    assert not any(call.done() for call in calls)
    place.analytics.gate.set()
    decided = await asyncio.gather(*calls)
    assert sum(isinstance(each, Refusal) for each in decided) == 3
    assert len(place.restored) == 1


async def test_ledger_that_is_away_refuses_and_is_asked_again(place: Place) -> None:
    of = gateway(DAY)
    place.analytics.error = StorageError("The database is away.")
    with pytest.raises(StorageError):
        await place.admit(claim(of))
    place.analytics.error = None
    place.analytics.figures = [figures(0.5, bucket_of(place))]
    await place.admit(claim(of))
    assert place.spent_usd(of) == pytest.approx(0.5)


async def test_caller_that_leaves_while_it_restores_leaves_the_work_to_the_next(
    place: Place,
) -> None:
    of = gateway(DAY)
    place.analytics.figures = [figures(0.5, bucket_of(place))]
    place.analytics.gate = asyncio.Event()
    first = asyncio.create_task(place.admit(claim(of)))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    place.analytics.gate.set()
    await place.admit(claim(of))
    assert place.spent_usd(of) == pytest.approx(0.5)


async def test_gateways_are_restored_each_for_itself(place: Place) -> None:
    await place.admit(claim(gateway(DAY, name="a")))
    await place.admit(claim(gateway(DAY, name="b")))
    assert [query.gateway_id for query in place.analytics.queries] == ["a", "b"]


async def test_counts_of_a_route_are_not_the_gateways(place: Place) -> None:
    place.analytics.figures = [figures(0.9, bucket_of(place))]
    of = gateway(DAY, name="main/route/element")
    assert not isinstance(await place.admit(claim(of, cost_usd=0.5)), Refusal)
    assert not place.analytics.queries


async def test_beyond_the_bound_nothing_is_restored_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "_MAX_GATEWAYS", 1)
    place.analytics.figures = [figures(0.4, bucket_of(place))]
    of = gateway(DAY, name="second")
    await place.admit(claim(gateway(DAY, name="first")))
    for _ in range(4):
        assert not isinstance(await place.admit(claim(of)), Refusal)
    assert place.spent_usd(of) == 0.0


async def test_sums_are_by_what_the_rules_look_at(place: Place) -> None:
    by_key = SpendRule(id="k", limit=1.0, window_s=3600, by={"key": Selector(mode="partition")})
    of = gateway(by_key)
    place.analytics.figures = [
        figures(0.9, bucket_of(place), key="key_1"),
        figures(0.1, bucket_of(place), key=""),
    ]
    assert isinstance(await place.admit(claim(of, key="key_1", cost_usd=0.2)), Refusal)
    assert not isinstance(await place.admit(claim(of, key="key_2", cost_usd=0.2)), Refusal)
    assert place.analytics.queries[0].group_by == ("key",)
    assert place.restored[0][1].key_id is None


async def test_sums_by_metadata_come_from_the_rows(place: Place) -> None:
    rule = SpendRule(
        id="m",
        limit=1.0,
        window_s=3600,
        by={"metadata.team": Selector(mode="partition"), "key": Selector(mode="partition")},
    )
    of = gateway(rule)
    place.analytics.rows = [
        SpentRow(values=("key_1", "red"), requests=1, tokens=7, cost_usd=0.9),
        SpentRow(values=("", ""), requests=1, tokens=7, cost_usd=0.9),
    ]
    red = {"team": "red"}
    refused = await place.admit(claim(of, key="key_1", metadata=red, cost_usd=0.2))
    assert isinstance(refused, Refusal)
    passed = await place.admit(claim(of, key="key_2", metadata=red, cost_usd=0.2))
    assert not isinstance(passed, Refusal)
    assert place.analytics.spent_by == [("key", "metadata.team")]
    assert place.restored[0][0].key_id == KeyId("key_1")


@pytest.mark.parametrize(("window_s", "step_s"), [(60, 60), (86_400, 60), (30 * 86_400, 3600)])
async def test_long_windows_are_asked_for_by_the_hour(
    place: Place, window_s: int, step_s: int
) -> None:
    await place.admit(claim(gateway(SpendRule(id="r", limit=1, window_s=window_s))))
    assert place.analytics.queries[0].step_s == step_s


async def test_hour_that_the_window_cuts_counts_whole(place: Place) -> None:
    rule = SpendRule(id="r", limit=1.0, window_s=7 * 86_400, technique="sliding")
    since_s = place.clock.now_s() - rule.window_s
    place.analytics.figures = [figures(0.9, int(since_s) // 3600 * 3600)]
    of = gateway(rule)
    await place.admit(claim(of))
    assert place.spent_usd(of) == pytest.approx(0.9)
