"""Embeddings by Vertex AI's predict.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import orjson

from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.base import NativeRequest, StreamTranslator
from openworks.gateway.compat.embeddings import embedding_body, read_embedding
from openworks.gateway.compat.read import (
    MalformedAnswer,
    a_count,
    a_list,
    a_text,
    an_object,
    error_json,
    error_kind,
    error_text,
    loads,
    unreadable,
    unsupported,
)

_PROVIDER: Final = "google-vertex-ai"


class VertexEmbeddings:
    """OpenAI's embeddings by a text model of Google; Vertex's OpenAI endpoint has chat alone."""

    def __init__(self, *, model: str) -> None:
        self._model = model.removeprefix("google/")

    def request(self, body: JsonObject) -> NativeRequest:
        wanted = read_embedding(body)
        instances: list[JsonValue] = [{"content": text} for text in wanted.texts]
        native: JsonObject = {"instances": instances}
        if wanted.dimensions is not None:
            native["parameters"] = {"outputDimensionality": wanted.dimensions}
        return NativeRequest(
            path=f"publishers/google/models/{quote(self._model, safe='@')}:predict",
            body=orjson.dumps(native),
            headers=[],
        )

    def answer(self, body: bytes) -> bytes:
        vectors: list[list[JsonValue]] = []
        prompt_tokens = 0
        try:
            for value in a_list(loads(body).get("predictions")):
                embedding = an_object(an_object(value).get("embeddings"))
                vectors.append(a_list(embedding.get("values")))
                statistics = embedding.get("statistics")
                if statistics is not None:
                    prompt_tokens += a_count(an_object(statistics).get("token_count"))
        except MalformedAnswer as error:
            raise unreadable(_PROVIDER, error) from error
        return embedding_body(self._model, vectors, prompt_tokens)

    def error(self, status: int, body: bytes) -> bytes:
        try:
            said = an_object(loads(body).get("error"))
            code = said.get("status")
            return error_json(
                a_text(said.get("message")),
                error_kind(status),
                code if isinstance(code, str) else None,
            )
        except MalformedAnswer:
            return error_json(error_text(_PROVIDER, status, body), error_kind(status), None)

    def stream(self, request: JsonObject) -> StreamTranslator:
        raise unsupported("stream", "embeddings do not stream.")
