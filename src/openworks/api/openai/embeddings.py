"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
import struct
from typing import cast

from openai.types.embedding_create_params import EmbeddingCreateParams

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.text import EmbeddingRequest
from openworks.wire.openai.validate import RequestValidator

_VALIDATOR = RequestValidator(EmbeddingCreateParams)
_MAX_INPUTS = 2048
_FLOAT_BYTES = 4


async def create(context: Context) -> Answer:
    """Embed texts; vectors as numbers, or as base64 of little-endian float32."""
    fields = cast("JsonObject", _VALIDATOR.check(context.json()))
    model = str(fields["model"])
    inputs = values.texts_or_tokens(fields["input"], "input")
    if len(inputs) > _MAX_INPUTS:
        raise values.invalid(
            "input", f"Invalid 'input': at most {_MAX_INPUTS} are allowed, got {len(inputs)}."
        )
    for index, text in enumerate(inputs):
        if not text:
            raise values.invalid("input", f"Invalid 'input': number {index} is empty.")
    dimensions = values.integer(fields, "dimensions", 1)
    result = await context.services.pipeline.embed(
        context.call(model), EmbeddingRequest(inputs=inputs, dimensions=dimensions)
    )
    encode = _as_base64 if fields.get("encoding_format") == "base64" else _as_numbers
    data: list[JsonValue] = [
        {
            "object": "embedding",
            "index": index,
            "embedding": encode(vector),
        }
        for index, vector in enumerate(result.vectors)
    ]
    return Json(
        {
            "object": "list",
            "data": data,
            "model": context.canonical(model),
            "usage": {
                "prompt_tokens": result.usage.prompt_tokens,
                "total_tokens": result.usage.prompt_tokens,
            },
        }
    )


def _as_base64(vector: bytes) -> JsonValue:
    return base64.b64encode(vector).decode()


def _as_numbers(vector: bytes) -> JsonValue:
    return list(struct.unpack(f"<{len(vector) // _FLOAT_BYTES}f", vector))
