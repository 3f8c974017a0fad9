"""Which JSON Schemas llama.cpp's grammar enforces.

Its converter passes over what it does not know, so that an answer may break a rule that the caller
relies on. What cannot be enforced is refused instead, by keyword and place.
"""

from __future__ import annotations

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue

_ENFORCED = frozenset(
    {
        "$defs",
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "definitions",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "minItems",
        "minLength",
        "oneOf",
        "pattern",
        "prefixItems",
        "properties",
        "required",
        "type",
    }
)
_ANNOTATIONS = frozenset(
    {
        "$comment",
        "$id",
        "$schema",
        "default",
        "deprecated",
        "description",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    }
)
_INTEGER_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_FORMATS = frozenset({"date", "time", "date-time", "uuid", "uuid1", "uuid3", "uuid4", "uuid5"})
_MAPS_OF_SCHEMAS = frozenset({"$defs", "definitions", "properties"})
_LISTS_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAX_DEPTH = 32


def check_schema(schema: JsonValue, path: str) -> None:
    """Return if the grammar enforces all of `schema`.

    Args:
        schema: A JSON Schema.
        path: Where it stands in the request, for the error.

    Raises:
        InvalidRequestError: A keyword is not enforced; names keyword and place.
    """
    _check(schema, path, depth=0)


def _check(schema: JsonValue, path: str, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _refusal(path, "a schema must be an object")
    if depth > _MAX_DEPTH:
        raise _refusal(path, f"it is nested more than {_MAX_DEPTH} deep")
    for keyword, value in schema.items():
        _check_keyword(schema, keyword, value, path)
        if keyword in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            for name, inner in value.items():
                _check(inner, f"{path}.{keyword}.{name}", depth + 1)
        elif keyword in _LISTS_OF_SCHEMAS and isinstance(value, list):
            for index, inner in enumerate(value):
                _check(inner, f"{path}.{keyword}[{index}]", depth + 1)
        elif keyword in {"items", "additionalProperties"}:
            _check(value, f"{path}.{keyword}", depth + 1)


def _check_keyword(schema: JsonObject, keyword: str, value: JsonValue, path: str) -> None:
    if keyword in _INTEGER_BOUNDS:
        if schema.get("type") != "integer":
            raise _refusal(path, f"{keyword!r} is enforced on type 'integer' only")
    elif keyword == "format":
        if value not in _FORMATS:
            raise _refusal(path, f"format {value!r} is not enforced")
    elif keyword == "$ref":
        if not (isinstance(value, str) and value.startswith("#")):
            raise _refusal(path, f"only references within the schema are followed, got {value!r}")
    elif keyword not in _ENFORCED and keyword not in _ANNOTATIONS:
        raise _refusal(path, f"keyword {keyword!r} is not enforced")


def _refusal(path: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid schema at '{path}': {reason} by this model's grammar.",
        code="invalid_json_schema",
        param=path,
    )
