"""Counts one call while it runs, and makes its record when it ends, however it ends."""

from __future__ import annotations

import asyncio

from openworks.core.clock import Clock
from openworks.core.errors import AppError, ClientClosedRequestError
from openworks.ports.calls import Call, CallRecord, Outcome, Usage
from openworks.ports.catalog import Deployment
from openworks.ports.text import TextChunk


class Meter:
    """The running counts of one call."""

    def __init__(self, call: Call, clock: Clock) -> None:
        self.deployment: Deployment | None = None
        self.usage = Usage()
        self._call = call
        self._clock = clock
        self._created_at_s = clock.now_s()
        self._started_s = clock.monotonic_s()
        self._first_token_s: float | None = None

    def saw(self, chunk: TextChunk) -> None:
        """Take note of a chunk on its way to the caller."""
        says_something = chunk.content or chunk.reasoning or chunk.tool_calls
        if self._first_token_s is None and says_something and not self._call.is_background:
            self._first_token_s = self._clock.monotonic_s()
        if chunk.usage is not None:
            self.usage = chunk.usage

    def record(self, error: BaseException | None) -> CallRecord:
        """Make the record of a call that ended with `error`, or well when None."""
        outcome, status, code = _ending(error)
        return CallRecord(
            id=self._call.request_id,
            created_at_s=self._created_at_s,
            account_id=self._call.principal.account_id,
            key_id=self._call.principal.key_id,
            route=self._call.route,
            model=self._call.model,
            deployment=self.deployment.id if self.deployment else None,
            stream=self._call.stream,
            usage=self.usage,
            cost_usd=self.cost_usd(self.usage),
            first_token_ms=self._ms(self._first_token_s),
            duration_ms=self._ms(self._clock.monotonic_s()) or 0.0,
            outcome=outcome,
            status=status,
            error_code=code,
            gateway_id=self._call.gateway_id,
            endpoint=self._call.route,
            metadata=self._call.metadata,
        )

    def cost_usd(self, usage: Usage) -> float:
        """Return what `usage` costs by the price of the deployment."""
        if self.deployment is None:
            return 0.0
        price = self.deployment.entry.price
        return (
            usage.prompt_tokens * price.input_usd_per_mtok
            + usage.completion_tokens * price.output_usd_per_mtok
        ) / 1e6

    def _ms(self, at_s: float | None) -> float | None:
        return None if at_s is None else (at_s - self._started_s) * 1000


def _ending(error: BaseException | None) -> tuple[Outcome, int, str | None]:
    match error:
        case None:
            return "ok", 200, None
        case AppError():
            return "error", error.status, error.code
        case GeneratorExit() | asyncio.CancelledError():
            closed = ClientClosedRequestError
            return "client_closed", closed.status, closed.default_code
        case _:
            return "error", 500, "internal_error"
