"""Which unions of JSON Schemas llama.cpp's grammar enforces."""

from __future__ import annotations

from itertools import combinations

from openworks.core.json import JsonObject, JsonValue
from openworks.engines.llamacpp.schema_reading import (
    kind_of,
    list_of,
    object_of,
    refusal,
    resolve,
    types_of,
)

_READ_ALONE = frozenset({"$ref", "oneOf", "anyOf", "const", "enum", "allOf"})


def check_one_of(root: JsonObject, schema: JsonObject, path: str) -> None:
    """Refuse cases of which two may hold at once: llama.cpp reads `oneOf` as `anyOf`."""
    cases = [_resolved(root, each, path) for each in list_of(schema["oneOf"])]
    if not all(_are_apart(root, a, b, path) for a, b in combinations(cases, 2)):
        raise refusal(path, "'oneOf' whose cases may overlap is not enforced")


def check_all_of(root: JsonObject, schema: JsonObject, path: str) -> None:
    """Refuse what llama.cpp does not merge: it does so with properties, and with lone enums."""
    parts = [_resolved(root, each, path) for each in list_of(schema["allOf"])]
    if len(parts) == 1 and "enum" in parts[0] and "type" not in schema:
        return
    names: set[str] = set()
    for part in parts:
        properties = object_of(part.get("properties"))
        is_object = types_of(part) in ([], ["object"]) and properties
        closed = len(parts) > 1 and part.get("additionalProperties", True) is not True
        if not is_object or closed or _READ_ALONE & set(part) or names & set(properties):
            raise refusal(
                path, "'allOf' of other than open objects of different properties is not enforced"
            )
        names |= set(properties)
    if types_of(schema) not in ([], ["object"]):
        raise refusal(path, "'type' is not enforced next to 'allOf'")


def _are_apart(root: JsonObject, a: JsonObject, b: JsonObject, path: str) -> bool:
    """Whether it is plain that no value fits both."""
    if values_of(a) and values_of(b):
        return not any(_are_same(x, y) for x in values_of(a) for y in values_of(b))
    if (kinds := _kinds(a)) and (others := _kinds(b)) and not kinds & others:
        return True
    shared = set(map(str, list_of(a.get("required")))) & set(map(str, list_of(b.get("required"))))
    if _kinds(a) != {"object"} or _kinds(b) != {"object"}:
        return False
    pairs = [
        [values_of(_resolved(root, object_of(each["properties"])[name], path)) for each in (a, b)]
        for name in shared
        if all(name in object_of(each.get("properties")) for each in (a, b))
    ]
    return any(xs and ys and not any(_are_same(x, y) for x in xs for y in ys) for xs, ys in pairs)


def values_of(schema: JsonObject) -> list[JsonValue]:
    """Return all values that fit, or an empty list when they are not listed."""
    return [schema["const"]] if "const" in schema else list_of(schema.get("enum"))


def _kinds(schema: JsonObject) -> set[str]:
    named = {kind_of(value) for value in values_of(schema)} or set(map(str, types_of(schema)))
    return {"number" if kind == "integer" else kind for kind in named}


def _are_same(a: JsonValue, b: JsonValue) -> bool:
    return kind_of(a) == kind_of(b) and a == b


def _resolved(root: JsonObject, schema: JsonValue, path: str) -> JsonObject:
    found = object_of(schema)
    while "$ref" in found:
        found = resolve(root, found, path)
    return found
