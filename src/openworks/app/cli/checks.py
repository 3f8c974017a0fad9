"""What works on this machine and why the rest does not, one finding after another."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from openworks.api.origins import is_loopback
from openworks.app.cli.first_load import first_token, patiently
from openworks.app.cli.launch import EXAMPLE_MODEL, bind
from openworks.app.cli.local_models import local_catalog
from openworks.app.cli.machine import (
    Finding,
    available_memory_bytes,
    examine_machine,
    memory_limit_bytes,
)
from openworks.app.cli.options import make_folder, read_settings
from openworks.app.cli.terminal import Stopwatch, bytes_text
from openworks.app.server import check_access
from openworks.app.settings import DEFAULT_FILE, ServerConfig, Settings, SettingsError
from openworks.app.state import State, database_url, installed_engines, make_weights, open_state
from openworks.core.clock import SystemClock
from openworks.core.errors import AppError
from openworks.engines.pool import EnginePool, physical_memory_bytes
from openworks.ports.catalog import Deployment, Task
from openworks.ports.text import EmbeddingRequest
from openworks.services.catalog import Catalog
from openworks.services.keys import is_active

_HUB_TIMEOUT_S = 5.0
_HEALTH_TIMEOUT_S = 2.0
_LITTLE_DISK_BYTES = 2_000_000_000
_GIB = 1 << 30
_OPTIONAL = {
    "openvino": "only for the batched engine, which is faster with it",
    "asyncpg": "only for state in PostgreSQL",
}


async def examine(
    report: Callable[[Finding], None],
    *,
    config: Path | None,
    data_dir: Path | None,
    models: list[str] | None,
) -> None:
    """Look at everything, telling each finding at once, as some take seconds."""
    for finding in examine_machine():
        report(finding)
    try:
        settings = read_settings(config, data_dir, models=models)
    except SettingsError as error:
        report(_fatal("settings", error))
        return
    report(_settings(settings, config))
    report(_memory(settings))
    folder = _data_folder(settings)
    report(folder)
    if not folder.is_fatal:
        async for finding in _state(settings):
            report(finding)
        async for finding in _models(settings):
            report(finding)
    report(await asyncio.to_thread(_batched_engine))
    report(_port(settings.server))
    report(_hub(settings))
    for finding in _optional():
        report(finding)


def _settings(settings: Settings, config: Path | None) -> Finding:
    file = config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    source = f"from {file}" if file else "no settings file; defaults, environment and options"
    return Finding(name="settings", mark="ok", reason=source)


def _memory(settings: Settings) -> Finding:
    total = physical_memory_bytes()
    available = available_memory_bytes()
    budget_gib = settings.engines.memory_budget_gib
    budget = int(budget_gib * _GIB) if budget_gib is not None else total * 8 // 10
    limit = memory_limit_bytes()
    if limit is not None and limit < budget:
        return Finding(
            name="memory",
            mark="off",
            reason=f"the container allows {_gib(limit)}, and models may take {_gib(budget)}",
            remedy=f"set engines.memory_budget_gib to {limit * 0.8 / _GIB:.1f} or less",
        )
    free = "" if available is None else f", {_gib(available)} of it available"
    return Finding(
        name="memory",
        mark="ok",
        reason=f"{_gib(total)}{free}; models may take {_gib(budget)} together",
    )


def _data_folder(settings: Settings) -> Finding:
    try:
        make_folder(settings)
        with tempfile.TemporaryFile(dir=settings.folder):
            pass
    except AppError as error:
        return _fatal("data folder", error)
    except OSError as exc:
        return Finding(
            name="data folder",
            mark="bad",
            reason=f"{settings.folder} cannot be written: {exc.strerror}",
            remedy="choose another with --data-dir",
            is_fatal=True,
        )
    free = shutil.disk_usage(settings.folder).free
    return Finding(
        name="data folder",
        mark="ok" if free > _LITTLE_DISK_BYTES else "off",
        reason=f"{settings.folder} is writable, {bytes_text(free)} free",
        remedy="" if free > _LITTLE_DISK_BYTES else "most models need more room",
    )


async def _state(settings: Settings) -> AsyncIterator[Finding]:
    watch = Stopwatch()
    kind = database_url(settings).partition(":")[0].partition("+")[0]
    try:
        async with open_state(settings) as state:
            yield Finding(
                name="database",
                mark="ok",
                reason=f"{kind} opens, its tables are up to date ({watch.elapsed_s:.2f} s)",
            )
            yield await _keys(settings, state)
    except AppError as error:
        yield _fatal("database", error)


async def _keys(settings: Settings, state: State) -> Finding:
    host = settings.server.host
    try:
        await check_access(state.keys, host)
    except SettingsError as error:
        return _fatal("keys", error)
    now_s = SystemClock().now_s()
    active = sum(is_active(key, now_s) for key in await state.keys.list())
    token = " and the access token" if settings.access.token is not None else ""
    if active or token:
        return Finding(name="keys", mark="ok", reason=f"{active} active{token}; requests need one")
    return Finding(
        name="keys",
        mark="off",
        reason=f"none: whoever reaches {host} may call"
        + (", which is this machine alone" if is_loopback(host) else ""),
        remedy="openworks keys create --name me",
    )


async def _models(settings: Settings) -> AsyncIterator[Finding]:
    weights = make_weights(settings)
    pool = EnginePool(settings.engines, clock=SystemClock())
    try:
        try:
            catalog, missing = await local_catalog(settings, weights)
        except AppError as error:
            yield _fatal("models", error)
            return
        for name in missing:
            yield Finding(
                name="model",
                mark="off",
                reason=f"{name} is not on this machine",
                remedy=f"openworks models pull {name}, or let `openworks serve` fetch it",
            )
        yield await _default(
            catalog,
            "text-generation",
            "chat model",
            lambda deployment: first_token(pool, deployment),
            is_needed=True,
        )
        yield await _default(
            catalog,
            "text-embeddings",
            "embeddings",
            lambda deployment: _embed(pool, deployment),
            is_needed=False,
        )
    finally:
        await pool.close()
        await weights.close()


async def _default(
    catalog: Catalog,
    task: Task,
    title: str,
    ask: Callable[[Deployment], Awaitable[None]],
    *,
    is_needed: bool,
) -> Finding:
    """Load the default model of a task and ask it for something small."""
    name = catalog.default(task)
    others = [entry.id for entry in catalog.served() if entry.task == task and entry.id != name]
    try:
        deployment = catalog.resolve(name or "")
    except AppError as error:
        return Finding(
            name=title,
            mark="off" if others else "bad",
            reason=error.message if name else "there is no default",
            remedy=f"openworks serve --model {others[0] if others else EXAMPLE_MODEL}",
            is_fatal=is_needed and not others,
        )
    watch = Stopwatch()
    try:
        await ask(deployment)
    except AppError as error:
        return Finding(
            name=title,
            mark="bad",
            reason=error.message,
            remedy="openworks serve --model NAME, with another model",
            is_fatal=is_needed,
        )
    what = "first token" if task == "text-generation" else "first vector"
    return Finding(
        name=title,
        mark="ok",
        reason=f"{deployment.id} loads; {what} after {watch.elapsed_s:.1f} s",
    )


async def _embed(pool: EnginePool, deployment: Deployment) -> None:
    request = EmbeddingRequest(inputs=["Hello"])
    await patiently(lambda: pool.embedder(deployment).embed(request))


def _batched_engine() -> Finding:
    """Say what would compute models with adapters."""
    if "batched" not in installed_engines():
        return Finding(
            name="batched engine",
            mark="off",
            reason="not installed; adapters run one to a process, on llama.cpp",
            remedy="pip install 'openworks[torch]'",
        )
    from openworks.engines.batched.executors import explain

    return Finding(name="batched engine", mark="ok", reason=explain())


def _port(config: ServerConfig) -> Finding:
    try:
        bind(config).close()
    except SettingsError as error:
        if _is_openworks(config):
            return Finding(
                name="port",
                mark="off",
                reason=f"an openworks server answers on port {config.port} already",
                remedy=f"for a second one: openworks serve --port {config.port + 1}",
            )
        return Finding(name="port", mark="off", reason=error.message)
    return Finding(name="port", mark="ok", reason=f"{config.host}:{config.port} is free")


def _is_openworks(config: ServerConfig) -> bool:
    connection = http.client.HTTPConnection(config.host, config.port, timeout=_HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return "status" in json.loads(connection.getresponse().read())
    except (OSError, ValueError, TypeError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _hub(settings: Settings) -> Finding:
    endpoint = settings.hub.endpoint
    watch = Stopwatch()
    # A daemon, as looking up a name cannot be given a time limit.
    answers: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=lambda: answers.put(_reach(endpoint)), daemon=True).start()
    try:
        problem = answers.get(timeout=_HUB_TIMEOUT_S)
    except queue.Empty:
        problem = f"no answer within {_HUB_TIMEOUT_S:g} s"
    if problem is None:
        token = "with a token" if settings.hub.token else "without a token"
        return Finding(
            name="Hub", mark="ok", reason=f"{endpoint} answers ({watch.elapsed_s:.1f} s), {token}"
        )
    return Finding(
        name="Hub",
        mark="off",
        reason=f"{endpoint} cannot be reached: {problem}",
        remedy="only fetching models needs it; HF_ENDPOINT names a mirror",
    )


def _reach(endpoint: str) -> str | None:
    """Return why an address does not answer; None when it does, whatever it says."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(endpoint, method="HEAD"), timeout=_HUB_TIMEOUT_S
        ):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except urllib.error.URLError as error:
        reason = error.reason
        return str(reason.strerror if isinstance(reason, OSError) and reason.strerror else reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error)


def _optional() -> Iterator[Finding]:
    for package, use in _OPTIONAL.items():
        installed = find_spec(package) is not None
        yield Finding(
            name=package,
            mark="ok" if installed else "off",
            reason=f"{'installed' if installed else 'not installed'}; {use}",
        )


def _fatal(name: str, error: AppError) -> Finding:
    return Finding(name=name, mark="bad", reason=error.message, is_fatal=True)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
