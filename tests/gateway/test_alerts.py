"""Webhooks hear of a figure once when it passes its threshold, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openworks.core.errors import StorageError
from openworks.core.ids import AccountId
from openworks.gateway.http.transport import Http1Transport
from openworks.gateway.outbound import TransportOutbound
from openworks.ports.calls import Usage
from openworks.ports.documents import Document, DocumentKind
from openworks.ports.gateways import Alert, Gateway, GatewayId
from openworks.ports.logs import AnalyticsQuery, Figures, Quantiles, Spent
from openworks.ports.snapshots import GatewaySnapshot
from openworks.services.alerts import Alerts
from openworks.storage.blobs.store import ObjectBlobs
from openworks.wire.cloudflare.envelope import timestamp
from tests.fakes import FakeClock
from tests.gateway.gateway_server import GatewayServer
from tests.gateway.stand_in import Reply, Request, StandIn, stand_in_on_thread
from tests.server import wait_until

ACCOUNT = AccountId("acct")


@dataclass(slots=True)
class Desk:
    """Everything that alerts ask: gateways, and figures that tests set."""

    alerts: dict[str, tuple[Alert, ...]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    is_away: bool = False
    asked: list[AnalyticsQuery] = field(default_factory=list)

    async def scan(
        self, kind: DocumentKind, *, batch: int = 200
    ) -> AsyncIterator[Sequence[Document]]:
        yield [
            Document(
                kind=kind,
                account_id=ACCOUNT,
                parent="",
                id=name,
                body={"alerts": [{"id": alert.id} for alert in alerts]},
                created_at_s=0,
                modified_at_s=0,
            )
            for name, alerts in self.alerts.items()
        ]

    async def snapshot(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        gateway = Gateway(
            account_id=account_id, id=GatewayId(gateway_id), alerts=self.alerts[gateway_id]
        )
        return GatewaySnapshot(gateway=gateway)

    async def query(self, query: AnalyticsQuery) -> Sequence[Figures]:
        if self.is_away:
            raise StorageError("The database is away.")
        self.asked.append(query)
        given = {
            "requests": 0,
            "errors": 0,
            "cached": 0,
            "cost_usd": 0.0,
            "p95_ms": 0.0,
            **self.figures,
        }
        p95_ms = given.pop("p95_ms")
        return [
            Figures(
                bucket_s=None,
                group={},
                usage=Usage(),
                mean_duration_ms=0,
                mean_first_token_ms=None,
                duration=Quantiles(p50_ms=0, p95_ms=p95_ms, p99_ms=0),
                first_token=None,
                **given,
            )
        ]

    async def spent(
        self, account_id: AccountId, gateway_id: str, *, since_s: float, by: tuple[str, ...] = ()
    ) -> Sequence[Spent]:
        return []


@dataclass(slots=True)
class World:
    desk: Desk
    hook: StandIn
    clock: FakeClock
    outbound: TransportOutbound
    state: ObjectBlobs
    alerts: Alerts

    def watch(self, figure: Any = "cost", threshold: float = 1.0, name: str = "a") -> None:
        alert = Alert(
            id=name,
            figure=figure,
            threshold=threshold,
            window_s=300,
            url=f"{self.hook.url}/hooks/{name}",
        )
        self.desk.alerts["gw"] = (*self.desk.alerts.get("gw", ()), alert)

    def restart(self) -> None:
        self.alerts = Alerts(
            self.desk, self.desk, self.desk, self.outbound, self.state, clock=self.clock
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with StandIn(script=lambda _: Reply(status=204)) as hook:
        transport = Http1Transport()
        outbound = TransportOutbound(transport, allow_private=True)
        desk, clock, state = Desk(), FakeClock(), ObjectBlobs(str(tmp_path))
        alerts = Alerts(desk, desk, desk, outbound, state, clock=clock)
        yield World(desk, hook, clock, outbound, state, alerts)
        await transport.close()


async def test_webhook_hears_once_of_a_crossing_and_again_of_the_next(world: World) -> None:
    world.watch()
    sent = []
    for cost in (0.5, 1.0, 1.5, 3.0, 0.9, 1.1, 1.2):
        world.desk.figures = {"cost_usd": cost}
        sent.append(await world.alerts.run_all())

    assert sent == [0, 0, 1, 0, 0, 1, 0]
    first: Request = world.hook.requests[0]
    assert (first.method, first.target) == ("POST", "/hooks/a")
    assert first.json() == {
        "type": "ai_gateway.alert",
        "account_id": "acct",
        "gateway_id": "gw",
        "alert_id": "a",
        "figure": "cost",
        "value": 1.5,
        "threshold": 1.0,
        "window": 300,
        "at": timestamp(world.clock.now_s()),
    }
    assert world.desk.asked[0].until_s - world.desk.asked[0].since_s == 300


@pytest.mark.parametrize(
    ("figure", "threshold", "figures"),
    [
        ("cost", 1.0, {"cost_usd": 1.1}),
        ("requests", 10, {"requests": 11}),
        ("error_rate", 0.2, {"requests": 4, "errors": 1}),
        ("p95_ms", 900, {"p95_ms": 901.0, "requests": 1}),
    ],
)
async def test_every_figure_has_its_alert(
    world: World, figure: str, threshold: float, figures: dict[str, Any]
) -> None:
    world.watch(figure, threshold)

    assert await world.alerts.run_all() == 0
    world.desk.figures = figures
    assert await world.alerts.run_all() == 1


async def test_error_rate_of_no_requests_is_no_error_rate(world: World) -> None:
    world.watch("error_rate", 0.0)

    assert await world.alerts.run_all() == 0


async def test_webhook_that_stumbles_is_asked_again_after_growing_waits(world: World) -> None:
    world.watch()
    world.desk.figures = {"cost_usd": 2.0}
    world.hook.queue(Reply(status=500), Reply(status=502))

    assert await world.alerts.run_all() == 1
    assert world.clock.slept_s == [1.0, 5.0]
    assert await world.alerts.run_all() == 0


async def test_message_that_nobody_took_is_sent_in_the_next_round(world: World) -> None:
    world.watch()
    world.desk.figures = {"cost_usd": 2.0}
    world.hook.script(lambda _: Reply(status=500))
    assert await world.alerts.run_all() == 0
    assert len(world.hook.requests) == 4
    world.hook.script(lambda _: Reply(status=200))

    assert await world.alerts.run_all() == 1


async def test_restart_says_nothing_twice(world: World) -> None:
    world.watch()
    world.desk.figures = {"cost_usd": 2.0}
    await world.alerts.run_all()
    world.restart()

    assert await world.alerts.run_all() == 0
    world.desk.figures = {"cost_usd": 0.0}
    await world.alerts.run_all()
    world.desk.figures = {"cost_usd": 2.0}
    world.restart()
    assert await world.alerts.run_all() == 1


async def test_database_that_is_away_neither_alarms_nor_arms(world: World) -> None:
    world.watch()
    world.desk.figures = {"cost_usd": 2.0}
    await world.alerts.run_all()
    world.desk.is_away = True
    await world.alerts.run_all()
    world.desk.is_away = False

    assert await world.alerts.run_all() == 0


async def test_alert_that_was_deleted_and_made_anew_is_armed(world: World) -> None:
    world.watch()
    world.desk.figures = {"cost_usd": 2.0}
    await world.alerts.run_all()
    alerts, world.desk.alerts = world.desk.alerts, {}
    await world.alerts.run_all()
    world.desk.alerts = alerts

    assert await world.alerts.run_all() == 1


async def test_redirect_of_a_webhook_is_not_followed(world: World) -> None:
    world.watch()
    world.desk.figures = {"cost_usd": 2.0}
    away = (("location", f"{world.hook.url}/elsewhere"),)
    world.hook.script(lambda _: Reply(status=307, headers=away))

    assert await world.alerts.run_all() == 0
    assert [request.target for request in world.hook.requests] == ["/hooks/a"]


async def test_webhook_in_a_private_network_is_not_reached_where_that_is_not_allowed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.watch()
    world.desk.figures = {"cost_usd": 2.0}
    transport = Http1Transport()
    outbound = TransportOutbound(transport, allow_private=False)
    alerts = Alerts(world.desk, world.desk, world.desk, outbound, world.state, clock=world.clock)

    assert await alerts.run_all() == 0
    await transport.close()
    assert not world.hook.requests
    assert "hooks" not in caplog.text  # the path of a webhook is its secret


def test_server_alarms_when_calls_cost_too_much(provider: StandIn, tmp_path: Path) -> None:
    server = GatewayServer(provider, tmp_path, {"gateway.alerts.every_s": 1})
    with stand_in_on_thread(StandIn(script=lambda _: Reply(status=200))) as hook:
        try:
            server.control(
                "POST",
                "/gateways",
                {
                    "id": "gw",
                    "alerts": [
                        {
                            "id": "spend",
                            "figure": "cost",
                            "threshold": 0.4,
                            "window": 3600,
                            "url": f"{hook.url}/secret-path",
                        }
                    ],
                    "cache_ttl": 0,
                    "cache_invalidate_on_update": False,
                    "collect_logs": True,
                    "rate_limiting_interval": 0,
                    "rate_limiting_limit": 0,
                },
            )
            server.http.post(
                f"{server.url}/gateway/v1/default/gw/openai/chat/completions",
                json={"model": "mock", "messages": []},
                headers={
                    "cf-aig-authorization": "Bearer owner-token-of-the-tests",
                    "cf-aig-custom-cost": '{"total_cost": 0.5}',
                },
            )
            wait_until(lambda: len(hook.requests) > 0, what="the webhook")
        finally:
            server.stop()
        (request,) = hook.requests

    assert (request.target, request.json()["value"]) == ("/secret-path", 0.5)
