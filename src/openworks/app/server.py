"""The HTTP server: routes under uvicorn, with limits that uvicorn leaves to us."""

from __future__ import annotations

import gc
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from openworks.api.body import BodyBudget
from openworks.api.busy import BusyGuard, UnderWay
from openworks.api.context import Services
from openworks.api.gateway.front import Front
from openworks.api.origins import OriginGuard, is_loopback
from openworks.api.routes import starlette_routes
from openworks.app.protocol import protocol_class
from openworks.app.settings import ServerConfig, Settings, SettingsError
from openworks.app.wiring import open_services
from openworks.services.catalog import Catalog
from openworks.services.keys import Keys


def make_app(
    services: Services,
    config: ServerConfig,
    *,
    budget: BodyBudget,
    under_way: UnderWay,
) -> Starlette:
    """Return the ASGI application; `budget` and `under_way` count what comes in by any way."""
    middleware = [
        Middleware(
            OriginGuard,
            services.keys,
            allowed_hosts=config.allowed_hosts,
            allowed_origins=config.cors_origins,
        ),
        Middleware(BusyGuard, under_way=under_way, new_id=services.new_id),
    ]
    if config.cors_origins:
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=list(config.cors_origins),
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "openai-processing-ms", "retry-after"],
            ),
        )
    return Starlette(
        routes=starlette_routes(services, config.body, budget, under_way), middleware=middleware
    )


async def check_access(keys: Keys, host: str) -> None:
    """Return if the server may listen on `host`.

    Raises:
        SettingsError: It is reachable from elsewhere and nobody would need a key.
    """
    if not is_loopback(host) and not await keys.is_guarded():
        raise SettingsError(
            f"Refusing to listen on {host}, where other machines can reach it, without any API "
            "key. Make one with `openworks keys create --name me`, or set OPENWORKS_ACCESS_TOKEN."
        )


async def serve(
    settings: Settings,
    catalog: Catalog,
    *,
    on_ready: Callable[[str], None],
    on_open: Callable[[Services], Awaitable[None]] | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Listen until SIGINT or SIGTERM; outside the main thread, until cancelled.

    Args:
        settings: Of this process.
        catalog: The models to serve.
        on_ready: Called with the base URL once requests are welcome.
        on_open: Awaited before that, with everything open.
        listener: A bound socket to listen on; None for the settings' host and port.
    """
    async with open_services(settings, catalog) as services:
        await check_access(services.keys, settings.server.host)
        if on_open is not None:
            await on_open(services)
        _settle_memory()
        server = _Server(uvicorn_config(services, settings.server), on_ready)
        await server.serve(None if listener is None else [listener])


def _settle_memory() -> None:
    """Keep the garbage collector from walking through everything that stays, over and over.

    What is there now stays; what calls leave is nearly all freed by counting. Measured on the data
    plane: a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def uvicorn_config(services: Services, config: ServerConfig) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    budget = BodyBudget(config.body.max_total_bytes)
    under_way = UnderWay(config.max_requests)
    front = Front(
        services.plane,
        services.keys,
        limits=config.body,
        budget=budget,
        under_way=under_way,
        allowed_hosts=frozenset(config.allowed_hosts),
    )
    return uvicorn.Config(
        make_app(services, config, budget=budget, under_way=under_way),
        host=config.host,
        port=config.port,
        http=protocol_class(
            config.header_timeout_s, body_timeout_s=config.body.timeout_s, front=front
        ),
        ws="websockets-sansio",
        ws_max_size=config.body.max_bytes,
        ws_per_message_deflate=False,  # it costs memory for each socket, and events are short
        lifespan="off",
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(config.shutdown_grace_s),
        backlog=2048,
    )


class _Server(uvicorn.Server):
    """Tells when it listens, and on which port."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            self._on_ready(f"http://{host}:{port}")

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on a signal; uvicorn would raise it again and so cut off what is still to close."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
