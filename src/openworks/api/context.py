"""What a route handler is given: the services, and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import orjson
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError
from openworks.core.ids import NewId, RequestId
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.pipeline import Pipeline
from openworks.ports.calls import Call, Principal
from openworks.ports.engines import Engines
from openworks.services.catalog import Catalog
from openworks.services.keys import Keys
from openworks.services.stored_completions import StoredCompletions

_MAX_NAME = 256
"""No model has a longer name; what a caller makes up does not fill logs and ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that routes call."""

    pipeline: Pipeline
    catalog: Catalog
    engines: Engines
    keys: Keys
    stored_completions: StoredCompletions
    registry: CollectorRegistry
    clock: Clock
    new_id: NewId


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One request on its way through a handler."""

    services: Services
    request: Request
    request_id: RequestId
    principal: Principal
    route: str
    body: bytes

    def json(self) -> JsonValue:
        """Decode the body.

        Raises:
            InvalidRequestError: It is not JSON.
        """
        try:
            return cast("JsonValue", orjson.loads(self.body))
        except orjson.JSONDecodeError as exc:
            raise InvalidRequestError(
                f"The body of this request is not valid JSON: {exc}.", code="invalid_json"
            ) from exc

    def call(self, model: str, *, stream: bool = False, number: int = 0) -> Call:
        """Describe a model call of this request; `number` tells several of them apart."""
        suffix = f"-{number}" if number else ""
        return Call(
            request_id=RequestId(self.request_id + suffix),
            principal=self.principal,
            route=self.route,
            model=model[:_MAX_NAME],
            stream=stream,
        )

    def canonical(self, model: str) -> str:
        """The id of the model that a name stands for; the name itself when there is none."""
        return self.services.catalog.canonical(model)


def as_object(value: JsonValue) -> JsonObject:
    """Return `value`, which a validator has found to be an object."""
    assert isinstance(value, dict)
    return value
