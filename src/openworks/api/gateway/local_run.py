"""Workers AI's `run` on this server's own models: which handler, and how its answer is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from urllib.parse import unquote

import orjson

from openworks.api.answers import Answer, Events, Json
from openworks.api.endpoint import Handler
from openworks.api.openai import chat, completions, embeddings
from openworks.core.errors import AppError, ModelNotFoundError, NotFoundError
from openworks.gateway.compat.workers_run import RunCall, RunOperation, run_embeddings, run_text
from openworks.gateway.steps import read_object
from openworks.services.catalog import Catalog
from openworks.services.deployments import split_name
from openworks.services.finetunes import no_lora
from openworks.wire.cloudflare.envelope import success

HANDLERS: Final[dict[RunOperation, Handler]] = {
    "chat": chat.create,
    "completions": completions.create,
    "embeddings": embeddings.create,
}


def run_model(path: str) -> str | None:
    """Return the model that a path runs: `run/NAME`, or a `@...` name alone; None for another path.

    Slashes may be encoded, as the official SDK has them.
    """
    name = unquote(path) if "%" in path else path
    if name.startswith("run/"):
        return name.removeprefix("run/")
    return name if name.startswith("@") else None


def read_run(catalog: Catalog, model: str, body: bytes) -> RunCall:
    """Read an input by what the model is for.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidRequestError: The input has no sense for it, or the model takes no adapters.
    """
    base, reference = split_name(model, catalog)
    entry = catalog.find(base)
    if entry is None:
        raise catalog.unknown(base)
    fields = read_object(body)
    if entry.task == "text-embeddings" and not reference:
        return run_embeddings(model, fields)
    if fields.get("lora") is not None and (reference or "lora" not in entry.capabilities):
        raise no_lora(model)
    return run_text(model, fields)


def refused(call: RunCall, error: AppError) -> AppError:
    """Return a refusal as `run` means it: without the adapter, it is not the model that lacks."""
    if call.lora is None or error.code != ModelNotFoundError.default_code:
        return error
    return NotFoundError(
        f"Finetune {call.lora[:80]!r} not found.", code="finetune_not_found", param="lora"
    )


def told(call: RunCall, answer: Answer) -> Answer:
    """Return a handler's answer as `run` tells it.

    Raises:
        ProviderError: The model did not write the JSON that was asked for.
    """
    if isinstance(answer, Events):
        return Events(_lines(call, answer.events))
    assert isinstance(answer, Json), "these handlers answer with JSON or events"
    return Json(success(call.answer(orjson.dumps(answer.body))), status=answer.status)


async def _lines(call: RunCall, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    stream = call.stream()
    async with aclosing(events):
        async for event in events:
            line = stream.feed(event)
            if line:
                yield line
    rest = stream.end()
    if rest:
        yield rest
