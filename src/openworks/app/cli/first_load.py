"""Loads the default chat model before the first request, and shows how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from openworks.api.context import Services
from openworks.app.cli.terminal import Stopwatch, bytes_text, logs_above
from openworks.core.errors import InvalidRequestError, ModelLoadingError, ModelNotFoundError
from openworks.engines.pool import resident_bytes
from openworks.ports.catalog import Deployment
from openworks.ports.engines import Engines, Residency
from openworks.ports.text import CompletionRequest, Sampling
from openworks.services.catalog import Catalog
from openworks.services.keys import DEFAULT_ACCOUNT

T = TypeVar("T")
_LOOK_S = 0.1


async def load_default(services: Services, catalog: Catalog, console: Console) -> str | None:
    """Load the default chat model, showing how far it is; say so when there is none.

    Returns:
        What was loaded and how long it took, in words.

    Raises:
        ModelUnavailableError: It cannot be loaded.
    """
    name = catalog.default("text-generation")
    if name is None:
        return None
    try:
        deployment = catalog.resolve(name)
    except ModelNotFoundError as error:
        console.print(f"[yellow]No chat model:[/] {escape(error.message)}")
        return None
    watch = Stopwatch()
    loading = asyncio.create_task(first_token(services.engines, deployment))
    try:
        if console.is_terminal:
            await _watch(services.engines, deployment, loading, console)
        else:
            size = bytes_text(deployment.memory_bytes)
            console.print(f"Loading {deployment.id} (about {size})", markup=False)
        await loading
    finally:
        loading.cancel()
        await asyncio.wait({loading})
    return f"Loaded {deployment.id} in {watch.elapsed_s:.1f} s"


async def first_token(engines: Engines, deployment: Deployment) -> None:
    """Return once a model is loaded and has made a token, however long its weights take.

    The token reads all weights into memory, so that no caller has to wait for that.

    Raises:
        ModelUnavailableError: It cannot be loaded.
    """
    request = CompletionRequest(prompt="Hello", sampling=Sampling(max_tokens=1))

    async def ask() -> None:
        with suppress(InvalidRequestError):  # it is loaded, and dislikes this prompt
            async for _ in engines.completions(deployment, DEFAULT_ACCOUNT).stream(request):
                pass

    await patiently(ask)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again for as long as the model is being loaded."""
    while True:
        with suppress(ModelLoadingError):
            return await ask()


async def _watch(
    engines: Engines, deployment: Deployment, loading: asyncio.Task[None], console: Console
) -> None:
    """Draw what the engine's process holds against what the model is expected to take.

    The share is an estimate: a model may be ready with less, as most of its cache is still empty.
    """
    bar = Progress(
        SpinnerColumn(),
        TextColumn("Loading {task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    total_bytes = deployment.memory_bytes
    with bar, logs_above():
        task = bar.add_task(escape(deployment.id), total=total_bytes, stage="")
        while not loading.done():
            row = _residency(engines, deployment)
            held_bytes = resident_bytes(row.pid) if row and row.pid is not None else 0
            is_ready = row is not None and row.state == "ready"
            share = 0.99 if is_ready else min(held_bytes / max(total_bytes, 1), 0.99)
            stage = f"{bytes_text(held_bytes)} of about {bytes_text(total_bytes)}"
            bar.update(
                task,
                completed=int(total_bytes * share),
                stage="making a first token" if is_ready else stage,
            )
            await asyncio.wait({loading}, timeout=_LOOK_S)


def _residency(engines: Engines, deployment: Deployment) -> Residency | None:
    return next((row for row in engines.residency() if row.deployment == deployment.id), None)
