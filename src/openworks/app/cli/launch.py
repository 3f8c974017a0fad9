"""Starts a server before a person's eyes: port, weights, first load, and a banner when it is up."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

from openworks import __version__
from openworks.api.context import Services
from openworks.app.cli.first_load import load_default
from openworks.app.cli.options import make_folder
from openworks.app.cli.terminal import (
    Downloads,
    stderr,
    stdout,
)
from openworks.app.logs import set_up_logs
from openworks.app.server import check_access, serve
from openworks.app.settings import ServerConfig, Settings, SettingsError
from openworks.app.state import make_catalog, make_weights, open_state
from openworks.services.catalog import Catalog

DEMONSTRATION_MODEL = "@openworks/tiny-chat"
EXAMPLE_MODEL = "Qwen/Qwen3-0.6B-GGUF"
"""What the messages recommend to whoever has not chosen a model yet."""

_EXAMPLE_BODY = '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; returns when everything is closed.

    Raises:
        KeyboardInterrupt: A signal came before the server was ready.
        AppError: It cannot be served; the message says why.
    """
    set_up_logs(settings.log)
    signal.signal(signal.SIGTERM, _interrupt)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(launch(settings))


async def launch(settings: Settings) -> None:
    """Do in order all that a server needs, what may fail early first."""
    with bind(settings.server) as listener:
        make_folder(settings)
        async with open_state(settings) as state:
            await check_access(state.keys, settings.server.host)
        weights = make_weights(settings)
        try:
            downloads = Downloads(stderr())
            with downloads.shown():
                catalog = await make_catalog(settings, weights, on_progress=downloads.on_progress)
            start = _Start(settings, catalog)
            await serve(
                settings,
                catalog,
                listener=listener,
                on_open=start.on_open,
                on_ready=start.on_ready,
            )
        finally:
            await weights.close()


def bind(config: ServerConfig) -> socket.socket:
    """Take the port now, before anything that lasts.

    Raises:
        SettingsError: It is taken, forbidden or not of this machine; the message says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as exc:
        raise SettingsError(f"Cannot listen on {config.host}:{config.port}: {exc}.") from exc
    try:
        if sys.platform != "win32":  # there, it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as exc:
        listener.close()
        raise SettingsError(_why_not(config, exc)) from exc
    return listener


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where there is one."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


class _Start:
    """What is shown between the download and the first request."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._is_guarded = False

    async def on_open(self, services: Services) -> None:
        """Load the default chat model."""
        self._is_guarded = await services.keys.is_guarded()
        console = stderr()
        if (loaded := await load_default(services, self._catalog, console)) is not None:
            console.out(loaded, highlight=False)

    def on_ready(self, url: str) -> None:
        """Say what is served, and how to reach it."""
        console = stdout()
        host = self._settings.server.host
        usual = url.replace(host, _WILDCARDS.get(host, host)).replace("[[", "[").replace("]]", "]")
        console.print()
        console.print(f"[bold]openworks {__version__}[/] listens on [bold green]{url}[/]")
        console.print()
        for title, fact in (
            ("Chat", self._default("text-generation")),
            ("Embeddings", self._default("text-embeddings")),
            ("Access", self._access()),
            ("Data", str(self._settings.folder.absolute())),
        ):
            console.out(f"  {title:<12}{fact}", highlight=False)
        console.print()
        if self._catalog.default("text-generation") == DEMONSTRATION_MODEL:
            console.print(
                f"{DEMONSTRATION_MODEL} is a tiny demonstration model, which knows next to nothing."
            )
            console.print(f"Serve a real one:  openworks serve --model {EXAMPLE_MODEL}")
            console.print()
        for line in self._example(usual):
            console.out(f"  {line}", style="cyan", highlight=False)
        console.print()
        if console.is_terminal:
            console.print("Ctrl-C stops it.", style="dim")
        sys.stdout.flush()

    def _default(self, task: str) -> str:
        for entry in self._catalog.served():
            if entry.task == task and entry.id == self._catalog.default(entry.task):
                return entry.id
        return "none"

    def _access(self) -> str:
        if self._settings.access.token is not None:
            return "needs the access token of the settings, or a key"
        if self._is_guarded:
            return "needs a key; see them with: openworks keys list"
        return "open to this machine; to ask for keys: openworks keys create --name me"

    def _example(self, url: str) -> tuple[str, ...]:
        key = " -H 'Authorization: Bearer YOUR_KEY'" if self._is_guarded else ""
        return (
            f"curl {url}/v1/chat/completions{key} \\",
            "  -H 'Content-Type: application/json' \\",
            f"  -d '{_EXAMPLE_BODY}'",
        )


def _why_not(config: ServerConfig, error: OSError | OverflowError) -> str:
    place = f"{config.host}:{config.port}"
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return (
                f"Port {config.port} on {config.host} is in use by another program. Stop it, or "
                f"choose another port: openworks serve --port {config.port + 1}"
            )
        case errno.EACCES:
            return f"Not allowed to listen on {place}; ports under 1024 are for the superuser."
        case errno.EADDRNOTAVAIL:
            return f"Cannot listen on {place}: {config.host} is not an address of this machine."
        case _:
            return f"Cannot listen on {place}: {error}."


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Before the server is ready, let `kill` end things as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)
