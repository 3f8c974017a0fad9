"""Which JSON Schemas llguidance enforces, soon and wholly.

It refuses much of what it cannot do, but passes over words that it does not know, follows
references on the stack, and builds automata as large as a `multipleOf` asks for. What it would not
enforce is refused here, by keyword and place, as for the other engine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from urllib.parse import unquote

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.engines.schema_words import ANNOTATIONS

_ENFORCED = ANNOTATIONS | {
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "multipleOf",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "type",
}
"""Not minProperties: a member that comes twice is counted twice."""
_NO_FORMAT = "unknown"
"""A format that llguidance takes, and lets everything through."""
_MAPS_OF_SCHEMAS = ("$defs", "definitions", "patternProperties", "properties")
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("additionalItems", "additionalProperties", "items")
_COMBINERS = frozenset({"$ref", "anyOf", "oneOf"})

_MAX_JSON_DEPTH = 100
"""llguidance reads 127 levels, of which our own grammars take some."""
_MAX_NODES = 20_000
_MAX_NAME_CHARS = 256
_MAX_REF_DEPTH = 400
"""Schemas one inside the other, references followed: some 500 overflow a stack of 8 MiB."""
_MAX_DIVISORS = 100_000
"""The product of all `multipleOf`: states of an automaton, of about 200 bytes each."""
_MAX_INTEGER = 2**63


def check_schema(schema: JsonValue, path: str, *, strict: bool = True) -> JsonObject:
    """Return a schema as the grammar is to have it: what invents no members of objects.

    Properties that an object does not declare are let through by JSON Schema unless it says so,
    and a model that may invent some does. They are closed where that cannot make two rules
    contradict each other; what is generated fits the schema that was given either way.

    Args:
        schema: A JSON Schema.
        path: Where it stands in the request, such as `response_format.json_schema.schema` or
            `tools[0].function.parameters`.
        strict: Refuse what is not enforced. Otherwise the grammar is to be made with `lenient`, as
            for the parameters of tools that are not strict.

    Raises:
        InvalidRequestError: It is malformed, too large, or holds what is not enforced; names
            keyword and place.
    """
    root = _schema_of(schema, path)
    _check_json(root, path)
    places: list[tuple[JsonObject, str]] = [(root, path)]
    inner: list[list[int]] = []
    for each, place in places:  # grows on the way
        if strict:
            _check_keywords(each, place, is_root=each is root)
        found = list(_subschemas(each, place))
        inner.append(list(range(len(places), len(places) + len(found))))
        places += found
    _check_divisors([each for each, _ in places], path)
    _check_references(places, inner, path)
    return root if _merges(each for each, _ in places) else _closed(root)


def malformed(path: str, reason: str) -> InvalidRequestError:
    """Return the error of a schema that cannot be made a grammar."""
    return InvalidRequestError(
        f"Invalid schema at '{path}': {reason}.", code="invalid_json_schema", param=path
    )


def _refusal(path: str, reason: str) -> InvalidRequestError:
    return malformed(path, f"{reason} by this model's grammar")


def _check_json(schema: JsonObject, path: str) -> None:
    values: list[tuple[JsonValue, int]] = [(schema, 0)]
    for count, (value, depth) in enumerate(values):  # grows on the way
        if count > _MAX_NODES:
            raise _refusal(path, f"more than {_MAX_NODES} values in a schema are not read")
        if depth > _MAX_JSON_DEPTH:
            raise _refusal(path, f"JSON nested more than {_MAX_JSON_DEPTH} deep is not read")
        if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
            raise _refusal(path, f"the integer {str(value)[:30]} is not read")
        if isinstance(value, float) and not math.isfinite(value):
            raise _refusal(path, f"the number {value} is not read")
        if isinstance(value, dict) and max(map(len, value), default=0) > _MAX_NAME_CHARS:
            raise _refusal(path, f"a name of more than {_MAX_NAME_CHARS} characters is not read")
        members = value.values() if isinstance(value, dict) else _list_of(value)
        values += [(each, depth + 1) for each in members]


def _check_keywords(schema: JsonObject, path: str, *, is_root: bool) -> None:
    for keyword in schema:
        if keyword not in _ENFORCED or (keyword == "$id" and not is_root):
            raise _refusal(path, f"keyword {keyword!r} is not enforced")
    if schema.get("format") == _NO_FORMAT:
        raise _refusal(path, f"format {_NO_FORMAT!r} is not enforced")


def _check_divisors(schemas: Sequence[JsonObject], path: str) -> None:
    divisors = set()
    for each in schemas:
        value = each.get("multipleOf")
        if isinstance(value, int | float) and value:
            divisors.add(abs(int("".join(map(str, Decimal(str(value)).normalize().as_tuple()[1])))))
    if math.prod(divisors) > _MAX_DIVISORS:
        raise _refusal(path, "so many digits of 'multipleOf' are not enforced")


def _check_references(
    places: Sequence[tuple[JsonObject, str]], inner: Sequence[Sequence[int]], path: str
) -> None:
    """Refuse references that lead nowhere, and too many of them one behind the other."""
    heights = [1] * len(places)
    for at in range(len(places) - 1, -1, -1):
        heights[at] += max((heights[each] for each in inner[at]), default=0)
    height_of = {id(each): heights[at] for at, (each, _) in enumerate(places)}
    root = places[0][0]
    targets: dict[str, int] = {"#": heights[0]}
    for schema, place in places:
        ref = schema.get("$ref")
        if ref is None or (isinstance(ref, str) and ref in targets):
            continue
        target = _target(root, ref, place)
        if id(target) not in height_of:
            raise malformed(place, f"$ref {ref!r} leads to no schema")
        targets[str(ref)] = height_of[id(target)]
    if sum(targets.values()) > _MAX_REF_DEPTH:
        raise _refusal(path, "so many schemas that refer to each other are not followed")


def _target(root: JsonObject, ref: JsonValue, path: str) -> JsonValue:
    if not (isinstance(ref, str) and ref.startswith("#/")):
        raise _refusal(path, f"only references within the schema are followed, got {ref!r}")
    target: JsonValue = root
    for part in unquote(ref[2:]).split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list):
            target = target[int(name)] if name in map(str, range(len(target))) else None
        else:
            target = _object_of(target).get(name)
    return target


def _merges(schemas: Iterator[JsonObject]) -> bool:
    """Whether an object may have to fit several schemas at once."""
    for schema in schemas:
        restricting = schema.keys() - ANNOTATIONS
        if "allOf" in schema or not restricting <= _ENFORCED:
            return True
        if _COMBINERS & restricting and len(restricting) > 1:
            return True
    return False


def _closed(root: JsonObject) -> JsonObject:
    root = copy.deepcopy(root)
    places = [(root, "")]
    for schema, place in places:  # grows on the way
        properties = _object_of(schema.get("properties"))
        says_more = {"additionalProperties", "patternProperties"} & schema.keys()
        needed = [name for name in _list_of(schema.get("required")) if isinstance(name, str)]
        if properties and not says_more and set(needed) <= properties.keys():
            schema["additionalProperties"] = False
        places += _subschemas(schema, place)
    return root


def _subschemas(schema: JsonObject, path: str) -> Iterator[tuple[JsonObject, str]]:
    """Yield the schemas that stand right in one, each with its place; not `true` and `false`."""
    found: list[tuple[JsonValue, str]] = []
    for keyword in _MAPS_OF_SCHEMAS:
        members = _object_of(schema.get(keyword))
        found += [(inner, f"{path}.{keyword}.{name}") for name, inner in members.items()]
    for keyword in _LISTS_OF_SCHEMAS:
        cases = enumerate(_list_of(schema.get(keyword)))
        found += [(inner, f"{path}.{keyword}[{index}]") for index, inner in cases]
    for keyword in _SCHEMAS:
        value = schema.get(keyword, True)
        several = value if isinstance(value, list) else [value]
        found += [(inner, f"{path}.{keyword}") for inner in several]
    for inner, place in found:
        if not isinstance(inner, bool):
            yield _schema_of(inner, place), place


def _schema_of(value: JsonValue, path: str) -> JsonObject:
    if not isinstance(value, dict):
        raise malformed(path, "a schema must be an object")
    return value


def _object_of(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list_of(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
