"""Who asks a gateway, and by which policy: for requests that are no exchanges."""

from __future__ import annotations

from dataclasses import dataclass

from openworks.api.context import Services
from openworks.core.errors import PermissionDeniedError
from openworks.gateway.messages import GatewayRequest
from openworks.gateway.options import Options, split_headers
from openworks.gateway.policy import Policy
from openworks.gateway.secrets import take_our_secret
from openworks.ports.calls import Principal
from openworks.ports.upstream import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A request of which it is known who makes it."""

    principal: Principal
    policy: Policy
    options: Options
    forward: Headers
    """What a provider may see."""
    brought_credential: bool
    is_anonymous: bool
    """Whether the gateway let them in without a key: nothing of its account's is spent on them."""


async def open_gateway(services: Services, request: GatewayRequest) -> Opened:
    """Find out who asks, and whether there is such a gateway for them.

    Raises:
        AuthenticationError: Nobody knows the secret, or the gateway asks for one.
        PermissionDeniedError: The path names another's account, or the key is not for calls.
        InvalidRequestError: There is no such gateway, or a `cf-aig-*` header has no sense.
        StorageError: The database is away.
    """
    options, forward = split_headers(request.headers)
    secret, brought = take_our_secret(options.authorization, forward, services.keys.token)
    found = await services.plane.find(request, secret)
    if "inference" not in found.principal.scopes:
        raise PermissionDeniedError("This key lacks the scope 'inference' that calls need.")
    return Opened(
        principal=found.principal,
        policy=services.plane.policy_of(found.snapshot),
        options=options,
        forward=forward,
        brought_credential=brought,
        is_anonymous=found.is_anonymous,
    )
