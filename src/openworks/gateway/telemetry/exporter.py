"""Sends spans to the collectors of gateways: in batches, off the path of calls, never waiting."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from msgspec.structs import replace

from openworks.core.clock import Clock
from openworks.core.errors import AppError
from openworks.core.ids import AccountId
from openworks.gateway.telemetry.otlp_json import JSON
from openworks.gateway.telemetry.spans import Encoding, Span, span_of
from openworks.ports.calls import CallBodies, CallRecord
from openworks.ports.gateways import Gateway, LogPolicy, OtelExport
from openworks.ports.outbound import Outbound, UndeliveredError
from openworks.ports.snapshots import GatewaySnapshot

log = logging.getLogger(__name__)

_SAY_EVERY_S: Final = 60.0
_ATTEMPTS: Final = 4
_RETRY_S: Final = 1.0
_MAX_RETRY_S: Final = 30.0

_PART_SPANS: Final = 4
"""So many are encoded at once; calls wait for as long, half a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """Bounds of what waits to be sent."""

    max_spans: int = 4096
    """Waiting; further ones are dropped and counted."""
    max_bytes: int = 16 << 20
    """Of bodies in waiting spans; further spans go without theirs."""
    max_text_bytes: int = 64 << 10
    """Of one prompt or completion; what is longer is cut."""
    batch_spans: int = 128
    batch_bytes: int = 1 << 20
    gather_s: float = 1.0
    """How long a span waits for others."""
    max_sending: int = 16
    """Batches under way, over all collectors; those of a collector that is behind are dropped."""
    max_sending_each: int = 4
    """Batches under way to one collector."""


class GatewayLookup(Protocol):
    """Finds gateways by account and id."""

    def peek(self, account_id: AccountId, gateway_id: str) -> Gateway | None:
        """Return what is in memory and fresh; None says nothing."""
        ...

    async def snapshot(self, account_id: AccountId, gateway_id: str) -> GatewaySnapshot | None:
        """Return the gateway with all around it; None when there is none."""
        ...


_Waiting: TypeAlias = tuple[CallRecord, CallBodies | None, Gateway | None]
_Lane: TypeAlias = tuple[str, str, str]
"""Spans that may share a batch: account, gateway and URL."""


class SpanExporter:
    """`ports.recorder.Recorder`. Spans are best effort: the logs are what is kept."""

    def __init__(
        self,
        gateways: GatewayLookup,
        outbound: Outbound,
        *,
        clock: Clock,
        protobuf: Encoding | None = None,
        config: TelemetryConfig | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            gateways: Say where spans go.
            outbound: Sends.
            clock: Of this process.
            protobuf: None where the extra `otel` is not installed.
            config: The defaults when None.
        """
        self._gateways = gateways
        self._peek = gateways.peek
        self._outbound = outbound
        self._clock = clock
        self._config = config or TelemetryConfig()
        self._encodings: dict[Literal["json", "protobuf"], Encoding] = {"json": JSON}
        if protobuf is not None:
            self._encodings["protobuf"] = protobuf
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._batching = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._lanes: dict[_Lane, int] = {}
        self._said_at_s = -_SAY_EVERY_S
        self.sent_spans = 0
        """Spans that a collector has taken; one with two collectors counts twice."""
        self.dropped_spans = 0
        """Spans that found no room, or no collector that took them."""

    def record(
        self,
        record: CallRecord,
        bodies: CallBodies | None = None,
        *,
        policy: LogPolicy | None = None,
    ) -> None:
        """Take a call; almost nothing to do where its gateway sends no spans."""
        gateway = self._peek(record.account_id, record.gateway_id)
        if gateway is not None and not gateway.otel:
            return
        if len(self._waiting) >= self._config.max_spans:
            self._drop(1, "spans are made faster than they are sent")
            return
        if bodies is not None:
            bodies = self._kept(bodies, policy)
        self._waiting.append((record, bodies, gateway))
        self._wake.set()

    def open(self) -> None:
        """Begin to send."""
        self._worker = asyncio.create_task(self._work())

    async def close(self, *, timeout_s: float = 5.0) -> None:
        """Send what waits, for as long as `timeout_s`; what is left then is dropped."""
        assert self._worker is not None
        try:
            async with asyncio.timeout(timeout_s):
                async with self._batching:  # a batch that is being taken apart is not lost
                    self._worker.cancel()
                while self._waiting or self._sending:
                    await self._send_batch()
                    if self._sending:
                        await asyncio.wait(self._sending)
        except TimeoutError:
            self._drop(len(self._waiting), "the server is stopping")
            self._worker.cancel()
        with suppress(asyncio.CancelledError):
            await self._worker
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _kept(self, bodies: CallBodies, policy: LogPolicy | None) -> CallBodies | None:
        """What of the bodies may and can be told."""
        if policy is not None and not (policy.collect and policy.payloads):
            return None
        limit = self._config.max_text_bytes
        size = min(len(bodies.request), limit) + min(len(bodies.response), limit)
        if self._waiting_bytes + size > self._config.max_bytes:
            return None
        self._waiting_bytes += size
        return replace(bodies, request=bodies.request[:limit], response=bodies.response[:limit])

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            if len(self._waiting) < self._config.batch_spans:
                await self._clock.sleep(self._config.gather_s)
            self._wake.clear()
            while self._waiting:
                await self._send_batch()
                await asyncio.sleep(0)  # calls come first

    async def _send_batch(self) -> None:
        """Take a batch, and begin to send it to wherever its gateways say."""
        async with self._batching:
            await self._take_batch()

    async def _take_batch(self) -> None:
        lanes: dict[_Lane, tuple[OtelExport, list[Span]]] = {}
        size = count = 0
        while (
            self._waiting and count < self._config.batch_spans and size < self._config.batch_bytes
        ):
            record, bodies, gateway = self._waiting.popleft()
            count += 1
            if bodies is not None:
                size += len(bodies.request) + len(bodies.response)
            for export in await self._exports(record, gateway):
                lane: _Lane = (record.account_id, record.gateway_id, export.url)
                span = span_of(record, bodies, max_text_bytes=self._config.max_text_bytes)
                lanes.setdefault(lane, (export, []))[1].append(span)
        self._waiting_bytes = max(0, self._waiting_bytes - size)
        for where, (export, spans) in lanes.items():
            self._begin(where, export, spans)

    async def _exports(self, record: CallRecord, gateway: Gateway | None) -> Sequence[OtelExport]:
        if gateway is None:
            try:
                snapshot = await self._gateways.snapshot(record.account_id, record.gateway_id)
            except AppError as error:
                self._drop(1, error.message)
                return ()
            gateway = None if snapshot is None else snapshot.gateway
        return () if gateway is None else gateway.otel

    def _begin(self, lane: _Lane, export: OtelExport, spans: Sequence[Span]) -> None:
        busy = self._lanes.get(lane, 0)
        if busy >= self._config.max_sending_each or len(self._sending) >= self._config.max_sending:
            self._drop(len(spans), "a collector is behind")
            return
        encoding = self._encodings.get(export.content_type)
        if encoding is None:
            self._drop(len(spans), "protobuf needs the extra: pip install 'openworks[otel]'")
            return
        self._lanes[lane] = busy + 1
        task = asyncio.create_task(self._send(export, encoding, spans))
        self._sending.add(task)
        task.add_done_callback(lambda done: self._ended(lane, done))

    def _ended(self, lane: _Lane, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        left = self._lanes[lane] - 1
        if left:
            self._lanes[lane] = left
        else:
            del self._lanes[lane]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("otel.failed", exc_info=error)

    async def _send(self, export: OtelExport, encoding: Encoding, spans: Sequence[Span]) -> None:
        parts = []
        for begin in range(0, len(spans), _PART_SPANS):
            parts.append(encoding.encode(spans[begin : begin + _PART_SPANS]))
            await asyncio.sleep(0)
        body, headers = encoding.join(parts), _headers(export, encoding.content_type)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._outbound.post(export.url, body, headers)
            except UndeliveredError as error:
                if error.is_final or attempt == _ATTEMPTS:
                    self._drop(len(spans), error.message)
                    return
                wait_s = error.retry_after_s or _RETRY_S * 2 ** (attempt - 1)
                await self._clock.sleep(min(wait_s, _MAX_RETRY_S))
            else:
                self.sent_spans += len(spans)
                return

    def _drop(self, count: int, reason: str) -> None:
        if not count:
            return
        self.dropped_spans += count
        now_s = self._clock.monotonic_s()
        if now_s - self._said_at_s >= _SAY_EVERY_S:
            self._said_at_s = now_s
            log.warning("otel.dropped", extra={"spans": self.dropped_spans, "reason": reason})


def _headers(export: OtelExport, content_type: str) -> Mapping[str, str]:
    headers = {name.lower(): value for name, value in export.headers.items()}
    if export.authorization is not None:
        headers["authorization"] = export.authorization
    headers["content-type"] = content_type
    return headers
