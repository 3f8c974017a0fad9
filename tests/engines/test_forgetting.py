"""What the pool says and does while engine processes come and go."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hf_folder import write_random_folder
from benchmarks.random_model import PRESETS
from openworks.core.clock import SystemClock
from openworks.engines.pool import EnginePool, EnginesConfig
from openworks.engines.supervisor import RestartConfig
from openworks.ports.adapters import Adapter
from openworks.ports.catalog import Deployment, ModelEntry
from tests.models import deployment, random_model


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    config = EnginesConfig(restart=RestartConfig(backoff_s=60, max_backoff_s=60))
    made = EnginePool(config, clock=SystemClock())
    yield made
    await made.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 # reports come from another process
            await asyncio.sleep(0.02)


async def test_adapter_that_is_deleted_twice_ends_each_of_its_processes_once(
    pool: EnginePool, tmp_path: Path
) -> None:
    weights = random_model(tmp_path / "random.gguf")
    adapter = Adapter(id="a", name="a", generation="g", folder=tmp_path, rank=1, size_bytes=1)
    loads = [
        asyncio.create_task(pool.preload(replace(deployment(weights, name), adapter=adapter)))
        for name in ("one", "two")
    ]
    await until(lambda: [row.pid is not None for row in pool.residency()] == [True, True])
    pool.forget("g")
    pool.forget("g")
    await pool.settled()
    assert pool.residency() == []
    for load in loads:
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load


async def test_engine_that_is_gone_reports_nothing(pool: EnginePool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_random_folder(tmp_path / "random", PRESETS["tiny"], dtype=torch.float32)
    await pool.preload(
        Deployment(
            entry=ModelEntry(id="random", name="random", task="text-generation"),
            engine="batched",
            weights=tmp_path / "random",
            context_tokens=256,
            parallel=4,
            cache_tokens=1024,
            precision="float32",
        )
    )
    await until(lambda: pool.residency()[0].report is not None)
    pid = pool.residency()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pool.residency()[0].state != "ready")
    assert pool.residency()[0].report is None
