"""Answers that must be JSON: any object, or what a schema describes."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from random import Random
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

from openworks.ports.catalog import EngineName
from tests.api.asks import ASCII, COLOUR_SCHEMA, HELLO, text_of
from tests.engine_choice import EACH_ENGINE

pytestmark = EACH_ENGINE


class Room(BaseModel):
    """Part of a house; a nested schema makes the SDK send `$defs`."""

    name: Literal["kitchen", "hall"]
    windows: Literal[0, 1, 2]


class House(BaseModel):
    """What `parse` asks for."""

    rooms: list[Room] = Field(max_length=2)
    sold: bool
    owner: Literal["Ada"] | None


SOON_S = 10.0
"""Far beyond what a refusal takes, for a machine that is busy with something else."""


def schema_format(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


def test_parse_returns_an_instance_of_the_model(client: OpenAI) -> None:
    for seed in range(5):
        parsed = client.chat.completions.parse(
            model="talker", messages=HELLO, response_format=House, seed=seed
        )

        assert isinstance(parsed.choices[0].message.parsed, House)


def test_conversation_that_ends_with_the_assistant_gets_a_new_turn(client: OpenAI) -> None:
    """Not the rest of the last one, which no grammar could describe."""
    parsed = client.chat.completions.parse(
        model="talker",
        messages=[*HELLO, {"role": "assistant", "content": "Well,"}],
        response_format=House,
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


ENFORCED: dict[EngineName, frozenset[str]] = {
    "llamacpp": frozenset(),
    "batched": frozenset({"minimum", "email"}),
}
"""What other engines refuse, of the keywords below."""


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
    client: OpenAI, engine: EngineName, schema: dict[str, Any], place: str, keyword: str
) -> None:
    if keyword in ENFORCED[engine]:
        pytest.skip("this engine enforces it")
    with pytest.raises(openai.BadRequestError, match=keyword) as caught:
        client.chat.completions.create(
            model="talker", messages=HELLO, response_format=schema_format(schema)
        )

    assert caught.value.param == f"response_format.json_schema.schema{place}"
    assert caught.value.code == "invalid_json_schema"


def test_what_a_generated_schema_says_holds(client: OpenAI) -> None:
    fine = 0
    for number in range(60):
        schema = generated(Random(number), depth=2)
        with suppress(openai.BadRequestError):  # what cannot be enforced
            answer = client.chat.completions.create(
                model="talker",
                messages=HELLO,
                response_format=schema_format(schema),
                seed=number,
                temperature=1,
                logit_bias=ASCII,
                max_tokens=300,
            )
            if answer.choices[0].finish_reason == "stop":
                fine += 1
                assert fits(json.loads(answer.choices[0].message.content or ""), schema), schema
    assert fine > 20


def generated(random: Random, *, depth: int) -> dict[str, Any]:
    """Make up a schema, of which some hold what no grammar enforces."""
    bounds = sorted(random.sample([-130, -7, 0, 3, 25, 100, 1000], 2))
    lengths = sorted(random.sample(range(5), 2))
    kinds: list[dict[str, Any]] = [
        {"type": "integer", "minimum": bounds[0], "maximum": bounds[1]},
        {"type": "integer", random.choice(["minimum", "maximum"]): bounds[0]},
        {"type": "string", "minLength": lengths[0], "maxLength": lengths[1]},
        {"type": "string", "pattern": random.choice(PATTERNS)},
        {"enum": random.sample(["a", 1, None, 2.5, True], 2)},
        {"type": ["boolean", "null"]},
    ]
    if depth:
        inner = [generated(random, depth=depth - 1) for _ in range(2)]
        properties = dict(zip("ab", inner, strict=True))
        required = random.sample("abc", 1)
        kinds += [
            {"type": "array", "items": inner[0], "minItems": lengths[0], "maxItems": lengths[1]},
            {"type": "array", "prefixItems": inner, "minItems": lengths[0]},
            {"type": "object", "properties": properties, "required": required},
            {"anyOf": inner},
            {"allOf": [{"properties": {name: each}} for name, each in properties.items()]},
        ]
    return random.choice(kinds[6:] or kinds)


PATTERNS = ["^[a-c]{2,3}$", "^(ab|c)+$", r"^-?[0-9]+(\.[0-9])?$", "a", "^.$", r"^a\.+$", r"^\d$"]


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether `value` is as `schema` says, for the keywords of `generated`."""
    kinds = schema.get("type", [])
    named = kinds if isinstance(kinds, list) else [kinds]
    checks = [
        not named or any(type(value) is JSON_TYPES[name] for name in named),
        "enum" not in schema or any(value is x or value == x for x in schema["enum"]),
        "anyOf" not in schema or any(fits(value, each) for each in schema["anyOf"]),
        all(fits(value, each) for each in schema.get("allOf", [])),
    ]
    if isinstance(value, int) and not isinstance(value, bool):
        checks += [schema.get("minimum", value) <= value <= schema.get("maximum", value)]
    if isinstance(value, str):
        checks += [schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))]
        checks += [re.search(schema.get("pattern", ""), value) is not None]
    if isinstance(value, list):
        checks += [schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))]
        shapes = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
        checks += [fits(each, shape) for each, shape in zip(value, shapes, strict=False)]
    if isinstance(value, dict):
        checks += [set(schema.get("required", [])) <= set(value)]
        shapes = schema.get("properties", {})
        checks += [fits(value[name], shapes[name]) for name in set(shapes) & set(value)]
    return all(checks)


JSON_TYPES = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "object": dict,
    "string": str,
}

LOOP = {"type": "array", "items": {"$ref": "#/$defs/a"}}
DANGEROUS: list[dict[str, Any]] = [
    {"type": "array", "items": {}, "minItems": 5, "maxItems": 2},
    {"type": "string", "pattern": "^((((a{0,100}){0,100}){0,100}){0,100})$"},
    {"type": "integer", "minimum": 10**17},
    {"enum": [f"value {number}" for number in range(20_000)]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [LOOP, LOOP]}}},
    {"type": "foo"},
    {"properties": 5},
    {"anyOf": []},
]
TAMED = [DANGEROUS[1], DANGEROUS[2], DANGEROUS[5]]
"""What the batched engine's grammars have at no risk, as the format of a whole answer."""


@pytest.mark.parametrize("schema", DANGEROUS)
def test_a_schema_that_would_hold_up_the_engine_is_refused_at_once(
    client: OpenAI, engine: EngineName, schema: dict[str, Any]
) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": schema}}
    asks: list[dict[str, Any]] = [{"response_format": schema_format(schema)}, {"tools": [tool]}]
    if engine == "batched" and schema in TAMED:
        options: dict[str, Any] = {"model": "talker", "messages": HELLO, "max_tokens": 5}
        started_s = time.monotonic()
        answer = client.chat.completions.create(**options, **asks.pop(0))
        assert answer.choices
        assert time.monotonic() - started_s < SOON_S
    for more in asks:
        started_s = time.monotonic()
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="talker", messages=HELLO, **more)

        assert caught.value.code == "invalid_json_schema"
        assert time.monotonic() - started_s < SOON_S
    answer = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=1)
    assert answer.choices


@pytest.mark.parametrize("depth", [100, 400, 900])
def test_a_schema_that_is_nested_too_deep_is_refused(client: OpenAI, depth: int) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}

    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="talker", messages=HELLO, response_format=schema_format(schema)
        )


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
