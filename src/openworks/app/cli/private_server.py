"""A server in a thread of this process, on a free loopback port, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

from openworks.api.context import Services
from openworks.app.cli.first_load import load_default
from openworks.app.cli.terminal import Downloads, stderr
from openworks.app.server import serve
from openworks.app.settings import Settings
from openworks.app.state import make_catalog, make_weights


@contextmanager
def private_server(settings: Settings) -> Iterator[str]:
    """Yield the base URL of a server with these settings, but for host and port.

    Raises:
        AppError: It cannot be started.
    """
    own = replace(settings, server=replace(settings.server, host="127.0.0.1", port=0))
    ready: Future[str] = Future()
    loop = asyncio.new_event_loop()
    task = loop.create_task(_serve(own, ready))

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(asyncio.wait({task}))
            if not ready.done() and not task.cancelled() and (error := task.exception()):
                ready.set_exception(error)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        yield ready.result() + "/v1"
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


async def _serve(settings: Settings, ready: Future[str]) -> None:
    console = stderr()
    weights = make_weights(settings)
    try:
        downloads = Downloads(console)
        with downloads.shown():
            catalog = await make_catalog(settings, weights, on_progress=downloads.on_progress)

        async def on_open(services: Services) -> None:
            await load_default(services, catalog, console)

        await serve(
            settings,
            catalog,
            on_open=on_open,
            on_ready=ready.set_result,
        )
    finally:
        await weights.close()
