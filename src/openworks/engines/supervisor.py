"""Keeps one engine process alive: starts it, notices its end, starts it again after a while."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import AppError, ModelLoadingError, ModelUnavailableError
from openworks.engines.client import EngineProcess
from openworks.ports.catalog import Deployment
from openworks.ports.engines import EngineState

log = logging.getLogger(__name__)

_STABLE_S = 30.0
"""An engine that lived this long has proved itself: its next failure counts as the first."""

_NOTICE_S = 0.01
_WATCH_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartConfig:
    """When an engine that died is started again, and how long requests wait for it."""

    backoff_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    """Seconds before the first restart; doubled with each failure in a row."""
    max_backoff_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """The longest pause between restarts, in seconds."""
    load_wait_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    """Seconds a request waits for a model that loads or restarts before it gets a 503."""
    stall_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Seconds without a word from an engine that has work after which it counts as hung."""
    cancel_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 180.0
    """The same for an engine that was told to drop a request and has not done so."""


class Supervisor:
    """One deployment's engine: `process` gives a ready one, `stop` ends it for good."""

    def __init__(
        self, deployment: Deployment, *, runtime_dir: Path, clock: Clock, config: RestartConfig
    ) -> None:
        self.deployment = deployment
        self.state: EngineState = "stopped"
        self.restarts = 0
        self.load_s: float | None = None
        self._runtime_dir = runtime_dir
        self._clock = clock
        self._config = config
        self._process: EngineProcess | None = None
        self._ready: asyncio.Future[EngineProcess] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._failures = 0
        self._retry_at_s = 0.0
        self._last_error: AppError | None = None

    @property
    def current(self) -> EngineProcess | None:
        """The process of this moment, ready or not."""
        return self._process

    async def process(self) -> EngineProcess:
        """Return a ready process, starting one if there is none.

        Raises:
            ModelLoadingError: It is not ready within `load_wait_s`; retryable.
            ModelUnavailableError: It failed to load and may be tried again later.
        """
        left_s = self._retry_at_s - self._clock.monotonic_s()
        if self._keeper is None or self._keeper.done():
            if left_s > 0 and self._last_error is not None:
                raise self._unavailable(left_s)
            self._start()
        elif self.state == "backing_off" and left_s > self._config.load_wait_s:
            raise self._unavailable(left_s)
        try:
            async with asyncio.timeout(self._config.load_wait_s):
                return await self._living()
        except TimeoutError:
            raise ModelLoadingError(
                f"Model {self.deployment.id!r} is still being loaded.",
                retry_after_s=max(1.0, self.load_s or 5.0),
            ) from None

    async def _living(self) -> EngineProcess:
        """Wait for a ready process that has not just died, before the keeper has seen it."""
        while True:
            assert self._ready is not None
            process = await asyncio.shield(self._ready)
            if process.is_alive:
                return process
            await asyncio.sleep(_NOTICE_S)

    async def stop(self) -> None:
        """End the process and do not start it again until it is asked for."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is not None:
            await self._process.stop()
        self._process = None
        self.state = "stopped"

    def _start(self) -> None:
        self._ready = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep())
        self._keeper.add_done_callback(self._keeper_ended)

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        """Tell those who wait when the keeper itself failed: nobody must wait for ever."""
        if keeper.cancelled() or (error := keeper.exception()) is None:
            return
        log.error("engine.keeper_failed", exc_info=error)
        self.state = "stopped"
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(
                ModelUnavailableError(f"Model {self.deployment.id!r} cannot be started: {error!r}")
            )
            self._ready.exception()

    async def _keep(self) -> None:
        """Run processes one after another until one fails to load."""
        while True:
            if not await self._load():
                return
            assert self._process is not None
            started_s = self._clock.monotonic_s()
            await self._until_gone(self._process)
            if self._clock.monotonic_s() - started_s > _STABLE_S:
                self._failures = 0
            self.restarts += 1
            pause_s = self._back_off()
            self._ready = asyncio.get_running_loop().create_future()
            log.warning(
                "engine.restarting",
                extra={
                    "deployment": self.deployment.id,
                    "after_s": pause_s,
                    "restarts": self.restarts,
                },
            )
            await self._clock.sleep(pause_s)

    async def _load(self) -> bool:
        """Start a process and wait until it is ready; False when it cannot be loaded."""
        assert self._ready is not None
        self.state = "starting"
        started_s = self._clock.monotonic_s()
        log.info("engine.loading", extra={"deployment": self.deployment.id})
        self._process = await EngineProcess.spawn(self.deployment, self._runtime_dir)
        try:
            await self._process.ready
        except AppError as error:
            await self._process.stop()
            self._last_error = error
            pause_s = self._back_off()
            self.state = "stopped"
            log.error(
                "engine.load_failed",
                extra={"deployment": self.deployment.id, "error": error.message},
            )
            if not self._ready.done():
                self._ready.set_exception(self._unavailable(pause_s))
                self._ready.exception()  # retrieved: perhaps nobody waits any more
            return False
        self.load_s = self._clock.monotonic_s() - started_s
        self.state = "ready"
        self._last_error = None
        self._ready.set_result(self._process)
        log.info(
            "engine.ready",
            extra={"deployment": self.deployment.id, "load_s": round(self.load_s, 3)},
        )
        return True

    async def _until_gone(self, process: EngineProcess) -> None:
        """Wait for the process to end; end it when it has work and says nothing for too long."""
        while not process.exited.done():
            await asyncio.wait({process.exited}, timeout=_WATCH_S)
            if self._is_hung(process):
                log.error("engine.stalled", extra={"deployment": self.deployment.id})
                await process.stop()

    def _is_hung(self, process: EngineProcess) -> bool:
        return (process.is_working and process.silent_s > self._config.stall_timeout_s) or (
            process.is_leaving and process.silent_s > self._config.cancel_timeout_s
        )

    def _back_off(self) -> float:
        """Count a failure; return the seconds until the next attempt."""
        pause_s = min(self._config.backoff_s * 2.0**self._failures, self._config.max_backoff_s)
        self._failures += 1
        self._retry_at_s = self._clock.monotonic_s() + pause_s
        self.state = "backing_off"
        return pause_s

    def _unavailable(self, left_s: float) -> ModelUnavailableError:
        if self._last_error is None:
            return ModelLoadingError(
                f"Model {self.deployment.id!r} is being restarted after a crash.",
                retry_after_s=left_s,
            )
        return ModelUnavailableError(
            f"Model {self.deployment.id!r} cannot be loaded: {self._last_error.message}",
            code=self._last_error.code,
            retry_after_s=left_s,
        )
