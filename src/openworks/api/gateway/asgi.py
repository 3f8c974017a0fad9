"""The data plane as an ASGI application: the long way, for whatever the short one leaves aside."""

from __future__ import annotations

import logging

from starlette.types import Receive, Scope, Send

from openworks.api.body import BodyBudget, BodyLimits, read_body
from openworks.api.busy import UnderWay
from openworks.api.context import Services
from openworks.api.endpoint import until_left
from openworks.api.gateway.entry import begin
from openworks.api.gateway.paths import read_target
from openworks.api.gateway.relayed import send_gateway_answer
from openworks.api.gateway.websocket import Sockets
from openworks.core.errors import AppError, ClientClosedRequestError, InternalError, NotFoundError
from openworks.gateway.messages import GatewayAnswer, GatewayRequest
from openworks.gateway.plane import refusal

log = logging.getLogger(__name__)


class GatewayApp:
    """Answers everything below `/gateway/v1`."""

    def __init__(
        self, services: Services, limits: BodyLimits, budget: BodyBudget, under_way: UnderWay
    ) -> None:
        self._services = services
        self._sockets = Sockets(services, budget, under_way)
        self._limits = limits
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
            return
        request = read_target(
            scope["method"].encode(),
            scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b""),
            list(scope["headers"]),
        )
        if request is None:
            path = scope["path"]
            error = NotFoundError(
                f"A gateway's path is /gateway/v1/ACCOUNT/GATEWAY/PROVIDER/..., not {path!r:.120}.",
                code="unknown_url",
            )
            await send_gateway_answer(refusal(error), send)
            return
        try:
            request.body = await read_body(scope, receive, self._limits, self._budget)
        except ClientClosedRequestError:
            return
        except AppError as error:
            answer = refusal(error)
            answer.headers.append((b"connection", b"close"))  # the body is not wanted
            await send_gateway_answer(answer, send)
            return
        try:
            await until_left(self._work(request, send), receive)
        finally:
            self._budget.give_back(len(request.body))

    async def _work(self, request: GatewayRequest, send: Send) -> None:
        begun = begin(self._services, request)
        try:
            answer = begun if isinstance(begun, GatewayAnswer) else await begun.run()
        except Exception:
            # The boundary of one request: it fails alone, and the log has the details.
            log.exception("request.failed", extra={"route": request.route})
            error = InternalError("The gateway had an error while processing your request.")
            await send_gateway_answer(refusal(error), send)
            return
        await send_gateway_answer(answer, send)
