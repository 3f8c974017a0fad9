"""The lines of batches, answered by the handlers of the routes that they name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import orjson
from starlette.requests import Request

from openworks.api.answers import Answer, Json, unexpected
from openworks.api.context import Context, Services
from openworks.api.endpoint import Handler
from openworks.api.gateway.naming import is_remote
from openworks.api.openai import chat, completions, embeddings, responses
from openworks.core.errors import AppError, InvalidRequestError, UnsupportedParameterError
from openworks.core.ids import RequestId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.batches import LineAnswer, LineRequest
from openworks.ports.calls import Call, Principal, Usage
from openworks.ports.catalog import Task
from openworks.ports.gateways import DEFAULT_GATEWAY
from openworks.wire.openai.errors import error_body

log = logging.getLogger(__name__)

_HANDLERS: Final[dict[str, tuple[Handler, Task]]] = {
    "/v1/chat/completions": (chat.create, "text-generation"),
    "/v1/completions": (completions.create, "text-generation"),
    "/v1/embeddings": (embeddings.create, "text-embeddings"),
    "/v1/responses": (responses.create, "text-generation"),
}
ENDPOINTS: Final = tuple(_HANDLERS)
"""What a batch may be of."""


class BatchLines:
    """Implements `ports.batches.LineAnswerer` with this server's own routes."""

    def __init__(self, services: Callable[[], Services]) -> None:
        """Remember where the services are; they are complete only after the workers are."""
        self._services = services

    async def check_model(self, principal: Principal, endpoint: str, model: str) -> None:
        services = self._services()
        if is_remote(model, services.catalog):
            raise InvalidRequestError(
                f"Batches are answered by models of this server alone, which {model[:120]!r} is "
                "not.",
                code="model_not_supported",
                param="model",
            )
        await self._check_gateway(principal)
        call = Call(
            request_id=RequestId(services.new_id("req_")),
            principal=principal,
            route=endpoint,
            model=model,
        )
        _, task = _HANDLERS[endpoint]
        await services.pipeline.resolve(call, task)

    async def answer(self, request: LineRequest) -> LineAnswer:
        handler, _ = _HANDLERS[request.endpoint]
        context = Context(
            services=self._services(),
            request=Request(
                {"type": "http", "method": "POST", "path": request.endpoint, "headers": []}
            ),
            request_id=request.request_id,
            principal=request.principal,
            route=request.endpoint,
            body=orjson.dumps(request.body),
            is_background=True,
        )
        try:
            await self._check_gateway(request.principal)
            _check_whole(request.body)
            return _told(await handler(context))
        except AppError as error:
            if error.retryable:
                raise
            return self.refusal(error)
        except Exception:
            # The boundary of one line: it fails alone, and the log has the details.
            log.exception("batch.line_failed", extra={"request": request.request_id})
            return self.refusal(unexpected(request.request_id))

    def refusal(self, error: AppError) -> LineAnswer:
        return LineAnswer(status=error.status, body=orjson.dumps(error_body(error)))

    async def _check_gateway(self, principal: Principal) -> None:
        """Refuse what would pass by the guards that requests over HTTP go through."""
        snapshot = await self._services().snapshots.snapshot(principal.account_id, DEFAULT_GATEWAY)
        if snapshot is None:
            return
        gateway = snapshot.gateway
        if gateway.dlp or gateway.guardrails.prompt or gateway.guardrails.response:
            raise InvalidRequestError(
                f"The gateway {DEFAULT_GATEWAY!r} of this account guards what is said, which this "
                "server does not do in batches.",
                code="gateway_guards",
            )


def _check_whole(body: JsonObject) -> None:
    for param in ("stream", "background"):
        if body.get(param):
            raise UnsupportedParameterError(
                f"The lines of a batch are answered whole: '{param}' cannot be honoured.",
                param=param,
            )


def _told(answer: Answer) -> LineAnswer:
    assert isinstance(answer, Json), "these handlers answer with one document"
    return LineAnswer(
        status=answer.status,
        body=orjson.dumps(answer.body),
        usage=_usage(answer.body.get("usage")),
    )


def _usage(value: JsonValue) -> Usage:
    """Read the usage of any endpoint; older ones call the input prompt, the output completion."""
    usage = value if isinstance(value, dict) else {}
    return Usage(
        prompt_tokens=_count(usage, "input_tokens") + _count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "output_tokens") + _count(usage, "completion_tokens"),
        cached_tokens=_count(usage.get("input_tokens_details"), "cached_tokens")
        + _count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(usage.get("output_tokens_details"), "reasoning_tokens")
        + _count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _count(usage: JsonValue, name: str) -> int:
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if isinstance(number, int) else 0
