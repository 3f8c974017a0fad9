from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types import CreateEmbeddingResponse

from openworks.core.errors import InvalidRequestError, ProviderError, UnsupportedParameterError
from openworks.gateway.compat.base import Translator
from openworks.gateway.compat.bedrock_embeddings import BedrockEmbeddings
from openworks.gateway.compat.vertex_embeddings import VertexEmbeddings

_COHERE = BedrockEmbeddings(model="cohere.embed-multilingual-v3")
_TITAN = BedrockEmbeddings(model="amazon.titan-embed-text-v2:0")
_VERTEX = VertexEmbeddings(model="google/gemini-embedding-001")


def _answered(translator: Translator, said: Any) -> CreateEmbeddingResponse:
    return CreateEmbeddingResponse.model_validate_json(translator.answer(orjson.dumps(said)))


def test_embeddings_by_cohere() -> None:
    request = _COHERE.request({"model": "x", "input": ["a", "b"], "encoding_format": "base64"})
    assert request.path == "model/cohere.embed-multilingual-v3/invoke"
    assert orjson.loads(request.body) == {"texts": ["a", "b"], "input_type": "search_document"}
    for said in ([[1, 2], [3, 4]], {"float": [[1, 2], [3, 4]]}):
        answer = _answered(_COHERE, {"id": "x", "embeddings": said})
        assert [item.embedding for item in answer.data] == [[1, 2], [3, 4]]
    with pytest.raises(UnsupportedParameterError):
        _COHERE.request({"model": "x", "input": "a", "dimensions": 256})


def test_embeddings_by_titan() -> None:
    request = _TITAN.request({"model": "x", "input": "a", "dimensions": 256})
    assert orjson.loads(request.body) == {"inputText": "a", "dimensions": 256}
    answer = _answered(_TITAN, {"embedding": [0.5], "inputTextTokenCount": 3})
    assert [(item.index, item.embedding) for item in answer.data] == [(0, [0.5])]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
    with pytest.raises(InvalidRequestError, match="one text a request, got 2"):
        _TITAN.request({"model": "x", "input": ["a", "b"]})


def test_embeddings_by_vertex() -> None:
    request = _VERTEX.request({"model": "x", "input": ["a", "b"], "dimensions": 768, "user": "u"})
    assert request.path == "publishers/google/models/gemini-embedding-001:predict"
    assert orjson.loads(request.body) == {
        "instances": [{"content": "a"}, {"content": "b"}],
        "parameters": {"outputDimensionality": 768},
    }
    embeddings = {"values": [0.5, 1.0], "statistics": {"token_count": 2, "truncated": False}}
    answer = _answered(_VERTEX, {"predictions": [{"embeddings": embeddings}] * 2})
    assert [item.embedding for item in answer.data] == [[0.5, 1.0]] * 2
    assert answer.usage.prompt_tokens == 4
    error = _VERTEX.error(
        429, b'{"error":{"code":429,"message":"Quota","status":"RESOURCE_EXHAUSTED"}}'
    )
    assert orjson.loads(error)["error"] == {
        "message": "Quota",
        "type": "rate_limit_error",
        "param": None,
        "code": "RESOURCE_EXHAUSTED",
    }


@pytest.mark.parametrize("translator", [_COHERE, _TITAN, _VERTEX])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"embeddings":5,"predictions":[5]}'])
def test_answers_that_cannot_be_read_are_an_error(translator: Translator, body: bytes) -> None:
    with pytest.raises(ProviderError):
        translator.answer(body)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "truncate": True}, "truncate"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _VERTEX.request(fields)
    assert caught.value.param == param
