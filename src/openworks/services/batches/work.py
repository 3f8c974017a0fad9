"""The work on batches: their lines looked at, answered, and gathered into files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from openworks.core.clock import Clock
from openworks.core.errors import AppError, LeaseLostError
from openworks.core.json import JsonObject
from openworks.ports.batches import Batch, BatchStore, LineAnswerer
from openworks.ports.jobs import Claim
from openworks.services.batches.answers import BatchAnswers
from openworks.services.batches.batches import BatchesConfig
from openworks.services.batches.files import BatchFiles, Ending
from openworks.services.batches.lines import LineCheck, fault, read_lines
from openworks.services.files import Files

_SLICE_S: Final = 60.0
"""How long a batch goes on while others wait for its place."""
_WAIT_S: Final = 15.0
"""When one that found no place looks again."""


class BatchWork:
    """Brings batches to their end. Implements `services.workers.JobHandler`."""

    def __init__(
        self,
        store: BatchStore,
        files: Files,
        outcome: BatchFiles,
        answerer: LineAnswerer,
        config: BatchesConfig,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._files = files
        self._outcome = outcome
        self._answerer = answerer
        self._answers = BatchAnswers(store, answerer, max_lines=config.max_lines, clock=clock)
        self._config = config
        self._clock = clock
        self._num_active = 0
        self._is_crowded = False

    async def work(self, claim: Claim) -> None:
        if self._num_active >= self._config.max_batches:
            self._is_crowded = True
            await self._postpone(claim)
            return
        self._num_active += 1
        try:
            await self._work(claim)
        finally:
            self._num_active -= 1

    async def cancel(self, claim: Claim) -> None:
        await self._outcome.finish(claim, await self._get(claim), "cancelled")

    async def give_up(self, claim: Claim, error: AppError) -> None:
        reason = fault(error.code or error.type, error.message)
        await self._outcome.finish(claim, await self._get(claim), "failed", [reason])

    async def _work(self, claim: Claim) -> None:
        batch = await self._get(claim)
        left_s = max(0.0, batch.expires_at_s - self._clock.now_s())
        ending: Ending | None = "expired"
        errors: Sequence[JsonObject] = ()
        try:
            async with asyncio.timeout(left_s) as window:
                ending, errors = await self._answer(claim, batch)
        except TimeoutError:
            if not window.expired():
                raise
        if ending is None:
            self._is_crowded = False
            await self._postpone(claim)
        else:
            await self._outcome.finish(claim, await self._get(claim), ending, errors)

    async def _answer(
        self, claim: Claim, batch: Batch
    ) -> tuple[Ending | None, Sequence[JsonObject]]:
        """Answer what is left to be answered; return how the batch ends, and why.

        None: it goes on another time, and others are first.
        """
        num_lines = model = None
        if batch.status == "validating":
            check = await self._look_through(batch)
            if check.errors:
                return "failed", check.errors
            num_lines, model = check.num_lines, check.model
        if batch.status in {"validating", "in_progress"}:
            at_s = self._clock.now_s()
            batch = await self._store.advance(
                claim, "in_progress", at_s=at_s, num_lines=num_lines, model=model
            )
        if batch.status == "in_progress":
            file = await self._files.find(batch.account_id, batch.input_file_id)
            if file is None:
                return "failed", [_gone(batch)]
            begun_s = self._clock.monotonic_s()

            def must_rest() -> bool:
                return self._is_crowded and self._clock.monotonic_s() - begun_s > _SLICE_S

            async with aclosing(read_lines(self._files, file)) as lines:
                if not await self._answers.answer(claim, batch, lines, must_rest=must_rest):
                    return None, ()
            batch = await self._store.advance(claim, "finalizing", at_s=self._clock.now_s())
        return ("cancelled" if batch.status == "cancelling" else "completed"), ()

    async def _look_through(self, batch: Batch) -> LineCheck:
        """Look at every line before the first is answered."""
        check = LineCheck(batch.endpoint, max_lines=self._config.max_requests)
        file = await self._files.find(batch.account_id, batch.input_file_id)
        if file is None:
            check.errors.append(_gone(batch))
            return check
        async with aclosing(read_lines(self._files, file)) as lines:
            async for some in lines:
                if not await asyncio.to_thread(check.feed, some):
                    return check
        if check.model is not None:
            try:
                await self._answerer.check_model(batch.principal, batch.endpoint, check.model)
            except AppError as error:
                if error.retryable:
                    raise
                check.refuse_model(error)
        return check

    async def _get(self, claim: Claim) -> Batch:
        batch = await self._store.get(claim.account_id, claim.subject_id)
        if batch is None:
            raise LeaseLostError(f"The batch {claim.subject_id!r} is gone.")
        return batch

    async def _postpone(self, claim: Claim) -> None:
        await self._store.postpone(claim, due_at_s=self._clock.now_s() + _WAIT_S)


def _gone(batch: Batch) -> JsonObject:
    return fault(
        "file_not_found",
        f"The file {batch.input_file_id!r} with the requests is gone.",
        param="input_file_id",
    )
