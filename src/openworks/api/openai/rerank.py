"""`POST /v1/rerank`: documents scored against a query.

OpenAI has no such endpoint; the shape is the one that Cohere and Jina introduced and that vLLM,
LiteLLM and llama.cpp serve.
"""

from __future__ import annotations

from typing import Required, TypedDict, cast

from openworks.api.answers import Answer, Json
from openworks.api.context import Context
from openworks.api.openai import values
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.text import RerankRequest
from openworks.wire.openai.validate import RequestValidator


class _Document(TypedDict, total=False):
    text: Required[str]


class RerankParams(TypedDict, total=False):
    """The body."""

    model: Required[str]
    query: Required[str]
    documents: Required[list[str | _Document]]
    top_n: int
    return_documents: bool


_VALIDATOR = RequestValidator(RerankParams)
_MAX_DOCUMENTS = 1000


async def create(context: Context) -> Answer:
    """Score documents; the best first."""
    fields = cast("JsonObject", _VALIDATOR.check(context.json()))
    model = str(fields["model"])
    documents = [
        document if isinstance(document, str) else str(cast("JsonObject", document)["text"])
        for document in cast("list[JsonValue]", fields["documents"])
    ]
    if not 1 <= len(documents) <= _MAX_DOCUMENTS:
        raise values.invalid(
            "documents",
            f"Invalid 'documents': 1 to {_MAX_DOCUMENTS} are allowed, got {len(documents)}.",
        )
    top_n = values.integer(fields, "top_n", 1) or len(documents)
    result = await context.services.pipeline.rerank(
        context.call(model), RerankRequest(query=str(fields["query"]), documents=documents)
    )
    best = sorted(range(len(documents)), key=lambda index: -result.scores[index])[:top_n]
    results: list[JsonValue] = []
    for index in best:
        row: JsonObject = {"index": index, "relevance_score": result.scores[index]}
        if fields.get("return_documents"):
            row["document"] = {"text": documents[index]}
        results.append(row)
    return Json(
        {
            "id": context.services.new_id("rerank-"),
            "object": "list",
            "model": context.canonical(model),
            "results": results,
            "usage": {
                "prompt_tokens": result.usage.prompt_tokens,
                "total_tokens": result.usage.prompt_tokens,
            },
        }
    )
