"""What llama.cpp can turn into a grammar at all, and soon: well-formed schemas of bounded size.

It converts and parses a grammar before a request can be cancelled, for the parameters of every tool
too, so that a hostile schema would hold up everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from openworks.core.json import JsonObject, JsonValue
from openworks.engines.llamacpp.schema_patterns import MAX_REPETITIONS, count_atoms
from openworks.engines.llamacpp.schema_reading import (
    TYPES,
    check_shape,
    integer_bounds,
    kind_of,
    list_of,
    malformed,
    number,
    object_of,
    refusal,
    resolve,
    schema_of,
    subschemas,
    types_of,
)

_MAX_DEPTH = 32
"""How deep schemas may be nested in each other."""
_MAX_JSON_DEPTH = 100
_MAX_NODES = 20_000
"""Schemas, keywords and values, in all schemas of a request."""
_MAX_SIZE = 100_000
"""Repetitions and characters of values, in all: each takes up to some hundred bytes of grammar."""
_MAX_NAME_CHARS = 256
"""Of a property or a reference: llama.cpp's regular expressions overflow the stack on long ones."""
_MAX_REFS = 500
"""Different references of a request: llama.cpp follows them on the stack."""
_MAX_ENUM = 1_000
"""Values of all enums of a request: each is tried for each token."""
_MAX_PROPERTIES = 500
_MAX_OPTIONAL = 200
"""Optional properties of an object: the work grows with their third power."""
_MAX_ALIVE = 2_000
"""Ways to go on that a grammar may have to keep in mind at once."""
_MAX_HOPS = 12
"""How often references are followed to count the ways to go on."""
_MAX_INTEGER = 2**63


@dataclass(slots=True)
class Limits:
    """What the schemas of one request take together."""

    nodes: int = 0
    size: int = 0
    enum_values: int = 0
    refs: set[str] = field(default_factory=set)
    _root: JsonObject = field(default_factory=dict)
    _alive: dict[tuple[int, int], int] = field(default_factory=dict)
    _begun: dict[int, set[str]] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)
    _settled: set[int] = field(default_factory=set)

    def check(self, schema: JsonValue, path: str) -> JsonObject:
        """Count `schema` in, and return it.

        Raises:
            InvalidRequestError: It is malformed, or too large for a grammar.
        """
        self._check_json(schema, path)
        self._root = schema_of(schema, path)
        for memory in (self._alive, self._begun, self._settled):
            memory.clear()
        places = [(self._root, path, 0)]
        for each, place, depth in places:  # grows on the way
            if depth > _MAX_DEPTH:
                raise refusal(place, f"a schema nested more than {_MAX_DEPTH} deep is not read")
            self._check_one(each, place)
            places += [
                (schema_of(inner, at), at, depth + 1) for inner, at in subschemas(each, place)
            ]
        self._known = {id(each) for each, _, _ in places}
        for each, place, _ in places:
            self._settle(each, place, 0)
        if self._count_alive(self._root, path, 0) > _MAX_ALIVE:
            raise refusal(path, "so many alternatives that begin alike cannot be kept apart")
        return self._root

    def _check_json(self, schema: JsonValue, path: str) -> None:
        values = [(schema, 0)]
        while values:
            value, depth = values.pop()
            self.nodes += 1
            if depth > _MAX_JSON_DEPTH:
                raise refusal(path, f"JSON nested more than {_MAX_JSON_DEPTH} deep is not read")
            if self.nodes > _MAX_NODES:
                raise refusal(path, f"more than {_MAX_NODES} values in schemas are not read")
            if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
                raise refusal(path, f"the integer {str(value)[:30]} is not read")
            if isinstance(value, dict) and max(map(len, value), default=0) > _MAX_NAME_CHARS:
                raise refusal(path, f"a name of more than {_MAX_NAME_CHARS} characters is not read")
            inner = value.values() if isinstance(value, dict) else list_of(value)
            values += [(each, depth + 1) for each in inner]

    def _check_one(self, schema: JsonObject, path: str) -> None:
        check_shape(schema, path)
        if len(types_of(schema)) > 1 and "allOf" in schema:
            raise refusal(path, "'allOf' next to a list of types is not read")
        _check_bounds(schema, path)
        for lower, upper in (("minItems", "maxItems"), ("minLength", "maxLength")):
            self.size += _count(schema.get(lower)) + _count(schema.get(upper))
        if isinstance(pattern := schema.get("pattern"), str):
            self.size += count_atoms(pattern, path)
        self.size += sum(
            len(str(schema[keyword])) for keyword in ("const", "enum") if keyword in schema
        )
        self.size += _optional(schema) ** 3 // 1000
        self.enum_values += len(list_of(schema.get("enum")))
        self._check_counts(schema, path)

    def _check_counts(self, schema: JsonObject, path: str) -> None:
        if self.size > _MAX_SIZE:
            raise refusal(
                path, f"more than {_MAX_SIZE} repetitions and characters in all are not enforced"
            )
        ref = str(schema.get("$ref", ""))
        self.refs.add(ref)
        if len(self.refs) > _MAX_REFS:
            raise refusal(path, f"more than {_MAX_REFS} different references are not followed")
        if len(ref) > _MAX_NAME_CHARS:
            raise refusal(path, f"a $ref of more than {_MAX_NAME_CHARS} characters is not read")
        if self.enum_values > _MAX_ENUM:
            raise refusal(path, f"more than {_MAX_ENUM} enum values in all are not enforced")
        if len(object_of(schema.get("properties"))) > _MAX_PROPERTIES:
            raise refusal(path, f"more than {_MAX_PROPERTIES} properties are not enforced")
        if _optional(schema) > _MAX_OPTIONAL:
            raise refusal(path, f"more than {_MAX_OPTIONAL} optional properties are not enforced")

    def _settle(self, schema: JsonObject, path: str, depth: int) -> None:
        """Refuse what leads to itself before any character of an answer."""
        if id(schema) in self._settled:
            return
        if depth > _MAX_DEPTH:
            raise refusal(path, "a $ref that leads back to itself, or on and on, is not followed")
        for inner, place in self._same_place(schema, path):
            self._settle(inner, place, depth + 1)
        self._settled.add(id(schema))

    def _same_place(self, schema: JsonObject, path: str) -> Iterator[tuple[JsonObject, str]]:
        """Yield the schemas that stand for `schema` in an answer."""
        if "$ref" in schema:
            target = resolve(self._root, schema, path)
            if id(target) not in self._known:
                raise malformed(path, f"$ref {schema['$ref']!r} leads to no schema")
            yield target, path
            return
        for keyword in ("oneOf", "anyOf", "allOf"):
            for index, inner in enumerate(list_of(schema.get(keyword))):
                yield schema_of(inner, path), f"{path}.{keyword}[{index}]"

    def _count_alive(self, schema: JsonObject, path: str, hops: int) -> int:
        """Count the ways that an answer which fits `schema` may have gone."""
        if hops > _MAX_HOPS:
            return 1
        if (known := self._alive.get((id(schema), hops))) is not None:
            return known
        if "$ref" in schema:
            target = resolve(self._root, schema, path)
            count = self._count_alive(target, path, hops + 1)
        elif "oneOf" in schema or "anyOf" in schema:
            by_start: dict[str, int] = {}
            for inner, place in self._same_place(schema, path):
                ways = self._count_alive(inner, place, hops)
                for start in self._starts(inner, place):
                    by_start[start] = by_start.get(start, 0) + ways
            count = max(by_start.values())
        else:
            count = _own_ways(schema, path)
            for part, place in subschemas(schema, path):
                if not place.startswith((f"{path}.$defs.", f"{path}.definitions.")):
                    count = max(count, self._count_alive(schema_of(part, place), place, hops))
        self._alive[id(schema), hops] = count
        return count

    def _starts(self, schema: JsonObject, path: str) -> set[str]:
        """Return the kinds of value with which an answer may begin."""
        if (known := self._begun.get(id(schema))) is not None:
            return known
        if {"$ref", "oneOf", "anyOf"} & set(schema):
            inner = self._same_place(schema, path)
            kinds = {start for each, place in inner for start in self._starts(each, place)}
        else:
            values = [schema["const"]] if "const" in schema else list_of(schema.get("enum"))
            kinds = {kind_of(value) for value in values} or {str(each) for each in types_of(schema)}
            kinds = {"number" if kind == "integer" else kind for kind in kinds} or set(TYPES)
        self._begun[id(schema)] = kinds
        return kinds


def _own_ways(schema: JsonObject, path: str) -> int:
    pattern = schema.get("pattern")
    in_pattern = count_atoms(pattern, path) if isinstance(pattern, str) else 1
    return max(in_pattern, len(list_of(schema.get("enum"))), _optional(schema))


def _check_bounds(schema: JsonObject, path: str) -> None:
    """Refuse bounds between which nothing lies, and those that llama.cpp cannot write down."""
    for lower, upper in (("minItems", "maxItems"), ("minLength", "maxLength")):
        least, most = number(schema.get(lower)), number(schema.get(upper))
        if least is not None and least > MAX_REPETITIONS:
            raise refusal(path, f"{lower!r} {least} beyond {MAX_REPETITIONS} is not enforced")
        if least is not None and most is not None and least > most:
            raise malformed(path, f"{lower!r} {least} is more than {upper!r} {most}")
    least, most = integer_bounds(schema)
    if least is not None and most is not None and least > most:
        raise malformed(path, "no number lies between its bounds")
    if "integer" in types_of(schema):
        far = [bound for bound in (least, most) if bound is not None and abs(bound) >= 10**18]
        above = most is None and least is not None and least >= 10**15
        below = least is None and most is not None and most <= -(10**15)
        if far or above or below:
            raise refusal(path, "an integer bound of so many digits is not enforced")


def _count(value: JsonValue) -> int:
    return value if isinstance(value, int) and value <= MAX_REPETITIONS else 0


def _optional(schema: JsonObject) -> int:
    names = set(object_of(schema.get("properties")))
    return len(names - set(map(str, list_of(schema.get("required")))))
