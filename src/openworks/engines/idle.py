"""Time that nobody else needs: work that runs while no request is under way, and begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from openworks.core.clock import Clock

_T = TypeVar("_T")


class Places:
    """Room for so much at once; several places are taken together or not at all."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = asyncio.Semaphore(number)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, number: int) -> AsyncIterator[None]:
        """Hold places while the block lasts; who wants more than there are gets all of them."""
        wanted, held = min(number, self._number), 0
        try:
            async with self._turn:  # so that two who have a part each never wait for each other
                while held < wanted:
                    await self._free.acquire()
                    held += 1
            yield
        finally:
            for _ in range(held):
                self._free.release()


class IdleTime:
    """What the engines of one machine have left over: they share its cores, so there is one."""

    def __init__(self, *, quiet_s: float, clock: Clock) -> None:
        """Begin with idle time.

        Args:
            quiet_s: How long nobody must have asked for anything before work goes on.
            clock: Of this process.
        """
        self._quiet_s = quiet_s
        self._clock = clock
        self._num_busy = 0
        self._idle_at_s = 0.0
        self._released = asyncio.Event()
        self._running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def suspended(self) -> AsyncIterator[None]:
        """Let nothing run while the block lasts; what runs is stopped before it begins."""
        self._num_busy += 1
        self._released.clear()
        try:
            if self._running:
                for task in self._running:
                    task.cancel()
                await asyncio.wait(self._running)
            yield
        finally:
            self._num_busy -= 1
            self._idle_at_s = self._clock.monotonic_s() + self._quiet_s
            if not self._num_busy:
                self._released.set()

    async def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do work; it is stopped when somebody needs the machine, and begun anew afterwards.

        Args:
            work: Makes the work; called as often as it is begun. It must let itself be cancelled.
        """
        while True:
            await self._come()
            task = asyncio.create_task(work())
            self._running.add(task)
            try:
                await asyncio.wait({task})
            finally:
                self._running.discard(task)
                if not task.done():  # we are cancelled ourselves
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                return task.result()

    async def _come(self) -> None:
        """Return when there is idle time."""
        while True:
            if self._num_busy:
                await self._released.wait()
            elif (left_s := self._idle_at_s - self._clock.monotonic_s()) > 0:
                await self._clock.sleep(left_s)
            else:
                return
