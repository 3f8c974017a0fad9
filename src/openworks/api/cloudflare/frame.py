"""What handlers of the Cloudflare API share: who acts, what was sent, and the envelope."""

from __future__ import annotations

from openworks.api.answers import Json
from openworks.api.context import Context
from openworks.core.errors import InvalidRequestError, PayloadTooLargeError
from openworks.core.json import JsonObject, JsonValue
from openworks.services.audit import Actor
from openworks.services.gateways import account_of
from openworks.wire.cloudflare.envelope import success

MAX_BODY_BYTES = 1 << 20
"""No document of the control plane is larger."""


async def actor_of(context: Context) -> Actor:
    """Return who acts in the account of the path.

    Raises:
        InvalidRequestError: The path names no account.
        PermissionDeniedError: It names another's.
    """
    principal = context.principal
    account_id = account_of(principal, path_value(context, "account_id"))
    if principal.key_id is not None:
        return Actor(account_id=account_id, name=principal.key_id)
    is_guarded = await context.services.keys.is_guarded()
    return Actor(account_id=account_id, name="token" if is_guarded else "anonymous")


def path_value(context: Context, name: str) -> str:
    """Return a part of the path, decoded.

    Raises:
        InvalidRequestError: It holds what no name has, and what Postgres cannot take.
    """
    value = str(context.request.path_params[name])
    if not value.isprintable():
        raise InvalidRequestError(f"{name} is not a name: {value[:80]!r}.", param=name)
    return value


def gateway_id_of(context: Context) -> str:
    """Return the gateway that the path names."""
    return path_value(context, "gateway_id")


def body_of(context: Context) -> JsonValue:
    """Decode the body.

    Raises:
        PayloadTooLargeError: It is larger than any document may be.
        InvalidRequestError: It is not JSON.
    """
    if len(context.body) > MAX_BODY_BYTES:
        raise PayloadTooLargeError(
            f"The body has {len(context.body)} bytes; here it may have {MAX_BODY_BYTES}."
        )
    return context.json()


def ok(result: JsonValue, *, info: JsonObject | None = None) -> Json:
    """Answer with a result."""
    return Json(success(result, info=info))
