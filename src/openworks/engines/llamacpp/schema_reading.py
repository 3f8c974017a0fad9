"""Reads JSON Schemas the way llama.cpp does, and refuses what is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue

TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_MAPS_OF_SCHEMAS = ("$defs", "definitions", "properties")
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")


def refusal(path: str, reason: str) -> InvalidRequestError:
    """Return the error of a schema at `path`; `reason` goes on with "by this model's grammar"."""
    return InvalidRequestError(
        f"Invalid schema at '{path}': {reason} by this model's grammar.",
        code="invalid_json_schema",
        param=path,
    )


def malformed(path: str, reason: str) -> InvalidRequestError:
    """Return the error of what is no JSON Schema."""
    return InvalidRequestError(
        f"Invalid schema at '{path}': {reason}.", code="invalid_json_schema", param=path
    )


def check_shape(schema: JsonObject, path: str) -> None:
    """Refuse keywords whose value is none that they can have."""
    for keyword, (is_fine, expected) in _SHAPES.items():
        if keyword in schema and not is_fine(schema[keyword]):
            raise malformed(path, f"{keyword!r} must be {expected}")


def schema_of(value: JsonValue, path: str) -> JsonObject:
    """Return a schema that is an object, as llama.cpp wants it; refuse any other."""
    if not isinstance(value, dict):
        raise malformed(path, "a schema must be an object")
    return value


def subschemas(schema: JsonObject, path: str) -> Iterator[tuple[JsonValue, str]]:
    """Yield the schemas that stand right in a well-formed one, each with its place."""
    for keyword in _MAPS_OF_SCHEMAS:
        for name, inner in object_of(schema.get(keyword)).items():
            yield inner, f"{path}.{keyword}.{name}"
    for keyword in _LISTS_OF_SCHEMAS:
        for index, inner in enumerate(list_of(schema.get(keyword))):
            yield inner, f"{path}.{keyword}[{index}]"
    items = schema.get("items", [])
    for inner in items if isinstance(items, list) else [items]:
        yield inner, f"{path}.items"
    if not isinstance(schema.get("additionalProperties", True), bool):
        yield schema["additionalProperties"], f"{path}.additionalProperties"


def object_of(value: JsonValue) -> JsonObject:
    """Return an object as it is, and anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: JsonValue) -> list[JsonValue]:
    """Return a list as it is, and anything else as an empty one."""
    return value if isinstance(value, list) else []


def number(value: JsonValue) -> float | None:
    """Return a number as it is, and anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def types_of(schema: JsonObject) -> list[JsonValue]:
    """Return what `type` names, be it one or a list."""
    named = schema.get("type", [])
    return named if isinstance(named, list) else [named]


def kind_of(value: JsonValue) -> str:
    """Return the type of a value as a schema names it; whole numbers are integers."""
    if isinstance(value, float) and value.is_integer():
        return "integer"
    return _KINDS[type(value)]


def integer_bounds(schema: JsonObject) -> tuple[float | None, float | None]:
    """Return the least and the largest integer that the bounds let through."""
    above, below = number(schema.get("exclusiveMinimum")), number(schema.get("exclusiveMaximum"))
    least, most = number(schema.get("minimum")), number(schema.get("maximum"))
    lower = [*([] if least is None else [math.ceil(least)])]
    lower += [] if above is None else [math.floor(above) + 1]
    upper = [*([] if most is None else [math.floor(most)])]
    upper += [] if below is None else [math.ceil(below) - 1]
    return max(lower, default=None), min(upper, default=None)


def resolve(root: JsonObject, schema: JsonObject, path: str) -> JsonObject:
    """Return the schema that `$ref` names the way llama.cpp reads it: without escapes.

    Raises:
        InvalidRequestError: There is none.
    """
    ref = schema["$ref"]
    if not (isinstance(ref, str) and ref.startswith("#/")):
        raise refusal(path, f"only references within the schema are followed, got {ref!r}")
    target: JsonValue = root
    for name in ref[2:].split("/"):
        if isinstance(target, list):
            target = target[int(name)] if name in map(str, range(len(target))) else None
        else:
            target = object_of(target).get(name)
    if not isinstance(target, dict):
        raise malformed(path, f"$ref {ref!r} leads to no schema")
    return target


def _is_type(value: JsonValue) -> bool:
    names = value if isinstance(value, list) else [value]
    texts = [name for name in names if isinstance(name, str) and name in TYPES]
    return 0 < len(names) == len(set(texts))


def _is_names(value: JsonValue) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_number(value: JsonValue) -> bool:
    return number(value) is not None and math.isfinite(number(value) or 0)


def _is_count(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_filled(value: JsonValue) -> bool:
    return isinstance(value, list) and bool(value)


def _is_text(value: JsonValue) -> bool:
    return isinstance(value, str)


def _is_map(value: JsonValue) -> bool:
    return isinstance(value, dict)


_Check = tuple[Callable[[JsonValue], bool], str]
_TEXT: _Check = (_is_text, "a string")
_MAP: _Check = (_is_map, "an object")
_COUNT: _Check = (_is_count, "a count")
_NUMBER: _Check = (_is_number, "a number")
_FILLED: _Check = (_is_filled, "a list that is not empty")
_SHAPES: dict[str, _Check] = {
    "$defs": _MAP,
    "$ref": _TEXT,
    "allOf": _FILLED,
    "anyOf": _FILLED,
    "definitions": _MAP,
    "enum": _FILLED,
    "exclusiveMaximum": _NUMBER,
    "exclusiveMinimum": _NUMBER,
    "format": _TEXT,
    "maxItems": _COUNT,
    "maxLength": _COUNT,
    "maximum": _NUMBER,
    "minItems": _COUNT,
    "minLength": _COUNT,
    "minimum": _NUMBER,
    "oneOf": _FILLED,
    "pattern": _TEXT,
    "prefixItems": _FILLED,
    "properties": _MAP,
    "required": (_is_names, "a list of strings"),
    "type": (_is_type, "a type, or a list of different types"),
}
_KINDS = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
    type(None): "null",
}
