"""`GET compat/models` and `workers-ai/v1/models` of a gateway: what can be asked through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import orjson

from openworks.api.context import Services
from openworks.api.gateway.opening import open_gateway
from openworks.core.errors import AppError, AuthenticationError
from openworks.core.json import JsonObject
from openworks.gateway.messages import JSON_HEADER, GatewayAnswer, GatewayRequest
from openworks.gateway.plane import refusal
from openworks.gateway.providers.prices import Prices
from openworks.ports.calls import LOCAL_PROVIDER, Principal
from openworks.ports.snapshots import GatewaySnapshot
from openworks.services.catalog import Catalog

_CREATED: Final = 1_763_596_800
"""2025-11-20: models have no date of their own here, and the field is required."""


def is_models(request: GatewayRequest) -> bool:
    """Whether a request asks for the list."""
    return (
        request.method == b"GET"
        and request.provider in ("compat", LOCAL_PROVIDER)
        and request.endpoint.removeprefix("v1/") == "models"
    )


class ModelList:
    """A request for the list; run it."""

    __slots__ = ("_request", "_services")

    def __init__(self, services: Services, request: GatewayRequest) -> None:
        self._services = services
        self._request = request

    async def run(self) -> GatewayAnswer:
        """Return the list, or say why not."""
        try:
            opened = await open_gateway(self._services, self._request)
            if opened.is_anonymous:
                raise AuthenticationError("The list is for those who show a key.")
        except AppError as error:
            return refusal(error)
        is_local = self._request.provider == LOCAL_PROVIDER
        prefix = "" if is_local else f"{LOCAL_PROVIDER}/"
        catalog = self._services.catalog
        data = [_row(prefix + model, LOCAL_PROVIDER) for model in _local(catalog, opened.principal)]
        if not is_local:
            snapshot, allowed = opened.policy.snapshot, opened.principal.allowed_models
            data += [
                _row(f"{slug}/{model}", slug)
                for slug, model in _stored(snapshot)
                if allowed is None or allowed & {model, f"{slug}/{model}", f"{slug}/*"}
            ]
        body = orjson.dumps({"object": "list", "data": data})
        return GatewayAnswer(status=200, headers=[JSON_HEADER], body=body)

    def abandon(self) -> None:
        """Do nothing: it is no call."""


def _local(catalog: Catalog, principal: Principal) -> Iterator[str]:
    names = principal.allowed_models
    allowed = None if names is None else {catalog.canonical(name) for name in names}
    for entry in catalog.served():
        if allowed is None or entry.id in allowed:
            yield entry.id


def _stored(snapshot: GatewaySnapshot) -> Iterator[tuple[str, str]]:
    """Yield provider and model, for providers that callers need no credential of their own for."""
    for slug in sorted({slug for slug, _ in snapshot.credentials} - {LOCAL_PROVIDER}):
        for model in _priced().get(slug, ()):
            yield slug, model


@cache
def _priced() -> Mapping[str, tuple[str, ...]]:
    return {source.provider: source.models for source in Prices().sources()}


def _row(model: str, owner: str) -> JsonObject:
    return {"id": model, "object": "model", "created": _CREATED, "owned_by": owner}
