"""`/v1/embeddings` and `/v1/rerank`."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.api.raw import post
from tests.api.weights import VOCAB, WIDTH
from tests.server import ServerProcess


def vectors(client: OpenAI, given: Any, **options: Any) -> list[list[float]]:
    answer = client.embeddings.create(model="encoder", input=given, **options)
    assert [row.index for row in answer.data] == list(range(len(answer.data)))
    return [row.embedding for row in answer.data]


def length(vector: list[float]) -> float:
    return math.sqrt(math.fsum(number * number for number in vector))


def test_a_text_becomes_a_unit_vector(client: OpenAI) -> None:
    (vector,) = vectors(client, "Hello")

    assert len(vector) == WIDTH
    assert length(vector) == pytest.approx(1, abs=1e-5)


async def test_asynchronous_client_gets_the_same_vector(
    client: OpenAI, async_client: AsyncOpenAI
) -> None:
    answer = await async_client.embeddings.create(model="encoder", input="Hello")

    assert answer.data[0].embedding == pytest.approx(vectors(client, "Hello")[0], abs=1e-5)


def test_the_names_that_openai_code_carries_are_answered(client: OpenAI) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input="Hello")

    assert answer.model == "encoder"


def test_base64_is_what_the_sdk_asks_for_and_equals_the_numbers(client: OpenAI) -> None:
    by_default = vectors(client, ["Hello", "Bye"])
    as_numbers = vectors(client, ["Hello", "Bye"], encoding_format="float")

    for left, right in zip(by_default, as_numbers, strict=True):
        assert left == pytest.approx(right, abs=1e-5)


def test_base64_is_little_endian_float32(server: ServerProcess) -> None:
    body = {"model": "encoder", "input": "Hello"}
    coded = post(server, "/v1/embeddings", {**body, "encoding_format": "base64"}).json()
    plain = post(server, "/v1/embeddings", body).json()

    data = base64.b64decode(coded["data"][0]["embedding"], validate=True)
    assert list(struct.unpack(f"<{WIDTH}f", data)) == pytest.approx(
        plain["data"][0]["embedding"], abs=1e-5
    )


@pytest.mark.parametrize("encoding", ["float", openai.omit], ids=["float", "base64"])
def test_dimensions_cut_the_vector_and_make_it_a_unit_again(client: OpenAI, encoding: Any) -> None:
    (whole,) = vectors(client, "Hello")

    (cut,) = vectors(client, "Hello", dimensions=10, encoding_format=encoding)

    assert len(cut) == 10
    assert length(cut) == pytest.approx(1, abs=1e-5)
    assert cut == pytest.approx([number / length(whole[:10]) for number in whole[:10]], abs=1e-4)


def test_more_dimensions_than_the_model_has_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=f"have {WIDTH}, got 65") as caught:
        vectors(client, "Hello", dimensions=65)

    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    "given",
    [list(b"Hello"), [list(b"Hello")], ["Hello"]],
    ids=["tokens", "list of tokens", "list of texts"],
)
def test_every_form_of_input_gives_the_same_vector(client: OpenAI, given: Any) -> None:
    (vector,) = vectors(client, given)

    assert vector == pytest.approx(vectors(client, "Hello")[0], abs=1e-5)


def test_vectors_come_in_the_order_of_the_inputs(client: OpenAI) -> None:
    given = [f"text {number}" for number in range(20)]

    together = vectors(client, given)

    for text, vector in zip(given, together, strict=True):
        assert vector == pytest.approx(vectors(client, text)[0], abs=1e-4)


def test_a_vector_does_not_depend_on_what_was_embedded_before(client: OpenAI) -> None:
    (first,) = vectors(client, "One beginning and one end")

    for other in ("One beginning", "One beginning and another end", "One"):
        vectors(client, other)
        assert vectors(client, "One beginning and one end")[0] == pytest.approx(first, abs=1e-4)


def test_usage_counts_the_tokens_of_every_input(client: OpenAI) -> None:
    usage = client.embeddings.create(model="encoder", input=["Hello", "Bye"]).usage

    assert (usage.prompt_tokens, usage.total_tokens) == (8, 8)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("", "input"),
        ([], "input"),
        (["Hello", ""], "input"),
        ([[]], "input"),
        (["a"] * 2049, "input"),
        ([[1, -2]], "input[0]"),
    ],
    ids=["empty", "none", "one empty", "no tokens", "too many", "negative token"],
)
def test_inputs_that_cannot_be_embedded_are_refused(client: OpenAI, given: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        vectors(client, given)

    assert caught.value.param == param


def test_an_input_beyond_the_context_is_refused_with_both_counts(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"4096 tokens.* 5000 tokens") as caught:
        vectors(client, ["Hello", "a" * 5000])

    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


def test_token_ids_beyond_the_vocabulary_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="invalid tokens"):
        vectors(client, [[1, VOCAB]])


def test_a_chat_model_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="text-generation") as caught:
        client.embeddings.create(model="talker", input="Hello")

    assert (caught.value.code, caught.value.param) == ("wrong_task", "model")


@pytest.mark.parametrize("model", ["talker", "encoder"])
def test_rerank_refuses_a_model_of_another_task(server: ServerProcess, model: str) -> None:
    reply = post(server, "/v1/rerank", {"model": model, "query": "a", "documents": ["b"]})

    assert (reply.status, reply.error()["code"]) == (400, "wrong_task")
    assert model in reply.error()["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["b"] * 1001}, "documents"),
        ({"documents": "b"}, "documents"),
        ({"documents": [{"text": 1}]}, "documents[0].text"),
        ({"top_n": 0}, "top_n"),
        ({"query": None}, "query"),
        ({"rank_fields": ["text"]}, "rank_fields"),
    ],
)
def test_rerank_refuses_bad_fields_by_name(
    server: ServerProcess, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "talker", "query": "a", "documents": ["b"], **fields}

    reply = post(server, "/v1/rerank", body)

    assert (reply.status, reply.error()["param"]) == (400, param)
