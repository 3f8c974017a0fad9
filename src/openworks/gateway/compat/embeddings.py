"""OpenAI's embeddings by providers of another shape: what their translators share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.gateway.compat.read import field_count, field_list, field_text, unsupported

_HARMLESS: Final = frozenset({"model", "user"})
_READ: Final = frozenset({"input", "dimensions", "encoding_format"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingInput:
    """An embeddings request without a dialect."""

    texts: list[str]
    dimensions: int | None


def read_embedding(body: JsonObject) -> EmbeddingInput:
    """Read an embeddings request.

    `user` changes nothing and passes. So does `encoding_format`, though vectors always come back as
    numbers: OpenAI's clients ask for base64 unasked, and read either.

    Raises:
        UnsupportedParameterError: A field cannot be honoured.
        InvalidRequestError: A field has the wrong shape; token ids are no text either.
    """
    fields: JsonObject = {name: value for name, value in body.items() if value is not None}
    for name in fields:
        if name not in _HARMLESS and name not in _READ:
            raise unsupported(name, "this provider has nothing like it.")
    value = fields.get("input")
    inputs = [value] if isinstance(value, str) else field_list(value, "input")
    texts = [field_text(text, f"input[{index}]") for index, text in enumerate(inputs)]
    if not texts:
        raise InvalidRequestError("Invalid 'input': at least one text is needed.", param="input")
    return EmbeddingInput(texts=texts, dimensions=field_count(fields, "dimensions"))


def embedding_body(model: str, vectors: list[list[JsonValue]], prompt_tokens: int) -> bytes:
    """Return OpenAI's list of embeddings."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})
