"""What a route handler is given: the services, and who asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import orjson
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from openworks.api.multipart import Forms
from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError
from openworks.core.ids import AccountId, NewId, RequestId
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.pipeline import Pipeline
from openworks.gateway.plane import DataPlane
from openworks.ports.calls import Call, CallRecord, Principal
from openworks.ports.converters import Converter
from openworks.ports.engines import Engines
from openworks.ports.logs import Analytics
from openworks.ports.sockets import SocketDialer
from openworks.services.assistants import Assistants
from openworks.services.audit import Actor, Audit
from openworks.services.batches.batches import Batches
from openworks.services.catalog import Catalog
from openworks.services.conversations import Conversations
from openworks.services.credentials import Credentials
from openworks.services.custom_providers import CustomProviders
from openworks.services.datasets import Datasets
from openworks.services.deployments import Deployments
from openworks.services.dynamic_routes import DynamicRoutes
from openworks.services.evaluations import Evaluations
from openworks.services.files import Files
from openworks.services.finetunes import Finetunes
from openworks.services.gateway_logs import GatewayLogs
from openworks.services.gateways import Gateways
from openworks.services.journal import Journal
from openworks.services.keys import Keys
from openworks.services.log_exports import LogExports
from openworks.services.responses.responses import Responses
from openworks.services.runs.runs import Runs
from openworks.services.snapshots import GatewaySnapshots
from openworks.services.stored_completions import StoredCompletions
from openworks.services.threads import Threads
from openworks.services.uploads import Uploads
from openworks.services.workers import Workers

FormKind = Literal["asset", "documents", "file", "part"]
"""What a form brings: a file of an adapter, documents, a file, a part of an upload."""

_MAX_NAME = 256
"""No model has a longer name; what a caller makes up does not fill logs and ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that routes call."""

    pipeline: Pipeline
    plane: DataPlane
    catalog: Catalog
    deployments: Deployments
    engines: Engines
    keys: Keys
    stored_completions: StoredCompletions
    assistants: Assistants
    threads: Threads
    runs: Runs
    responses: Responses
    conversations: Conversations
    gateways: Gateways
    snapshots: GatewaySnapshots
    sockets: SocketDialer
    credentials: Credentials
    custom_providers: CustomProviders
    dynamic_routes: DynamicRoutes
    audit: Audit
    logs: GatewayLogs
    exports: LogExports
    analytics: Analytics
    datasets: Datasets
    evaluations: Evaluations
    finetunes: Finetunes
    files: Files
    uploads: Uploads
    batches: Batches
    converter: Converter
    workers: Workers
    journal: Journal
    forms: Mapping[FormKind, Forms]
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
    observer: Callable[[CallRecord], None] | None = None
    """As `Call.observer`."""
    is_background: bool = False
    """As `Call.is_background`."""

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
            is_background=self.is_background,
            observer=self.observer,
        )

    def canonical(self, model: str) -> str:
        """The id of the model that a name stands for; the name itself when there is none."""
        return self.services.deployments.canonical(model)

    async def actor(self, account_id: AccountId) -> Actor:
        """Say who changes something in an account that the caller was found to act for."""
        if self.principal.key_id is not None:
            return Actor(account_id=account_id, name=self.principal.key_id)
        is_guarded = await self.services.keys.is_guarded()
        return Actor(account_id=account_id, name="token" if is_guarded else "anonymous")


def as_object(value: JsonValue) -> JsonObject:
    """Return `value`, which a validator has found to be an object."""
    assert isinstance(value, dict)
    return value
