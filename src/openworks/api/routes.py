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
from openworks.api.busy import UnderWay
from openworks.api.cloudflare import (
    analytics,
    audit,
    custom_providers,
    datasets,
    evaluations,
    exports,
    finetunes,
    gateways,
    logs,
    provider_configs,
    to_markdown,
    urls,
)
from openworks.api.cloudflare import routes as dynamic_routes
from openworks.api.cloudflare.simulation import simulate
from openworks.api.context import Context, FormKind, Services
from openworks.api.dialects import ANTHROPIC, CLOUDFLARE, OPENAI, Dialect, dialect_of
from openworks.api.endpoint import Endpoint, Handler
from openworks.api.gateway import rest
from openworks.api.gateway.asgi import GatewayApp
from openworks.api.multipart import FormEndpoint
from openworks.api.openai import (
    assistants,
    batches,
    completions,
    conversation_items,
    conversations,
    files,
    messages,
    models,
    rerank,
    responses,
    run_steps,
    runs,
    stored_completions,
    threads,
    unserved,
    uploads,
)
from openworks.api.openai.assistants_version import version_2
from openworks.core.errors import MethodNotAllowedError
from openworks.ports.calls import Scope


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One method on one path."""

    method: str
    path: str
    handler: Handler
    scope: Scope | None = "inference"
    dialect: Dialect = OPENAI
    form: FormKind | None = None
    """What kind of form its body is, if it is one: with files, and limits of its own."""


def _control(method: str, path: str, handler: Handler) -> RouteSpec:
    """Return a route of the AI Gateway's control plane."""
    return RouteSpec(method, f"{_CONTROL_PLANE}{path}", handler, "admin", CLOUDFLARE)


def _assistants(method: str, path: str, handler: Handler) -> RouteSpec:
    """Return a route of the Assistants API."""
    return RouteSpec(method, f"/v1{path}", version_2(handler))


_AI = "/client/v4/accounts/{account_id}/ai"
_FINETUNE = f"{_AI}/finetunes/{{finetune_id}}"
_CONTROL_PLANE = "/client/v4/accounts/{account_id}/ai-gateway"
_GATEWAY = "/gateways/{gateway_id}"
_CONFIG = f"{_GATEWAY}/provider_configs/{{config_id}}"
_ROUTE = f"{_GATEWAY}/routes/{{route_id}}"
_LOG = f"{_GATEWAY}/logs/{{log_id}}"
_MESSAGE = "/threads/{thread_id}/messages/{message_id}"
_RUN = "/threads/{thread_id}/runs/{run_id}"
_CONVERSATION = "/v1/conversations/{conversation_id}"
_DATASET = f"{_GATEWAY}/datasets/{{dataset_id}}"
_EVALUATION = f"{_GATEWAY}/evaluations/{{evaluation_id}}"

ROUTES = (
    RouteSpec("GET", "/health", health.health, None),
    RouteSpec("GET", "/ready", health.ready, None),
    RouteSpec("GET", "/metrics", health.metrics, "admin"),
    RouteSpec("GET", "/v1/models", models.list_models),
    RouteSpec("GET", "/v1/models/{model:path}", models.retrieve),
    RouteSpec("DELETE", "/v1/models/{model:path}", models.delete, "admin"),
    RouteSpec("POST", "/v1/chat/completions", rest.chat_completions),
    RouteSpec("GET", "/v1/chat/completions", stored_completions.list_completions),
    RouteSpec("GET", "/v1/chat/completions/{completion_id}", stored_completions.retrieve),
    RouteSpec("POST", "/v1/chat/completions/{completion_id}", stored_completions.update),
    RouteSpec("DELETE", "/v1/chat/completions/{completion_id}", stored_completions.delete),
    RouteSpec(
        "GET", "/v1/chat/completions/{completion_id}/messages", stored_completions.list_messages
    ),
    RouteSpec("GET", "/v1/files", files.list_files),
    RouteSpec("POST", "/v1/files", files.create, form="file"),
    RouteSpec("GET", "/v1/files/{file_id}", files.retrieve),
    RouteSpec("DELETE", "/v1/files/{file_id}", files.delete),
    RouteSpec("GET", "/v1/files/{file_id}/content", files.content),
    RouteSpec("POST", "/v1/uploads", uploads.create),
    RouteSpec("POST", "/v1/uploads/{upload_id}/parts", uploads.add_part, form="part"),
    RouteSpec("POST", "/v1/uploads/{upload_id}/complete", uploads.complete),
    RouteSpec("POST", "/v1/uploads/{upload_id}/cancel", uploads.cancel),
    _assistants("GET", "/assistants", assistants.list_assistants),
    _assistants("POST", "/assistants", assistants.create),
    _assistants("GET", "/assistants/{assistant_id}", assistants.retrieve),
    _assistants("POST", "/assistants/{assistant_id}", assistants.update),
    _assistants("DELETE", "/assistants/{assistant_id}", assistants.delete),
    _assistants("GET", "/threads", threads.list_threads),
    _assistants("POST", "/threads", threads.create),
    _assistants("POST", "/threads/runs", runs.create_with_thread),  # before an id of a thread
    _assistants("GET", "/threads/{thread_id}", threads.retrieve),
    _assistants("POST", "/threads/{thread_id}", threads.update),
    _assistants("DELETE", "/threads/{thread_id}", threads.delete),
    _assistants("GET", "/threads/{thread_id}/messages", messages.list_messages),
    _assistants("POST", "/threads/{thread_id}/messages", messages.create),
    _assistants("GET", _MESSAGE, messages.retrieve),
    _assistants("POST", _MESSAGE, messages.update),
    _assistants("DELETE", _MESSAGE, messages.delete),
    _assistants("GET", "/threads/{thread_id}/runs", runs.list_runs),
    _assistants("POST", "/threads/{thread_id}/runs", runs.create),
    _assistants("GET", _RUN, runs.retrieve),
    _assistants("POST", _RUN, runs.update),
    _assistants("POST", f"{_RUN}/cancel", runs.cancel),
    _assistants("POST", f"{_RUN}/submit_tool_outputs", runs.submit_tool_outputs),
    _assistants("GET", f"{_RUN}/events", runs.events),
    _assistants("GET", f"{_RUN}/steps", run_steps.list_steps),
    _assistants("GET", f"{_RUN}/steps/{{step_id}}", run_steps.retrieve),
    RouteSpec("GET", "/v1/batches", batches.list_batches),
    RouteSpec("POST", "/v1/batches", batches.create),
    RouteSpec("GET", "/v1/batches/{batch_id}", batches.retrieve),
    RouteSpec("POST", "/v1/batches/{batch_id}/cancel", batches.cancel),
    RouteSpec("POST", "/v1/responses", rest.responses_of),
    RouteSpec("POST", "/v1/responses/compact", responses.compact),
    RouteSpec("POST", "/v1/responses/input_tokens", responses.count_input_tokens),
    RouteSpec("GET", "/v1/responses/{response_id}", responses.retrieve),
    RouteSpec("DELETE", "/v1/responses/{response_id}", responses.delete),
    RouteSpec("POST", "/v1/responses/{response_id}/cancel", responses.cancel),
    RouteSpec("GET", "/v1/responses/{response_id}/input_items", responses.list_input_items),
    RouteSpec("POST", "/v1/conversations", conversations.create),
    RouteSpec("GET", _CONVERSATION, conversations.retrieve),
    RouteSpec("POST", _CONVERSATION, conversations.update),
    RouteSpec("DELETE", _CONVERSATION, conversations.delete),
    RouteSpec("GET", f"{_CONVERSATION}/items", conversation_items.list_items),
    RouteSpec("POST", f"{_CONVERSATION}/items", conversation_items.create),
    RouteSpec("GET", f"{_CONVERSATION}/items/{{item_id}}", conversation_items.retrieve),
    RouteSpec("DELETE", f"{_CONVERSATION}/items/{{item_id}}", conversation_items.delete),
    RouteSpec("POST", "/v1/completions", completions.create),
    RouteSpec("POST", "/v1/embeddings", rest.embeddings_of),
    RouteSpec("POST", "/v1/rerank", rerank.create),
    RouteSpec("POST", "/v1/messages", rest.messages, dialect=ANTHROPIC),
    RouteSpec("POST", f"{_AI}/v1/chat/completions", rest.account_chat),
    RouteSpec("POST", f"{_AI}/v1/embeddings", rest.account_embeddings),
    RouteSpec("POST", f"{_AI}/v1/responses", rest.account_responses),
    RouteSpec("POST", f"{_AI}/v1/messages", rest.account_messages, dialect=ANTHROPIC),
    RouteSpec("POST", f"{_AI}/run", rest.run, dialect=CLOUDFLARE),
    RouteSpec("POST", f"{_AI}/run/{{model:path}}", rest.run_model, dialect=CLOUDFLARE),
    RouteSpec("GET", f"{_AI}/finetunes", finetunes.list_finetunes, dialect=CLOUDFLARE),
    RouteSpec("POST", f"{_AI}/finetunes", finetunes.create, "admin", CLOUDFLARE),
    RouteSpec("GET", f"{_AI}/finetunes/public", finetunes.list_public, dialect=CLOUDFLARE),
    RouteSpec("DELETE", _FINETUNE, finetunes.delete, "admin", CLOUDFLARE),
    RouteSpec(
        "POST", f"{_FINETUNE}/finetune-assets", finetunes.upload, "admin", CLOUDFLARE, "asset"
    ),
    RouteSpec("GET", f"{_AI}/tomarkdown/supported", to_markdown.supported, dialect=CLOUDFLARE),
    RouteSpec(
        "POST", f"{_AI}/tomarkdown", to_markdown.transform, dialect=CLOUDFLARE, form="documents"
    ),
    _control("GET", "/gateways", gateways.list_gateways),
    _control("POST", "/gateways", gateways.create),
    _control("GET", _GATEWAY, gateways.retrieve),
    _control("PUT", _GATEWAY, gateways.update),
    _control("DELETE", _GATEWAY, gateways.delete),
    _control("GET", f"{_GATEWAY}/url/{{provider:path}}", urls.retrieve),
    _control("GET", f"{_GATEWAY}/provider_configs", provider_configs.list_configs),
    _control("POST", f"{_GATEWAY}/provider_configs", provider_configs.create),
    _control("GET", _CONFIG, provider_configs.retrieve),
    _control("PUT", _CONFIG, provider_configs.update),
    _control("DELETE", _CONFIG, provider_configs.delete),
    _control("GET", f"{_GATEWAY}/routes", dynamic_routes.list_routes),
    _control("POST", f"{_GATEWAY}/routes", dynamic_routes.create),
    _control("GET", _ROUTE, dynamic_routes.retrieve),
    _control("PATCH", _ROUTE, dynamic_routes.update),
    _control("DELETE", _ROUTE, dynamic_routes.delete),
    _control("GET", f"{_ROUTE}/versions", dynamic_routes.list_versions),
    _control("POST", f"{_ROUTE}/versions", dynamic_routes.create_version),
    _control("GET", f"{_ROUTE}/versions/{{version_id}}", dynamic_routes.retrieve_version),
    _control("GET", f"{_ROUTE}/deployments", dynamic_routes.list_deployments),
    _control("POST", f"{_ROUTE}/deployments", dynamic_routes.deploy),
    _control("POST", f"{_ROUTE}/simulate", simulate),
    _control("GET", "/custom-providers", custom_providers.list_providers),
    _control("POST", "/custom-providers", custom_providers.create),
    _control("GET", "/custom-providers/{provider_id}", custom_providers.retrieve),
    _control("PUT", "/custom-providers/{provider_id}", custom_providers.update),
    _control("PATCH", "/custom-providers/{provider_id}", custom_providers.update),
    _control("DELETE", "/custom-providers/{provider_id}", custom_providers.delete),
    _control("GET", "/audit", audit.list_entries),
    _control("GET", "/analytics", analytics.of_account),
    _control("GET", f"{_GATEWAY}/analytics", analytics.of_gateway),
    _control("GET", f"{_GATEWAY}/logs", logs.list_logs),
    _control("DELETE", f"{_GATEWAY}/logs", logs.delete),
    _control("GET", f"{_GATEWAY}/logs/export", exports.export),
    _control("GET", _LOG, logs.retrieve),
    _control("PATCH", _LOG, logs.update),
    _control("GET", f"{_LOG}/request", logs.retrieve_request),
    _control("GET", f"{_LOG}/response", logs.retrieve_response),
    _control("GET", f"{_GATEWAY}/datasets", datasets.list_datasets),
    _control("POST", f"{_GATEWAY}/datasets", datasets.create),
    _control("GET", _DATASET, datasets.retrieve),
    _control("PUT", _DATASET, datasets.update),
    _control("DELETE", _DATASET, datasets.delete),
    _control("GET", f"{_DATASET}/logs", datasets.list_logs),
    _control("GET", f"{_GATEWAY}/evaluations", evaluations.list_evaluations),
    _control("POST", f"{_GATEWAY}/evaluations", evaluations.create),
    _control("GET", _EVALUATION, evaluations.retrieve),
    _control("DELETE", _EVALUATION, evaluations.delete),
    _control("GET", "/evaluation-types", evaluations.list_types),
)


class ByMethod:
    """The endpoints of one path; an ASGI application."""

    def __init__(
        self,
        methods: Mapping[str, ASGIApp],
        services: Services,
        limits: BodyLimits,
        budget: BodyBudget,
        dialect: Dialect,
    ) -> None:
        self._methods = methods
        self._other = Endpoint(
            self._refuse, services, limits, budget, route="unserved", scope=None, dialect=dialect
        )

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._methods.get(method, self._other)(scope, receive, send)

    async def _refuse(self, context: Context) -> Answer:
        raise MethodNotAllowedError(
            f"{context.request.method} is not allowed on {context.request.url.path}; "
            f"allowed: {', '.join(sorted(self._methods))}."
        )


def starlette_routes(
    services: Services, limits: BodyLimits, budget: BodyBudget, under_way: UnderWay
) -> list[Route | Mount]:
    """Return the routes; a path with another method is a 405, any other path a typed 404 or 501."""
    by_path: dict[str, dict[str, ASGIApp]] = {}
    for spec in ROUTES:
        forms = None if spec.form is None else services.forms[spec.form]
        endpoint: ASGIApp = Endpoint(
            spec.handler,
            services,
            limits if forms is None else forms.limits,
            budget,
            route=spec.path,
            scope=spec.scope,
            dialect=spec.dialect,
        )
        if forms is not None:
            endpoint = FormEndpoint(endpoint, forms)
        by_path.setdefault(spec.path, {})[spec.method] = endpoint
    dialects = {spec.path: spec.dialect for spec in ROUTES}
    others = {
        mount: Endpoint(
            unserved.answer,
            services,
            limits,
            budget,
            route="unserved",
            scope=None,
            dialect=dialect_of(f"{mount}/"),
        )
        for mount in ("/client/v4", "/")
    }
    return [
        *(
            Route(path, ByMethod(methods, services, limits, budget, dialects[path]))
            for path, methods in by_path.items()
        ),
        Mount("/gateway/v1", GatewayApp(services, limits, budget, under_way)),
        *(Mount(mount, other) for mount, other in others.items()),
    ]
