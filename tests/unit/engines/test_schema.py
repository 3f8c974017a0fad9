from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import pydantic_function_tool
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.engines.llamacpp.schema import check_schema, check_tools

ALIKE: JsonObject = {"type": "array", "items": {"$ref": "#/$defs/A"}}
BOMB = "^((((a{0,100}){0,100}){0,100}){0,100})$"


def nested(depth: int, keyword: str = "items") -> JsonObject:
    schema: JsonObject = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema} if keyword == "items" else {"anyOf": [schema]}
    return schema


def objects(count: int, inner: JsonValue) -> JsonObject:
    names = [f"field_{index}" for index in range(count)]
    return {
        "type": "object",
        "properties": dict.fromkeys(names, inner),
        "required": list(names),
        "additionalProperties": False,
    }


def tool(parameters: JsonValue, **more: JsonValue) -> JsonObject:
    return {"type": "function", "function": {"name": "f", "parameters": parameters, **more}}


UNENFORCED: list[tuple[JsonObject, str, str]] = [
    ({"type": "object", "patternProperties": {"a": {}}}, "s", "patternProperties"),
    ({"type": "object", "properties": {"a": {"not": {}}}}, "s.properties.a", "not"),
    ({"anyOf": [{"type": "string"}, {"uniqueItems": True}]}, "s.anyOf[1]", "uniqueItems"),
    ({"type": "array", "items": {"multipleOf": 2}}, "s.items", "multipleOf"),
    ({"type": "number", "minimum": 0}, "s", "minimum"),
    ({"type": ["number", "null"], "maximum": 0}, "s", "maximum"),
    ({"type": "string", "format": "email"}, "s", "email"),
    ({"$ref": "https://example.com/schema"}, "s", "example.com"),
    ({"$ref": "#"}, "s", "#"),
    ({"type": "object", "additionalProperties": {"if": {}}}, "s.additionalProperties", "if"),
    ({"type": "string", "pattern": "ab"}, "s", "pattern"),
    ({"type": "string", "pattern": r"^\d+$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^.*$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^[^a]$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^[ -~]$"}, "s", "pattern"),
    ({"type": "string", "pattern": '^"$'}, "s", "pattern"),
    ({"type": "string", "pattern": r"^a\.*$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^a+?b$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^é*$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^(?=a)b$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^a^b$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^a{0}$"}, "s", "pattern"),
    ({"type": "string", "pattern": "^a$", "maxLength": 3}, "s", "maxLength"),
    ({"type": "string", "format": "date", "minLength": 3}, "s", "minLength"),
    ({"type": "string", "format": "date", "pattern": "^a$"}, "s", "format"),
    ({"type": "string", "maxLength": 2001}, "s", "maxLength"),
    ({"$defs": {"A": {}}, "properties": {"a": ALIKE | {"enum": [[]]}}}, "s.properties.a", "items"),
    ({"$defs": {"A": {}}, "$ref": "#/$defs/A", "type": "string"}, "s", "type"),
    ({"anyOf": [{"type": "object"}], "required": ["a"]}, "s", "required"),
    ({"type": "object", "anyOf": [{"type": "object"}]}, "s", "type"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "s", "oneOf"),
    ({"type": "array", "prefixItems": [{}], "minItems": 2}, "s", "minItems"),
    ({"type": "array", "prefixItems": [{}], "maxItems": 0}, "s", "maxItems"),
    ({"type": "array", "prefixItems": [{}], "items": {}}, "s", "prefixItems"),
    ({"type": "array", "items": [{}]}, "s", "items"),
    ({"minItems": 2}, "s", "minItems"),
    ({"required": ["a"]}, "s", "required"),
    ({"type": "object", "properties": {"b": {}}, "required": ["a"]}, "s", "required"),
    ({"properties": {"a": {}}, "additionalProperties": True}, "s", "additionalProperties"),
    ({"type": "string", "enum": [1]}, "s", "type"),
    ({"type": "integer", "const": True}, "s", "type"),
    ({"enum": ["a"], "maxLength": 3}, "s", "maxLength"),
    ({"type": "integer", "minimum": 1, "exclusiveMinimum": 1}, "s", "exclusiveMinimum"),
    ({"type": "integer", "minimum": 100}, "s", "minimum"),
    ({"type": "integer", "maximum": -1}, "s", "maximum"),
    ({"allOf": [{"type": "string"}]}, "s", "allOf"),
    ({"allOf": [{"properties": {"a": {}}}, {"properties": {"a": {}}}]}, "s", "allOf"),
    ({"allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}}, "s", "properties"),
]
MALFORMED: list[JsonValue] = [
    None,
    5,
    "a",
    True,
    {"type": "foo"},
    {"type": []},
    {"type": ["string", "string"]},
    {"type": None},
    {"minimum": "x"},
    {"type": "integer", "minimum": 2**70},
    {"type": "integer", "minimum": 10**16},
    {"type": "integer", "minimum": 3, "maximum": 2},
    {"type": "integer", "exclusiveMinimum": 2, "maximum": 2},
    {"properties": 5},
    {"properties": {"a": True}},
    {"enum": []},
    {"enum": 5},
    {"anyOf": []},
    {"anyOf": {}},
    {"required": "a"},
    {"items": 5},
    {"additionalProperties": 5},
    {"format": 5},
    {"pattern": 5},
    {"maxLength": 2.5},
    {"minLength": -1},
    {"minItems": True},
    {"$ref": 5},
    {"$ref": "#/$defs/none"},
    {"$ref": "#/default", "default": {"type": "string"}},
    {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
    {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}}},
    {"type": "string", "pattern": "^(a$"},
    {"type": "string", "pattern": "^a)$"},
    {"type": "string", "pattern": "^[a$"},
    {"type": "string", "pattern": "^*a$"},
    {"type": "string", "pattern": "^()+a$"},
    {"type": "string", "pattern": "^a\\$"},
    {"default": 2**70},
    {"default": [[[]]] and nested(400)},
    nested(40),
    nested(400),
    nested(900),
    nested(900, "anyOf"),
]
DANGEROUS: list[JsonObject] = [
    {"type": "array", "items": {}, "minItems": 5, "maxItems": 2},
    {"type": "string", "minLength": 5, "maxLength": 2},
    {"type": "string", "minLength": 2001},
    {"type": "string", "pattern": BOMB},
    {"type": "string", "pattern": "^a{5,2}$"},
    {"type": "string", "pattern": "^a{100}{100}{100}$"},
    {"type": "string", "pattern": "^a{ 1,100000}$"},
    {"type": "string", "pattern": "^" + "(a?)" * 300 + "$"},
    {"enum": [f"value {index}" for index in range(1001)]},
    objects(0, {}) | {"properties": {f"field_{index}": {} for index in range(201)}},
    objects(3000, {}),
    {"properties": {"_" * 100_000: {}}},
    {"const": "a" * 200_000},
    {"$defs": {"a" * 100_000: {}}},
    objects(400, {}) | {"required": [f"other_{index}" for index in range(400)]},
    {
        "$defs": {"d0": {}}
        | {f"d{at + 1}": {"items": {"$ref": f"#/$defs/d{at}"}} for at in range(900)}
    },
    objects(60, {"type": "string", "minLength": 2000}),
    {"$defs": {"A": {"anyOf": [ALIKE, ALIKE]}}, "$ref": "#/$defs/A"},
]


@pytest.mark.parametrize(("schema", "place", "keyword"), UNENFORCED)
def test_rule_that_no_grammar_enforces_is_refused_at_its_place(
    schema: JsonObject, place: str, keyword: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_schema(schema, "s")
    assert caught.value.param == place
    assert caught.value.code == "invalid_json_schema"
    assert keyword in caught.value.message


@pytest.mark.parametrize("schema", [*MALFORMED, *DANGEROUS])
def test_what_is_malformed_or_dangerous_is_refused_soon_of_every_tool(schema: JsonValue) -> None:
    started_s = time.process_time()
    with pytest.raises(InvalidRequestError):
        check_schema(schema, "s")
    if schema is not None:  # a tool without parameters
        with pytest.raises(InvalidRequestError):
            check_tools([tool({"type": "object"}), tool(schema)])
    assert time.process_time() - started_s < 1


@pytest.mark.parametrize("schema", [schema for schema, _, _ in UNENFORCED if "$ref" not in schema])
def test_rule_that_is_not_enforced_is_no_harm_to_a_tool_that_is_not_strict(
    schema: JsonObject,
) -> None:
    check_tools([tool(schema)])
    with pytest.raises(InvalidRequestError, match=r"tools\[0\]\.function\.parameters"):
        check_tools([tool(schema, strict=True)])


def test_tools_are_limited_together() -> None:
    half: JsonObject = {"enum": [f"value {index}" for index in range(600)]}
    check_tools([tool(half)])
    with pytest.raises(InvalidRequestError, match=r"tools\[1\].*enum values"):
        check_tools([tool(half), tool(half)])


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"properties": {"a": {}}, "required": ["a"]},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": ["string", "null"], "maxLength": 5},
        {"type": ["integer", "null"], "minimum": 5},
        {"type": ["string", "null"], "enum": ["a", None]},
        {"type": "number", "enum": [1, 2.5]},
        {"type": "integer", "const": 2.0},
        {"type": "integer", "minimum": 5, "exclusiveMaximum": 1000},
        {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1},
        {"type": "array", "prefixItems": [{}, {}], "minItems": 2, "maxItems": 2},
        {"type": "array", "items": {}, "minItems": 2000, "maxItems": 2000},
        {"type": "string", "pattern": r"^(?:[A-Z]{2}-)?[0-9]+(\.[0-9]{1,2})?$"},
        {"type": "string", "pattern": "^[a-z_.+-]+@[a-z-]+[.](com|org)$"},
        {"oneOf": [{"type": "string"}, {"type": "null"}]},
        {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"enum": [1]}}, "default": 1},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        objects(100, {"type": "string", "maxLength": 900}),
        {"type": "array", "maxItems": 100, "items": objects(30, {"type": "string"})},
        {"enum": [f"value {index}" for index in range(500)]},
    ],
)
def test_what_a_grammar_enforces_is_accepted(schema: JsonObject) -> None:
    check_schema(schema, "s")


class Tag(BaseModel):
    """Text in a colour."""

    text: str = Field(description="What it says")
    colour: Literal["red", "green"] = "red"


class Cat(BaseModel):
    """One of two."""

    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    """The other."""

    kind: Literal["dog"]
    name: str


class Order(BaseModel):
    """All that users put in their models."""

    count: int
    tags: list[Tag]
    main: Tag = Field(description="Next to a reference")
    other: Optional[Tag] = None  # noqa: UP045 - as users write it
    price: float | None
    size: tuple[int, str]
    pet: Cat | Dog
    parent: Order | None
    note: str = Field(max_length=1000)


def test_what_the_openai_sdk_makes_of_pydantic_models_is_accepted() -> None:
    check_schema(to_strict_json_schema(Order), "s")
    function: Any = pydantic_function_tool(Order)
    check_tools([function])
    check_schema(Tag.model_json_schema(), "s")


def test_long_chain_of_deep_schemas_is_followed() -> None:
    def inside(last: JsonObject) -> JsonObject:
        for _ in range(28):
            last = {"type": "array", "items": last}
        return last

    defs: JsonObject = {f"d{at}": inside({"$ref": f"#/$defs/d{at + 1}"}) for at in range(100)}
    check_schema({"$ref": "#/$defs/d0", "$defs": {**defs, "d100": {}}}, "s")


def test_references_that_llama_cpp_takes_for_each_other_are_refused() -> None:
    refs: list[JsonValue] = [{"$ref": f"#/$defs/{name}"} for name in ("A", "A_b")]
    defs: JsonObject = {
        "A": {"type": "object", "properties": {"b": {"const": 1}}},
        "A_b": {"const": 2},
    }
    with pytest.raises(InvalidRequestError, match="A_b"):
        check_schema({"anyOf": refs, "$defs": defs}, "s")


_KEYWORDS = sorted(
    {keyword for schema, _, _ in UNENFORCED for keyword in schema} | {"definitions", "$id", "x"}
)
_LEAVES: st.SearchStrategy[JsonValue] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["string", "object", "#/$defs/x", "#/properties/x", "^a{1,2}$", "^(", "^[a$"]),
)
_JSON: st.SearchStrategy[JsonValue] = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_KEYWORDS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)


@given(_JSON)
def test_no_json_is_a_surprise(schema: JsonValue) -> None:
    with suppress(InvalidRequestError):
        check_schema(schema, "s")
    with suppress(InvalidRequestError):
        check_tools([tool(schema)])


@given(st.text(alphabet="ab(){}[]|?*+\\.,:019^$-", max_size=20))
def test_no_pattern_is_a_surprise(pattern: str) -> None:
    with suppress(InvalidRequestError):
        check_schema({"type": "string", "pattern": f"^{pattern}$"}, "s")
