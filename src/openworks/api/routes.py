"""Every route of the server, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from openworks.api import health
from openworks.api.answers import Answer
from openworks.api.body import BodyBudget, BodyLimits
from openworks.api.context import Context, Services
from openworks.api.endpoint import Endpoint, Handler
from openworks.api.openai import (
    chat,
    completions,
    embeddings,
    models,
    rerank,
    stored_completions,
    unserved,
)
from openworks.core.errors import MethodNotAllowedError
from openworks.ports.calls import Scope


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One method on one path."""

    method: str
    path: str
    handler: Handler
    scope: Scope | None = "inference"


ROUTES = (
    RouteSpec("GET", "/health", health.health, None),
    RouteSpec("GET", "/ready", health.ready, None),
    RouteSpec("GET", "/metrics", health.metrics, "admin"),
    RouteSpec("GET", "/v1/models", models.list_models),
    RouteSpec("GET", "/v1/models/{model:path}", models.retrieve),
    RouteSpec("DELETE", "/v1/models/{model:path}", models.delete),
    RouteSpec("POST", "/v1/chat/completions", chat.create),
    RouteSpec("GET", "/v1/chat/completions", stored_completions.list_completions),
    RouteSpec("GET", "/v1/chat/completions/{completion_id}", stored_completions.retrieve),
    RouteSpec("POST", "/v1/chat/completions/{completion_id}", stored_completions.update),
    RouteSpec("DELETE", "/v1/chat/completions/{completion_id}", stored_completions.delete),
    RouteSpec(
        "GET", "/v1/chat/completions/{completion_id}/messages", stored_completions.list_messages
    ),
    RouteSpec("POST", "/v1/completions", completions.create),
    RouteSpec("POST", "/v1/embeddings", embeddings.create),
    RouteSpec("POST", "/v1/rerank", rerank.create),
)


class ByMethod:
    """The endpoints of one path; an ASGI application."""

    def __init__(
        self,
        methods: Mapping[str, ASGIApp],
        services: Services,
        limits: BodyLimits,
        budget: BodyBudget,
    ) -> None:
        self._methods = methods
        self._other = Endpoint(self._refuse, services, limits, budget, route="unserved", scope=None)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._methods.get(method, self._other)(scope, receive, send)

    async def _refuse(self, context: Context) -> Answer:
        raise MethodNotAllowedError(
            f"{context.request.method} is not allowed on {context.request.url.path}; "
            f"allowed: {', '.join(sorted(self._methods))}."
        )


def starlette_routes(services: Services, limits: BodyLimits) -> list[Route | Mount]:
    """Return the routes; a path with another method is a 405, any other path a typed 404 or 501."""
    budget = BodyBudget(limits.max_total_bytes)
    by_path: dict[str, dict[str, ASGIApp]] = {}
    for spec in ROUTES:
        endpoint = Endpoint(
            spec.handler, services, limits, budget, route=spec.path, scope=spec.scope
        )
        by_path.setdefault(spec.path, {})[spec.method] = endpoint
    other = Endpoint(unserved.answer, services, limits, budget, route="unserved", scope=None)
    return [
        *(
            Route(path, ByMethod(methods, services, limits, budget))
            for path, methods in by_path.items()
        ),
        Mount("/", other),
    ]
