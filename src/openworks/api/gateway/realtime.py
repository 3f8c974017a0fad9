"""Realtime APIs of providers through the gateway: one WebSocket on either side, and a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from openworks.api.answers import denying
from openworks.api.context import Services
from openworks.api.gateway.naming import provider_of
from openworks.api.gateway.opening import Opened
from openworks.api.gateway.relayed import send_gateway_answer
from openworks.core.errors import (
    AppError,
    ClientClosedRequestError,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimitError,
    SpendLimitError,
)
from openworks.core.ids import RequestId
from openworks.gateway.messages import GatewayRequest
from openworks.gateway.plane import refusal
from openworks.gateway.providers.base import Credential, Provider
from openworks.gateway.providers.prepare import prepare
from openworks.gateway.providers.prices import cost_usd
from openworks.ports.calls import CallRecord, Outcome, Usage
from openworks.ports.limits import Admission, Claim, Refusal
from openworks.ports.sockets import ProviderSocket, SocketMessage
from openworks.ports.upstream import UpstreamRequest

_GOOGLE: Final = "google-ai-studio"
_PATHS: Final = {
    "openai": "v1/realtime",
    _GOOGLE: ("ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"),
}
"""Provider → its WebSocket, where callers name no path."""
_SECRET_PROTOCOLS: Final = {
    "openai-insecure-api-key.": (b"authorization", b"Bearer "),
    "xi-api-key.": (b"xi-api-key", b""),
    "fal-api-key.": (b"authorization", b"Key "),
}
"""How browsers show a provider's own key → the header that it is."""
_OUR_PROTOCOL: Final = "cf-aig-authorization."
_SWITCHING: Final = 101
_LOST: Final = 1011
_GONE: Final = 1001
"""What the provider is told when a client is gone without a word."""
_UNSENDABLE: Final = frozenset({1004, 1005, 1006, 1015})


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_token_details: _Details = _Details()  # elsewhere OpenAI has input_tokens_details


class _Done(msgspec.Struct):
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Done | None = None


_event = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class _Session:
    """What is written down of one connection."""

    id: RequestId
    created_at_s: float
    started_s: float
    provider: str
    endpoint: str
    model: str
    usage: Usage = field(default_factory=Usage)
    first_s: float | None = None
    admission: Admission | None = None


def _model(query: bytes) -> str:
    return dict(parse_qsl(query.decode("latin-1"))).get("model", "")[:256]


async def serve_realtime(
    services: Services,
    request: GatewayRequest,
    opened: Opened,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Open the provider's WebSocket, then pass messages on until one side closes."""
    clock = services.clock
    session = _Session(
        id=RequestId(services.new_id("rt_")),
        created_at_s=clock.now_s(),
        started_s=clock.monotonic_s(),
        provider=provider_of(request.provider),
        endpoint=request.endpoint,
        model=_model(request.query),
    )
    socket: ProviderSocket | None = None
    error: BaseException | None = None
    try:
        socket = await _connect(services, request, opened, scope, session)
        await send({"type": "websocket.accept", "subprotocol": _agreed(scope, socket)})
        await _relay(services, session, socket, receive, send)
    except AppError as exc:
        error = exc
        if socket is None:
            await send_gateway_answer(refusal(exc), denying(send))
        else:
            await send({"type": "websocket.close", "code": _LOST, "reason": exc.message[:120]})
    except OSError as exc:  # the client left while something was sent to it
        error = exc
    except BaseException as exc:
        error = exc
        raise
    finally:
        _record(services, opened, session, request.route, error)
        if socket is not None:
            await asyncio.shield(socket.close(_GONE if error is not None else 1000))


async def _connect(
    services: Services, request: GatewayRequest, opened: Opened, scope: Scope, session: _Session
) -> ProviderSocket:
    policy, plane = opened.policy, services.plane
    provider = policy.find(session.provider)
    session.endpoint = endpoint = request.endpoint or _PATHS.get(provider.slug, "")
    if not endpoint:
        raise InvalidRequestError(
            f"The path must name the WebSocket of {provider.slug}, as in "
            f"/gateway/v1/ACCOUNT/GATEWAY/{provider.slug}/PATH."
        )
    _check(opened, provider, session.model)
    await _admit(services, opened, session)
    protocols: list[str] = [
        each for each in scope["subprotocols"] if not each.startswith(_OUR_PROTOCOL)
    ]
    forward, shown = list(opened.forward), opened.brought_credential
    for each in list(protocols):
        for prefix, (name, before) in _SECRET_PROTOCOLS.items():
            if each.startswith(prefix):
                forward.append((name, before + each.removeprefix(prefix).encode()))
                protocols.remove(each)
                shown = True
    query = request.query
    if provider.slug == _GOOGLE:  # whose key the gateway's callers write as others write theirs
        query = query.replace(b"api_key=", b"key=")
        shown = shown or b"key=" in query
    credential = _credential(opened, provider, shown)
    if credential is None and policy.gateway.byok_only:
        raise PermissionDeniedError(
            f"This gateway uses stored credentials alone, and has none for {provider.slug}."
        )
    asked: UpstreamRequest = prepare(
        provider,
        method=b"GET",
        endpoint=endpoint,
        query=query,
        headers=[header for header in forward if not header[0].startswith(b"sec-websocket-")],
        body=b"",
        credential=credential,
        now=services.clock.now_s(),
    )
    return await services.sockets.connect(asked, protocols, plane.parts.timeouts)


def _check(opened: Opened, provider: Provider, model: str) -> None:
    """Refuse what this gateway does not let pass.

    Raises:
        PermissionDeniedError: The key may not use the model, or nobody could look at what is said.
    """
    allowed, slug = opened.principal.allowed_models, provider.slug
    if allowed is not None and not allowed & {model, f"{slug}/{model}", f"{slug}/*"}:
        raise PermissionDeniedError(
            f"This key may not use the model {slug}/{model:.200}.",
            code="model_not_allowed",
            param="model",
        )
    if opened.policy.screen is not None:
        raise PermissionDeniedError(
            "This gateway has guardrails or data loss policies, which cannot look into a realtime "
            "connection."
        )


def _credential(opened: Opened, provider: Provider, shown: bool) -> Credential | None:
    alias = opened.options.byok_alias
    if opened.is_anonymous:
        if not shown:
            raise PermissionDeniedError(
                f"Without a key of ours, a credential for {provider.slug} must be yours."
            )
        return None
    if shown and alias is None and not opened.policy.gateway.byok_only:
        return None
    stored: Sequence[Credential] = opened.policy.credentials(provider, alias)
    return stored[0] if stored else None


async def _admit(services: Services, opened: Opened, session: _Session) -> None:
    policy = opened.policy
    if not policy.has_limits:
        return
    claim = Claim(
        gateway=policy.gateway,
        account_id=policy.gateway.account_id,
        key_id=opened.principal.key_id,
        provider=session.provider,
        model=session.model,
        metadata=opened.options.metadata or {},
        tokens=0,
        cost_usd=0.0,
    )
    decided = services.plane.parts.limiter.admit(claim)
    if not isinstance(decided, Refusal) and not hasattr(decided, "settle"):
        decided = await decided
    if isinstance(decided, Refusal):
        kind = SpendLimitError if decided.kind == "spend" else RateLimitError
        raise kind(
            f"{decided.bucket} has reached {decided.used:.10g} of {decided.limit:.10g}.",
            retry_after_s=decided.retry_after_s,
        )
    session.admission = cast("Admission", decided)


def _agreed(scope: Scope, socket: ProviderSocket) -> str | None:
    """Return the provider's choice, else one that was offered: browsers insist on one."""
    offered: list[str] = scope["subprotocols"]
    if socket.subprotocol in offered:
        return socket.subprotocol
    return next((each for each in offered if "." not in each), offered[0] if offered else None)


async def _relay(
    services: Services, session: _Session, socket: ProviderSocket, receive: Receive, send: Send
) -> None:
    """Pass messages on, both ways, until one side closes; then the other is closed."""
    there = asyncio.create_task(_to_provider(socket, receive))
    back = asyncio.create_task(_to_client(services, session, socket, send))
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        first = back if back.done() else there
        code = first.result()
    finally:
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
    if first is back:
        with suppress(OSError):
            await send({"type": "websocket.close", "code": _sendable(code)})
    else:
        await socket.close(_sendable(code))


async def _to_provider(socket: ProviderSocket, receive: Receive) -> int | None:
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            code: int | None = message.get("code")
            return code
        text = message.get("text")
        await socket.send(message["bytes"] if text is None else text)


async def _to_client(
    services: Services, session: _Session, socket: ProviderSocket, send: Send
) -> int | None:
    while True:
        message = await socket.receive()
        if message is None:
            return socket.close_code
        if session.first_s is None:
            session.first_s = services.clock.monotonic_s()
        _count(session, message)
        key = "text" if isinstance(message, str) else "bytes"
        await send({"type": "websocket.send", key: message})


def _count(session: _Session, message: SocketMessage) -> None:
    """Add up what a provider says of an answer that is done."""
    if not isinstance(message, str) or '"response.done"' not in message:
        return
    try:
        event = _event.decode(message)
    except (msgspec.MsgspecError, RecursionError):
        return
    if event.type != "response.done" or event.response is None or event.response.usage is None:
        return
    usage = event.response.usage
    session.usage += Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        cached_tokens=usage.input_token_details.cached_tokens,
    )


def _sendable(code: int | None) -> int:
    """Return a code that may stand in a close frame."""
    if code is None or code in _UNSENDABLE or not 1000 <= code < 5000:
        return 1000 if code == 1005 else _GONE
    return code


def _record(
    services: Services,
    opened: Opened,
    session: _Session,
    route: str,
    error: BaseException | None,
) -> None:
    parts, options = services.plane.parts, opened.options
    usage = session.usage
    price = parts.prices.price(session.provider, session.model)
    cost = cost_usd(price, usage)
    if session.admission is not None:
        session.admission.settle(
            tokens=usage.prompt_tokens + usage.completion_tokens, cost_usd=cost
        )
    outcome: Outcome = "ok"
    status, code = _SWITCHING, None
    if isinstance(error, AppError):
        outcome, status, code = "error", error.status, error.code
    elif error is not None:
        closed = ClientClosedRequestError
        outcome, status, code = "client_closed", closed.status, closed.default_code
    started_s, first_s = session.started_s, session.first_s
    record = CallRecord(
        id=session.id,
        created_at_s=session.created_at_s,
        account_id=opened.policy.gateway.account_id,
        key_id=opened.principal.key_id,
        route=route,
        model=session.model,
        deployment=None,
        stream=True,
        usage=usage,
        cost_usd=cost,
        first_token_ms=None if first_s is None else (first_s - started_s) * 1000,
        duration_ms=(services.clock.monotonic_s() - started_s) * 1000,
        outcome=outcome,
        status=status,
        error_code=code,
        gateway_id=opened.policy.gateway.id,
        provider=session.provider,
        endpoint=session.endpoint,
        event_id=options.event_id,
        metadata=options.metadata or {},
    )
    logs = opened.policy.logs(options.collect_log)
    for recorder in parts.recorders:
        recorder.record(record, None, policy=logs)
