"""Answers the lines of batches side by side, and keeps each answer as soon as it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from typing import Final

import orjson

from openworks.core.clock import Clock
from openworks.core.errors import AppError, EngineCrashedError, RateLimitError
from openworks.core.ids import RequestId
from openworks.ports.batches import (
    Batch,
    BatchStore,
    LineAnswer,
    LineAnswerer,
    LineRequest,
    LineResult,
)
from openworks.ports.jobs import Claim
from openworks.services.batches.fair_turns import FairTurns
from openworks.services.batches.lines import RawLine

log = logging.getLogger(__name__)

_MAX_CRASHES: Final = 3
"""How often an engine may die over one line until the line counts as the reason."""
_MAX_FAILURES: Final = 10
_LONGEST_PAUSE_S: Final = 60.0
_UNITS: Final = 64
"""Room for the lines of one batch that are under way, however they wait."""
_UNIT_BYTES: Final = 256 << 10


class BatchAnswers:
    """The lines under way, of all batches of this server."""

    def __init__(
        self, store: BatchStore, answerer: LineAnswerer, *, max_lines: int, clock: Clock
    ) -> None:
        self._store = store
        self._answerer = answerer
        self._clock = clock
        self._turns = FairTurns(max_lines)
        self._alone = asyncio.Lock()

    async def answer(
        self,
        claim: Claim,
        batch: Batch,
        lines: AsyncGenerator[list[RawLine], None],
        *,
        must_rest: Callable[[], bool],
    ) -> bool:
        """Answer every line that has no answer yet; return whether all of them have one now.

        Args:
            claim: Of the batch's job.
            batch: The batch.
            lines: Those of its input, which were looked at.
            must_rest: Whether no further lines are to be begun.

        Raises:
            AppError: An answer could not be kept, or a line not be read.
        """
        done = {kept.number for kept in await self._store.list_results(batch.id)}
        results = _Results(self._store, claim)
        room = asyncio.Semaphore(_UNITS)
        try:
            async with asyncio.TaskGroup() as group:
                async for some in lines:
                    for line in some:
                        if line.number in done:
                            continue
                        if must_rest():
                            return False
                        units = min(_UNITS, 1 + len(line.data) // _UNIT_BYTES)
                        for _ in range(units):
                            await room.acquire()
                        task = group.create_task(self._answer_one(batch, line, results))
                        task.add_done_callback(_releasing(room, units))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return True

    async def _answer_one(self, batch: Batch, line: RawLine, results: _Results) -> None:
        number = f"{batch.id.removeprefix('batch_')}-{line.number}"
        given = orjson.loads(line.data)
        request = LineRequest(
            principal=batch.principal,
            endpoint=batch.endpoint,
            request_id=RequestId(f"req_{number}"),
            body=given["body"],
        )
        answer = await self._ask(batch, request)
        told = {
            "id": f"batch_req_{number}",
            "custom_id": given["custom_id"],
            "response": {
                "status_code": answer.status,
                "request_id": request.request_id,
                "body": orjson.Fragment(answer.body),
            },
            "error": None,
        }
        await results.keep(
            LineResult(
                number=line.number,
                is_error=answer.status >= 400,
                data=orjson.dumps(told),
                usage=answer.usage,
            )
        )

    async def _ask(self, batch: Batch, request: LineRequest) -> LineAnswer:
        """Ask until there is an answer; what is only a matter of time is waited for."""
        crashes = failures = 0
        while True:
            try:
                async with (
                    # One that was there when an engine died is tried again by itself, so that
                    # those that have nothing to do with it are not drawn in again.
                    self._alone if crashes else nullcontext(),
                    self._turns.turn(batch.account_id, batch.id),
                ):
                    return await self._answerer.answer(request)
            except AppError as error:
                crashes += isinstance(error, EngineCrashedError)
                failures += not isinstance(error, RateLimitError)
                if crashes >= _MAX_CRASHES or failures >= _MAX_FAILURES:
                    return self._answerer.refusal(error)
                fields = {"batch": batch.id, "request": request.request_id, "error": error.message}
                log.info("batch.line_waits", extra=fields)
                pause_s = error.retry_after_s or 2.0**failures
            await self._clock.sleep(min(pause_s, _LONGEST_PAUSE_S))


class _Results:
    """What is there while another write is under way is kept together by the next one."""

    def __init__(self, store: BatchStore, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._waiting: list[LineResult] = []
        self._turn = asyncio.Lock()

    async def keep(self, result: LineResult) -> None:
        """Keep a result; an error of the store ends the work on the whole batch."""
        self._waiting.append(result)
        async with self._turn:
            if self._waiting:
                group, self._waiting = self._waiting, []
                await self._store.add_results(self._claim, group)


def _releasing(room: asyncio.Semaphore, units: int) -> Callable[[object], None]:
    def release(_: object) -> None:
        for _unit in range(units):
            room.release()

    return release
