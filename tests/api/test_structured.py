"""Answers that must be JSON: any object, or what a schema describes."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

from tests.api.asks import ASCII, COLOUR_SCHEMA, HELLO, text_of


class Room(BaseModel):
    """Part of a house; a nested schema makes the SDK send `$defs`."""

    name: Literal["kitchen", "hall"]
    windows: Literal[0, 1, 2]


class House(BaseModel):
    """What `parse` asks for."""

    rooms: list[Room] = Field(max_length=2)
    sold: bool
    owner: Literal["Ada"] | None


def schema_format(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


def test_parse_returns_an_instance_of_the_model(client: OpenAI) -> None:
    for seed in range(5):
        parsed = client.chat.completions.parse(
            model="talker", messages=HELLO, response_format=House, seed=seed
        )

        assert isinstance(parsed.choices[0].message.parsed, House)


def test_beta_parse_is_the_same(client: OpenAI) -> None:
    parsed = client.beta.chat.completions.parse(
        model="talker", messages=HELLO, response_format=House
    )

    assert isinstance(parsed.choices[0].message.parsed, House)


async def test_asynchronous_parse_returns_an_instance(async_client: AsyncOpenAI) -> None:
    parsed = await async_client.chat.completions.parse(
        model="talker", messages=HELLO, response_format=House
    )

    assert isinstance(parsed.choices[0].message.parsed, House)


def test_stream_helper_parses_at_the_end(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="talker", messages=HELLO, response_format=House
    ) as stream:
        final = stream.get_final_completion()

    assert isinstance(final.choices[0].message.parsed, House)


def test_a_schema_holds_on_a_stream(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="talker",
            messages=HELLO,
            response_format=schema_format(COLOUR_SCHEMA),
            stream=True,
        )
    )

    answer = json.loads(text_of(chunks))
    assert answer["colour"] in {"red", "green"}
    assert all(isinstance(shade, bool) for shade in answer["shades"])
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_schema_holds_for_every_one_of_n_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker", messages=HELLO, response_format=schema_format(COLOUR_SCHEMA), n=5
    )

    assert all(json.loads(each.message.content or "")["colour"] for each in answer.choices)


def test_a_schema_holds_for_a_model_without_tools(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="plain", messages=HELLO, response_format=schema_format(COLOUR_SCHEMA)
    )

    assert json.loads(answer.choices[0].message.content or "")["colour"] in {"red", "green"}


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 17}, lambda value: 3 <= value <= 17),
        ({"enum": ["a", 1, None]}, lambda value: value in ("a", 1, None)),
        ({"const": {"a": [1]}}, lambda value: value == {"a": [1]}),
        ({"type": "string", "pattern": "^[ab]{2,3}$"}, lambda value: set(value) <= {"a", "b"}),
        ({"type": "string", "format": "date"}, lambda value: value[4] == "-"),
        ({"type": "string", "maxLength": 2}, lambda value: len(value) <= 2),
        (
            {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 3},
            lambda value: value in ([1, 1], [1, 1, 1]),
        ),
        ({"anyOf": [{"const": 1}, {"const": "x"}]}, lambda value: value in (1, "x")),
        (
            {"$ref": "#/$defs/it", "$defs": {"it": {"type": "boolean"}}},
            lambda value: isinstance(value, bool),
        ),
    ],
)
def test_schema_keywords_are_enforced(client: OpenAI, schema: dict[str, Any], fits: Any) -> None:
    for seed in range(3):
        answer = client.chat.completions.create(
            model="talker",
            messages=HELLO,
            response_format=schema_format(schema),
            seed=seed,
            logit_bias=ASCII,
            max_tokens=200,
        )

        assert fits(json.loads(answer.choices[0].message.content or ""))


@pytest.mark.parametrize(
    ("schema", "place", "keyword"),
    [
        ({"type": "object", "minProperties": 1}, "", "minProperties"),
        ({"type": "array", "uniqueItems": True}, "", "uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, ".properties.a", "not"),
        ({"type": "array", "items": {"type": "number", "minimum": 0}}, ".items", "minimum"),
        ({"anyOf": [{}, {"type": "string", "format": "email"}]}, ".anyOf[1]", "email"),
        ({"$defs": {"x": {"if": {}}}}, ".$defs.x", "if"),
        ({"$ref": "https://example.com/schema"}, "", "https://example.com/schema"),
    ],
)
def test_a_keyword_that_cannot_be_enforced_is_refused_with_its_place(
    client: OpenAI, schema: dict[str, Any], place: str, keyword: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=keyword) as caught:
        client.chat.completions.create(
            model="talker", messages=HELLO, response_format=schema_format(schema)
        )

    assert caught.value.param == f"response_format.json_schema.schema{place}"
    assert caught.value.code == "invalid_json_schema"


def test_json_object_begins_an_object(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="talker",
        messages=HELLO,
        response_format={"type": "json_object"},
        logit_bias={str(ord("}")): 100},
    )

    assert json.loads(answer.choices[0].message.content or "") == {}


def test_text_format_is_the_default(client: OpenAI) -> None:
    options: Any = {"model": "talker", "messages": HELLO, "seed": 1, "max_tokens": 10}
    by_default = client.chat.completions.create(**options)
    as_text = client.chat.completions.create(**options, response_format={"type": "text"})

    assert as_text.choices[0].message == by_default.choices[0].message


def test_a_parse_that_is_cut_off_is_told_as_such(client: OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="talker", messages=HELLO, response_format=House, max_tokens=3
        )
