"""Which JSON Schemas llama.cpp's grammar enforces.

Its converter passes over what it does not know, so that an answer may break a rule that the caller
relies on. What cannot be enforced is refused instead, by keyword and place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from openworks.core.json import JsonObject, JsonValue
from openworks.engines.llamacpp.schema_limits import Limits
from openworks.engines.llamacpp.schema_patterns import MAX_REPETITIONS, check_pattern
from openworks.engines.llamacpp.schema_reading import (
    integer_bounds,
    kind_of,
    list_of,
    number,
    object_of,
    refusal,
    subschemas,
    types_of,
)
from openworks.engines.llamacpp.schema_unions import check_all_of, check_one_of, values_of
from openworks.engines.schema_words import ANNOTATIONS

_TYPED = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
"""Type → the keywords that restrict it; they say nothing of other types."""
_FORMATS = frozenset({"date", "time", "date-time", "uuid", "uuid1", "uuid3", "uuid4", "uuid5"})


def check_schema(schema: JsonValue, path: str) -> None:
    """Return if the grammar enforces all of `schema`.

    Args:
        schema: A JSON Schema.
        path: Where it stands in the request, for the error.

    Raises:
        InvalidRequestError: It is malformed, too large, or holds a keyword that is not enforced;
            names keyword and place.
    """
    root = Limits().check(schema, path)
    _check_enforced(root, path)


def check_tools(tools: Sequence[JsonObject]) -> None:
    """Return if a grammar can be made of all `tools`, and enforces those that are strict.

    Raises:
        InvalidRequestError: As for `check_schema`; what is not strict may hold other keywords.
    """
    limits = Limits()
    for index, tool in enumerate(tools):
        function = object_of(tool.get("function"))
        path = f"tools[{index}].function.parameters"
        parameters = function.get("parameters")
        root = limits.check({} if parameters is None else parameters, path)
        if function.get("strict"):
            _check_enforced(root, path)


def _check_enforced(root: JsonObject, path: str) -> None:
    refs: dict[str, str] = {}
    places = [(root, path)]
    for schema, place in places:  # grows on the way
        _check_one(root, schema, place)
        _check_ref_name(schema, place, refs)
        places += [(object_of(inner), at) for inner, at in subschemas(schema, place)]


def _check_one(root: JsonObject, schema: JsonObject, path: str) -> None:
    winner = next((keyword for keyword in _WINNERS if keyword in schema), None)
    for keyword in schema:
        if keyword not in _ENFORCED:
            raise refusal(path, f"keyword {keyword!r} is not enforced")
        if winner and keyword not in {winner, *_BESIDE[winner], *ANNOTATIONS}:
            raise refusal(path, f"{keyword!r} is not enforced next to {winner!r}")
    if winner:
        _WINNERS[winner](root, schema, path)
        return
    types = types_of(schema) or _implied_type(schema, path)
    for kind, check in _TYPE_CHECKS.items():
        if kind in types:
            check(schema, path)


def _implied_type(schema: JsonObject, path: str) -> list[JsonValue]:
    """Return the type that llama.cpp takes a schema without one to mean."""
    if "properties" in schema or schema.get("additionalProperties", True) is not True:
        return ["object"]
    for kind, keywords in (("array", ("items", "prefixItems")), ("string", _TYPED["string"])):
        if any(keyword in schema for keyword in keywords):
            return [kind]
    for kind, keywords in _TYPED.items():
        for keyword in keywords:
            if keyword in schema and keyword != "additionalProperties":
                raise refusal(path, f"{keyword!r} without type {kind!r} is not enforced")
    return []


def _check_ref_name(schema: JsonObject, path: str, refs: dict[str, str]) -> None:
    """Refuse a reference that llama.cpp would take for another, or for a part of it."""
    ref = schema.get("$ref")
    if not isinstance(ref, str):
        return
    name = re.sub(r"[^a-zA-Z0-9-]+", "-", ref)
    for other, known in refs.items():
        if ref != known and (f"{name}-".startswith(f"{other}-") or other.startswith(f"{name}-")):
            raise refusal(path, f"$ref {ref!r} is not kept apart from {known!r}")
    refs[name] = ref


def _check_nothing(root: JsonObject, schema: JsonObject, path: str) -> None:
    """All that there is to say was checked."""


def _check_values(root: JsonObject, schema: JsonObject, path: str) -> None:
    types = types_of(schema)
    for value in values_of(schema):
        kinds = {kind_of(value)} | ({"number"} if kind_of(value) == "integer" else set())
        if types and not kinds & set(map(str, types)):
            raise refusal(
                path, f"'type' next to the value {value!r} of another type is not enforced"
            )


def _check_object(schema: JsonObject, path: str) -> None:
    properties = object_of(schema.get("properties"))
    for name in list_of(schema.get("required")):
        if name not in properties:
            raise refusal(path, f"'required' of the undeclared property {name!r} is not enforced")
    if properties and schema.get("additionalProperties", False) is not False:
        raise refusal(path, "'additionalProperties' next to 'properties' is not enforced")


def _check_array(schema: JsonObject, path: str) -> None:
    _check_most(schema, "maxItems", path)
    if isinstance(schema.get("items"), list):
        raise refusal(path, "a list of 'items' is not enforced")
    if "prefixItems" not in schema:
        return
    if "items" in schema:
        raise refusal(path, "'prefixItems' is not enforced next to 'items'")
    length = len(list_of(schema["prefixItems"]))
    least, most = number(schema.get("minItems")), number(schema.get("maxItems"))
    if (least or 0) > length:
        raise refusal(path, "'minItems' beyond 'prefixItems' is not enforced")
    if most is not None and most < length:
        raise refusal(path, "'maxItems' below 'prefixItems' is not enforced")


def _check_string(schema: JsonObject, path: str) -> None:
    _check_most(schema, "maxLength", path)
    used = [keyword for keyword in ("pattern", "format") if keyword in schema]
    lengths = [keyword for keyword in ("minLength", "maxLength") if keyword in schema]
    if used and len(used + lengths) > 1:
        ignored = (used + lengths)[1]
        raise refusal(path, f"{ignored!r} is not enforced next to {used[0]!r}")
    if "format" in schema and schema["format"] not in _FORMATS:
        raise refusal(path, f"format {schema['format']!r} is not enforced")
    if isinstance(pattern := schema.get("pattern"), str):
        check_pattern(pattern, path)


def _check_integer(schema: JsonObject, path: str) -> None:
    for plain, exclusive in (
        ("minimum", "exclusiveMinimum"),
        ("maximum", "exclusiveMaximum"),
    ):
        if plain in schema and exclusive in schema:
            raise refusal(path, f"{exclusive!r} is not enforced next to {plain!r}")
    least, most = integer_bounds(schema)
    if most is None and least is not None and "0" in str(max(least, 0))[1:-1]:
        raise refusal(path, f"the minimum {least} without a maximum is not enforced")
    if least is None and most is not None and most < 0:
        raise refusal(path, f"the maximum {most} without a minimum is not enforced")


def _check_number(schema: JsonObject, path: str) -> None:
    for keyword in _TYPED["number"]:
        if keyword in schema:
            raise refusal(path, f"{keyword!r} is enforced on type 'integer' only")


def _check_most(schema: JsonObject, keyword: str, path: str) -> None:
    most = number(schema.get(keyword))
    if most is not None and most > MAX_REPETITIONS:
        raise refusal(path, f"{keyword!r} {most} beyond {MAX_REPETITIONS} is not enforced")


_WINNERS: dict[str, Callable[[JsonObject, JsonObject, str], None]] = {
    "$ref": _check_nothing,
    "oneOf": check_one_of,
    "anyOf": _check_nothing,
    "const": _check_values,
    "enum": _check_values,
    "allOf": check_all_of,
}
"""The keywords that llama.cpp reads alone, in its order, with what to ask of each."""
_BESIDE: dict[str, tuple[str, ...]] = {
    "$ref": (),
    "oneOf": (),
    "anyOf": (),
    "const": ("type",),
    "enum": ("type",),
    "allOf": ("type",),
}
"""What those that are read alone may stand next to."""
_TYPE_CHECKS: dict[str, Callable[[JsonObject, str], None]] = {
    "object": _check_object,
    "array": _check_array,
    "string": _check_string,
    "integer": _check_integer,
    "number": _check_number,
}
_ENFORCED = {
    "type",
    *ANNOTATIONS,
    *_WINNERS,
    *(keyword for keywords in _TYPED.values() for keyword in keywords),
}
