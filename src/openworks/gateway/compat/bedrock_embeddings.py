"""Embeddings by Bedrock's InvokeModel, in the words of Cohere's and Amazon's models."""

from __future__ import annotations

import orjson

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.base import NativeRequest, StreamTranslator
from openworks.gateway.compat.bedrock import bedrock_error, model_path
from openworks.gateway.compat.embeddings import EmbeddingInput, embedding_body, read_embedding
from openworks.gateway.compat.read import (
    MalformedAnswer,
    a_count,
    a_list,
    loads,
    unreadable,
    unsupported,
)


class BedrockEmbeddings:
    """OpenAI's embeddings by a model of Amazon (one text a request) or Cohere (up to 96).

    Cohere's models are told that the texts are documents to be found.
    """

    def __init__(self, *, model: str) -> None:
        self._model = model
        self._is_cohere = "cohere.embed" in model
        if not self._is_cohere and "amazon.titan-embed-text" not in model:
            raise unsupported("model", f"embeddings of '{model}' cannot be translated for Bedrock.")

    def request(self, body: JsonObject) -> NativeRequest:
        wanted = read_embedding(body)
        native = self._cohere(wanted) if self._is_cohere else _titan(wanted)
        return NativeRequest(
            path=model_path(self._model, "invoke"), body=orjson.dumps(native), headers=[]
        )

    def _cohere(self, wanted: EmbeddingInput) -> JsonObject:
        native: JsonObject = {"texts": [*wanted.texts], "input_type": "search_document"}
        if wanted.dimensions is not None:
            if "embed-v4" not in self._model:
                raise unsupported("dimensions", f"'{self._model}' has one length only.")
            native["output_dimension"] = wanted.dimensions
        return native

    def answer(self, body: bytes) -> bytes:
        try:
            vectors, prompt_tokens = _vectors(loads(body))
        except MalformedAnswer as error:
            raise unreadable("aws-bedrock", error) from error
        return embedding_body(self._model, vectors, prompt_tokens)

    def error(self, status: int, body: bytes) -> bytes:
        return bedrock_error(status, body)

    def stream(self, request: JsonObject) -> StreamTranslator:
        raise unsupported("stream", "embeddings do not stream.")


def _titan(wanted: EmbeddingInput) -> JsonObject:
    if len(wanted.texts) != 1:
        raise InvalidRequestError(
            f"Invalid 'input': Amazon's models take one text a request, got {len(wanted.texts)}.",
            param="input",
        )
    native: JsonObject = {"inputText": wanted.texts[0]}
    if wanted.dimensions is not None:
        native["dimensions"] = wanted.dimensions
    return native


def _vectors(said: JsonObject) -> tuple[list[list[JsonValue]], int]:
    if "embedding" in said:
        return [a_list(said["embedding"])], a_count(said.get("inputTextTokenCount"))
    found = said.get("embeddings")
    if isinstance(found, dict):  # by type of number, as newer models answer
        found = found.get("float")
    # Cohere's count is in a header of the answer, which does not come here.
    return [a_list(vector) for vector in a_list(found)], 0
