"""`/ai/finetunes`: adapters that users bring."""

from __future__ import annotations

from starlette.datastructures import QueryParams

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, ok, path_value
from openworks.api.context import Context
from openworks.api.multipart import form_of
from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.services.finetune_documents import Finetune
from openworks.wire.cloudflare.envelope import timestamp
from openworks.wire.cloudflare.fields import checked
from openworks.wire.cloudflare.finetunes import NewFinetune

_ORDERS = ("created_at", "modified_at", "name", "model", "id")
_MOST = 1_000_000


async def create(context: Context) -> Answer:
    """Make a finetune of a base model that takes adapters; its files come next."""
    actor = await actor_of(context)
    given = checked(NewFinetune, body_of(context))
    return ok(_render(await context.services.finetunes.create(actor, given)))


async def list_finetunes(context: Context) -> Answer:
    """List the account's finetunes, newest first."""
    actor = await actor_of(context)
    return ok([_render(item) for item in await context.services.finetunes.list(actor.account_id)])


async def list_public(context: Context) -> Answer:
    """List the finetunes that every account may use; by `limit`, `offset` and `orderBy`."""
    await actor_of(context)
    query = context.request.query_params
    order = query.get("orderBy", "created_at")
    if order not in _ORDERS:
        raise InvalidRequestError(
            f"orderBy must be one of {', '.join(_ORDERS)}, got {order[:80]!r}.", param="orderBy"
        )
    limit = _number(query, "limit", default=100, least=1)
    offset = _number(query, "offset", default=0, least=0)
    rows = [_render(item) for item in await context.services.finetunes.list_public()]
    if "orderBy" in query:
        rows.sort(key=lambda row: str(row[order]))
    return ok([*rows[offset : offset + limit]])


async def upload(context: Context) -> Answer:
    """Check one of a finetune's two files, and keep it; the form has `file_name` and `file`."""
    actor = await actor_of(context)
    form = form_of(context.request.scope)
    if form.file is None:
        raise InvalidRequestError(
            "The form must have a part 'file'.", code="missing_field", param="file"
        )
    finetune = await context.services.finetunes.upload(
        actor, _reference(context), form.fields.get("file_name", form.file.name), form.file
    )
    return ok(_render(finetune))


async def delete(context: Context) -> Answer:
    """Delete a finetune with its files."""
    actor = await actor_of(context)
    return ok(_render(await context.services.finetunes.delete(actor, _reference(context))))


def _reference(context: Context) -> str:
    return path_value(context, "finetune_id")


def _number(query: QueryParams, name: str, *, default: int, least: int) -> int:
    """Read a whole number, which the SDK may send as `10.0`."""
    text = query.get(name, str(default)).removesuffix(".0")
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_MOST))
    if not is_number or not least <= int(text) <= _MOST:
        raise InvalidRequestError(
            f"{name} must be {least}..{_MOST}, got {text[:80]!r}.", param=name
        )
    return int(text)


def _render(finetune: Finetune) -> JsonObject:
    """Cloudflare's fields, then ours, which the SDK passes through."""
    return {
        "id": finetune.id,
        "model": finetune.model,
        "name": finetune.name,
        "description": finetune.description,
        "public": finetune.is_public,
        "created_at": timestamp(finetune.created_at_s),
        "modified_at": timestamp(finetune.modified_at_s),
        "ready": finetune.is_ready,
        "rank": max((asset.rank for asset in finetune.assets.values()), default=None),
        "size_bytes": sum(asset.size_bytes for asset in finetune.assets.values()),
    }
