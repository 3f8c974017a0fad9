"""`/v1/batches`: files of requests that are answered in idle time."""

from __future__ import annotations

from typing import Final

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.api.openai.batch_lines import ENDPOINTS
from openworks.api.openai.batch_request import parse_batch
from openworks.api.openai.objects import list_body, path_id
from openworks.core.json import JsonObject
from openworks.ports.batches import Batch, BatchStatus
from openworks.ports.calls import Usage

_MOMENTS: Final[tuple[BatchStatus, ...]] = (
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)


async def create(context: Context) -> Answer:
    """Take a file of requests, to be answered within 24 hours."""
    wanted = parse_batch(context.json(), ENDPOINTS)
    batch = await context.services.batches.create(
        context.principal,
        endpoint=wanted.endpoint,
        input_file_id=wanted.input_file_id,
        output_ttl_s=wanted.output_ttl_s,
        metadata=wanted.metadata,
    )
    return Json(_body(batch))


async def list_batches(context: Context) -> Answer:
    """List batches, newest first."""
    page = await context.services.batches.list(
        context.principal.account_id, values.page(context.request.query_params, order="desc")
    )
    return Json(list_body([_body(batch) for batch in page.items], has_more=page.has_more))


async def retrieve(context: Context) -> Answer:
    """Return one."""
    batch_id = path_id(context, "batch_id")
    return Json(_body(await context.services.batches.get(context.principal.account_id, batch_id)))


async def cancel(context: Context) -> Answer:
    """Stop one; what was answered until then is in its files."""
    batch_id = path_id(context, "batch_id")
    batch = await context.services.batches.cancel(context.principal.account_id, batch_id)
    return Json(_body(batch))


def _body(batch: Batch) -> JsonObject:
    moments = {status: batch.reached_at_s.get(status) for status in _MOMENTS}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": [*batch.errors]} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at_s),
        "expires_at": int(batch.expires_at_s),
        **{f"{name}_at": None if at_s is None else int(at_s) for name, at_s in moments.items()},
        "request_counts": {
            "total": batch.num_lines,
            "completed": batch.num_completed,
            "failed": batch.num_failed,
        },
        "usage": _usage(batch.usage),
        "metadata": dict(batch.metadata),
    }


def _usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
