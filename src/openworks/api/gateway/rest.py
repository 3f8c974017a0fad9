"""The gateway behind the REST hosts: OpenAI's, Anthropic's and Workers AI's paths, without its URL.

`/client/v4/accounts/{account}/ai/...` always goes through a gateway: the one that
`cf-aig-gateway-id` names, else `default`. `/v1/...` of this server goes there when the request asks
for it, when the model is another provider's, or when the gateway `default` caches or guards;
everything else stays on the short way to this server's own models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import msgspec
import orjson

from openworks.api.answers import Answer
from openworks.api.context import Context
from openworks.api.dialects import bearer
from openworks.api.gateway.naming import DYNAMIC, gateway_name, is_remote
from openworks.api.gateway.relayed import Relayed
from openworks.api.gateway.run import (
    RunTarget,
    failure_of,
    is_json,
    read_target,
    result_of,
)
from openworks.api.openai import chat, embeddings, responses
from openworks.core.errors import AppError, InvalidRequestError, ModelNotFoundError
from openworks.core.json import JsonObject
from openworks.gateway.compat.model_name import with_model
from openworks.gateway.messages import JSON_HEADER, GatewayAnswer, GatewayRequest
from openworks.gateway.plane import OWN_ACCOUNT, account_of
from openworks.gateway.providers.registry import CUSTOM_PREFIX
from openworks.gateway.steps import read_object
from openworks.ports.calls import LOCAL_PROVIDER
from openworks.ports.gateways import DEFAULT_GATEWAY
from openworks.ports.upstream import Headers
from openworks.wire import anthropic
from openworks.wire.cloudflare import run as run_faults
from openworks.wire.cloudflare.envelope import success
from openworks.wire.openai import errors as openai

_ANTHROPIC: Final = "anthropic"
_MAX_GATEWAY_ID: Final = 64
_OURS: Final = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-auth-key", b"x-auth-email"}
)
"""Headers in which callers show us who they are; here none of them is for a provider."""


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named)


# This server's own `/v1`.


async def chat_completions(context: Context) -> Answer:
    """Answer a conversation, by a model of this server or through its gateway."""
    model = await _gateway_model(context)
    if model is None:
        return await chat.create(context)
    return await _ask_openai(context, "chat/completions", model)


async def embeddings_of(context: Context) -> Answer:
    """Embed texts, by a model of this server or through its gateway."""
    model = await _gateway_model(context)
    if model is None:
        return await embeddings.create(context)
    return await _ask_openai(context, "embeddings", model)


async def responses_of(context: Context) -> Answer:
    """Answer as a response, by a model of this server or through its gateway."""
    model = await _gateway_model(context)
    if model is None:
        return await responses.create(context)
    return await _responses(context, model, OWN_ACCOUNT)


async def messages(context: Context) -> Answer:
    """Answer a conversation in Anthropic's words, by a Claude model through the gateway."""
    return await _messages(context, OWN_ACCOUNT)


async def _gateway_model(context: Context) -> str | None:
    """Return the model when a request must go through a gateway; None for the direct way."""
    try:
        model = _named.decode(context.body).model
    except msgspec.MsgspecError:
        return None  # the handler says what is wrong with it
    if model is None:
        return None
    if any(name.startswith(b"cf-aig-") for name, _ in context.request.scope["headers"]):
        return model
    if is_remote(model, context.services.catalog):
        return model
    snapshot = await context.services.snapshots.snapshot(
        context.principal.account_id, DEFAULT_GATEWAY
    )
    if snapshot is None:
        return None
    gateway, guards = snapshot.gateway, snapshot.gateway.guardrails
    if gateway.cache_ttl_s or gateway.dlp or guards.prompt or guards.response:
        return model
    return None


# The REST host.


async def account_chat(context: Context) -> Answer:
    """OpenAI's chat completions by any model, through a gateway of the account."""
    return await _ask_openai(context, "chat/completions", _model_of(context), _account(context))


async def account_embeddings(context: Context) -> Answer:
    """OpenAI's embeddings by any model, through a gateway of the account."""
    return await _ask_openai(context, "embeddings", _model_of(context), _account(context))


async def account_responses(context: Context) -> Answer:
    """OpenAI's responses by a model whose provider has them, through a gateway of the account."""
    return await _responses(context, _model_of(context), _account(context))


async def account_messages(context: Context) -> Answer:
    """Anthropic's messages by a Claude model, through a gateway of the account."""
    return await _messages(context, _account(context))


async def run(context: Context) -> Answer:
    """Run the model that the body names, `{model, input}`."""
    given = read_object(context.body)
    target = read_target(given.get("model"), given.get("input"), context.services.catalog)
    return await _run(context, target, is_wrapped=not target.is_local_run)


async def run_model(context: Context) -> Answer:
    """Run the model that the path names; the body is its input."""
    model = str(context.request.path_params["model"])
    target = read_target(model, read_object(context.body), context.services.catalog)
    return await _run(context, target, is_wrapped=False)


async def _run(context: Context, target: RunTarget, *, is_wrapped: bool) -> Answer:
    """Ask, and answer in an envelope.

    Args:
        context: Of the request.
        target: Where it goes.
        is_wrapped: Whether the result says too that the call is complete, as for other providers.
    """
    asked = _request(context, _account(context), target.provider, target.endpoint, target.body)
    answer = await _answer(context, asked, target.slug)
    if answer.status >= 400 and answer.body is not None:
        status, code, message = failure_of(answer)
        if answer.error is not None:
            code, status = run_faults.number_of(answer.error), run_faults.status_of(answer.error)
        number = code if isinstance(code, int) else 10000 + status
        return Relayed(
            _as_json(replace(answer, status=status), run_faults.failure(number, message))
        )
    if answer.body is None or not is_json(answer.headers):
        return Relayed(answer)
    result = result_of(target, answer.body)
    if is_wrapped:
        result = {"state": "Completed", "result": result}
    return Relayed(_as_json(answer, success(result)))


# What they share.


async def _responses(context: Context, model: str, account: str) -> Answer:
    slug, name = gateway_name(model, context.services.catalog)
    if slug == DYNAMIC:
        raise InvalidRequestError(
            "A dynamic route answers chat completions and embeddings alone.", param="model"
        )
    endpoint = "v1/responses" if slug == LOCAL_PROVIDER else "responses"
    body = with_model(context.body, name)
    return await _ask(context, account, slug, endpoint, body, openai.error_body, slug=slug)


async def _messages(context: Context, account: str) -> Answer:
    model = _model_of(context)
    slug, name = gateway_name(model, context.services.catalog)
    if slug == LOCAL_PROVIDER and model.startswith("claude-"):
        slug = _ANTHROPIC
    if slug != _ANTHROPIC:
        raise InvalidRequestError(
            f"Messages are answered by Anthropic's models alone, as anthropic/claude-opus-4-5 is, "
            f"not by {model!r:.120}.",
            param="model",
        )
    body = with_model(context.body, name)
    return await _ask(context, account, slug, "v1/messages", body, anthropic.error_body, slug=slug)


async def _ask_openai(
    context: Context, operation: str, model: str, account: str = OWN_ACCOUNT
) -> Answer:
    slug, name = gateway_name(model, context.services.catalog)
    body = with_model(context.body, f"{slug}/{name}")
    return await _ask(context, account, "compat", operation, body, openai.error_body, slug=slug)


async def _ask(
    context: Context,
    account: str,
    provider: str,
    endpoint: str,
    body: bytes,
    error_body: Callable[[AppError], JsonObject],
    *,
    slug: str,
) -> Answer:
    answer = await _answer(context, _request(context, account, provider, endpoint, body), slug)
    if answer.error is not None:
        answer = _as_json(answer, error_body(answer.error))
    return Relayed(answer)


async def _answer(context: Context, request: GatewayRequest, slug: str) -> GatewayAnswer:
    await _check_reachable(context, request, slug)
    begun = context.services.plane.begin(request)
    return begun if isinstance(begun, GatewayAnswer) else await begun.run()


async def _check_reachable(context: Context, request: GatewayRequest, slug: str) -> None:
    """Refuse a provider that would refuse us: here callers cannot bring a credential of theirs.

    A mistyped name of a local model, too, sends nobody's prompt anywhere.

    Raises:
        ModelNotFoundError: The gateway has no credential for the provider.
        PermissionDeniedError: The path names another's account.
    """
    if slug in (LOCAL_PROVIDER, DYNAMIC) or slug.startswith(CUSTOM_PREFIX):
        return
    gateway = request.gateway
    account = account_of(context.principal, request.account)
    snapshot = await context.services.snapshots.snapshot(account, gateway)
    if snapshot is None or any(stored == slug for stored, _ in snapshot.credentials):
        return
    raise ModelNotFoundError(
        f"The model is not served here, and the gateway {gateway!r:.80} has no stored credential "
        f"for the provider {slug!r:.80}.",
        param="model",
    )


def _request(
    context: Context, account: str, provider: str, endpoint: str, body: bytes
) -> GatewayRequest:
    shown = context.request.headers
    secret = bearer(shown.get("authorization")) or shown.get("x-api-key") or shown.get("x-auth-key")
    headers: Headers = [
        header for header in context.request.scope["headers"] if header[0] not in _OURS
    ]
    if secret is not None:
        headers.append((b"cf-aig-authorization", b"Bearer " + secret.encode("latin-1")))
    return GatewayRequest(
        method=b"POST",
        account=account,
        gateway=shown.get("cf-aig-gateway-id", DEFAULT_GATEWAY)[:_MAX_GATEWAY_ID],
        provider=provider,
        endpoint=endpoint,
        query=b"",
        headers=headers,
        body=body,
        route=context.route,
    )


def _account(context: Context) -> str:
    return str(context.request.path_params["account_id"])


def _model_of(context: Context) -> str:
    model = read_object(context.body).get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError(
            f"model must be @cf/... or author/model, got {model!r:.80}.", param="model"
        )
    return model


def _as_json(answer: GatewayAnswer, body: JsonObject) -> GatewayAnswer:
    headers = [JSON_HEADER, *(h for h in answer.headers if h[0] != b"content-type")]
    return replace(answer, headers=headers, body=orjson.dumps(body))
