"""Alerts: tells a webhook once when a figure of a gateway passes its threshold.

An alert is armed while its figure is at or below the threshold. Crossing it sends one message and
disarms; falling back arms again. What is disarmed is kept, so a restart says nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Protocol, TypeAlias, assert_never

import orjson
from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import AppError
from openworks.core.ids import AccountId
from openworks.core.json import JsonObject
from openworks.ports.blobs import Blobs
from openworks.ports.document_scan import DocumentScan
from openworks.ports.gateways import Alert, Gateway
from openworks.ports.logs import Analytics, AnalyticsQuery, Figures
from openworks.ports.outbound import Outbound, UndeliveredError
from openworks.ports.snapshots import GatewaySnapshot
from openworks.wire.cloudflare.envelope import timestamp

log = logging.getLogger(__name__)

_STATE: Final = "alerts/disarmed.json"
_WAITS_S: Final = (1.0, 5.0, 25.0)
"""Between attempts of one round; the next round begins anew."""
_MAX_AT_ONCE: Final = 16
"""Messages under way; the others of a round wait their turn."""
_HEADERS: Final = {"content-type": "application/json", "user-agent": "openworks-alerts"}

_Key: TypeAlias = tuple[str, str, str]
"""Account, gateway and alert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """How often figures are looked at."""

    every_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """Seconds from one look at the figures to the next."""


class GatewayReader(Protocol):
    """Returns gateways with their secrets, of which the URL of a webhook is one."""

    async def snapshot(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        """Return the gateway with all around it; None when there is none."""
        ...


class Alerts:
    """Looks at every alert of every gateway; `services.background` calls it."""

    def __init__(
        self,
        scan: DocumentScan,
        gateways: GatewayReader,
        analytics: Analytics,
        outbound: Outbound,
        state: Blobs,
        *,
        clock: Clock,
    ) -> None:
        """Look at nothing yet.

        Args:
            scan: Finds the gateways.
            gateways: Read them.
            analytics: The figures.
            outbound: Sends to webhooks.
            state: Keeps which alerts are disarmed; the server's own blobs.
            clock: Of this process.
        """
        self._scan = scan
        self._gateways = gateways
        self._analytics = analytics
        self._outbound = outbound
        self._state = state
        self._clock = clock
        self._disarmed: set[_Key] | None = None
        self._free = asyncio.Semaphore(_MAX_AT_ONCE)

    async def run_all(self) -> int:
        """Look once, and return how many messages were delivered."""
        if self._disarmed is None:
            self._disarmed = await self._load()
        before, seen = set(self._disarmed), set[_Key]()
        crossed: list[tuple[_Key, Alert, float]] = []
        async for key, alert, value in self._looks():
            seen.add(key)
            if value is None:
                continue  # nothing is known of it, so it stays as it is
            if value <= alert.threshold:
                self._disarmed.discard(key)
            elif key not in self._disarmed:
                crossed.append((key, alert, value))
        self._disarmed &= seen  # what was deleted is forgotten
        delivered = await asyncio.gather(*(self._tell(*item) for item in crossed))
        if self._disarmed != before:
            await self._save()
        return sum(delivered)

    async def _looks(self) -> AsyncIterator[tuple[_Key, Alert, float | None]]:
        """Yield every alert with its figure now; None where there is none to be had."""
        async for batch in self._scan.scan("gateway"):
            for document in batch:
                if not document.body.get("alerts"):
                    continue
                snapshot = await self._gateways.snapshot(document.account_id, document.id)
                if snapshot is None:
                    continue
                for alert in snapshot.gateway.alerts:
                    key = (document.account_id, document.id, alert.id)
                    yield key, alert, await self._figure(snapshot.gateway, alert)

    async def _figure(self, gateway: Gateway, alert: Alert) -> float | None:
        now_s = self._clock.now_s()
        query = AnalyticsQuery(
            account_id=gateway.account_id,
            gateway_id=gateway.id,
            since_s=now_s - alert.window_s,
            until_s=now_s,
            metrics=frozenset({"duration"}) if alert.figure == "p95_ms" else frozenset(),
        )
        try:
            rows = await self._analytics.query(query)
        except AppError as error:
            log.warning("alert.failed", extra={"alert": alert.id, "error": error.message})
            return None
        return _value(alert, rows[0]) if rows else 0.0

    async def _tell(self, key: _Key, alert: Alert, value: float) -> bool:
        """Send one message; False leaves the alert armed, so that the next round tries again."""
        assert self._disarmed is not None
        body = orjson.dumps(_message(key, alert, value, self._clock.now_s()))
        async with self._free:
            for wait_s in (*_WAITS_S, None):
                try:
                    await self._outbound.post(alert.url, body, _HEADERS)
                except UndeliveredError as error:
                    if error.is_final or wait_s is None:
                        log.warning(
                            "alert.undelivered",
                            extra={"gateway": key[1], "alert": alert.id, "error": error.message},
                        )
                        return False
                    await self._clock.sleep(max(wait_s, error.retry_after_s or 0.0))
                else:
                    self._disarmed.add(key)
                    return True
        return False

    async def _load(self) -> set[_Key]:
        kept = await self._state.get(_STATE)
        if kept is None:
            return set()
        return {(str(item[0]), str(item[1]), str(item[2])) for item in orjson.loads(kept)}

    async def _save(self) -> None:
        await self._state.put(_STATE, orjson.dumps(sorted(self._disarmed or ())))


def _value(alert: Alert, row: Figures) -> float:
    match alert.figure:
        case "cost":
            return row.cost_usd
        case "requests":
            return float(row.requests)
        case "error_rate":
            return row.errors / row.requests if row.requests else 0.0
        case "p95_ms":
            return row.duration.p95_ms if row.duration is not None else 0.0
        case _:
            assert_never(alert.figure)


def _message(key: _Key, alert: Alert, value: float, now_s: float) -> Mapping[str, object]:
    account, gateway, alert_id = key
    found: JsonObject = {
        "type": "ai_gateway.alert",
        "account_id": account,
        "gateway_id": gateway,
        "alert_id": alert_id,
        "figure": alert.figure,
        "value": value,
        "threshold": alert.threshold,
        "window": alert.window_s,
        "at": timestamp(now_s),
    }
    return found
