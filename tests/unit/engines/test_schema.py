from __future__ import annotations

import pytest

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.engines.llamacpp.schema import check_schema


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "patternProperties": {"a": {}}}, "s"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "s.properties.a"),
        ({"anyOf": [{"type": "string"}, {"uniqueItems": True}]}, "s.anyOf[1]"),
        ({"type": "array", "items": {"multipleOf": 2}}, "s.items"),
        ({"type": "number", "minimum": 0}, "s"),
        ({"type": "string", "format": "email"}, "s"),
        ({"$ref": "https://example.com/schema"}, "s"),
        ({"type": "object", "additionalProperties": {"if": {}}}, "s.additionalProperties"),
    ],
)
def test_keyword_that_no_grammar_enforces_is_refused_at_its_place(
    schema: JsonObject, place: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_schema(schema, "s")
    assert caught.value.param == place
    assert caught.value.code == "invalid_json_schema"


def test_schema_of_pydantic_is_accepted() -> None:
    check_schema(
        {
            "title": "Order",
            "type": "object",
            "properties": {
                "count": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many"},
                "size": {"enum": ["s", "m"], "type": "string", "default": "s"},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "minItems": 1},
            },
            "required": ["count"],
            "additionalProperties": False,
            "$defs": {"Part": {"type": "object", "properties": {"id": {"type": "string"}}}},
        },
        "s",
    )


def test_schema_nested_beyond_reason_is_refused() -> None:
    schema: JsonObject = {"type": "string"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequestError, match="nested more than"):
        check_schema(schema, "s")
