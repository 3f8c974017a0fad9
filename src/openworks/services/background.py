"""Work that comes round again and again, in a task that somebody owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from openworks.core.errors import AppError

log = logging.getLogger(__name__)


class Rounds:
    """Calls one coroutine function every so often, never twice at once."""

    def __init__(self, name: str, work: Callable[[], Awaitable[object]], *, every_s: float) -> None:
        """Do nothing yet.

        Args:
            name: For the log.
            work: One round; what it raises is logged, and the next round comes all the same.
            every_s: From the end of a round to the beginning of the next.
        """
        self._name = name
        self._work = work
        self._every_s = every_s
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin with the first round now."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Begin the next round as soon as this one is over."""
        self._wake.set()

    async def close(self) -> None:
        """Stop, also in the middle of a round."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._work()
            except AppError as error:
                log.warning("round.failed", extra={"job": self._name, "error": error.message})
            except Exception:
                # The boundary of one round: the next one may go well, and the log has the details.
                log.exception("round.failed", extra={"job": self._name})
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._wake.wait()
