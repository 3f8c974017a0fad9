"""Compiles the type annotations of the `openai` package into checks of decoded JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from types import NoneType, UnionType
from typing import IO, Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

from typing_extensions import ReadOnly, get_type_hints, is_typeddict

from openworks.wire.openai.choice import Check, Member, choose, first_fit, literal_nouns
from openworks.wire.openai.faults import (
    Fault,
    InvalidType,
    InvalidValue,
    MissingParameter,
    TooDeep,
    UnknownParameter,
)

MAX_DEPTH = 64
"""Objects within objects; only types that contain themselves could ever go deeper."""

_JSON_TYPES = frozenset[type[object]]({NoneType, bool, int, float, str, list, dict})
_SCALARS: dict[object, tuple[frozenset[type[object]], str | None]] = {
    str: (frozenset({str}), "string"),
    bool: (frozenset({bool}), "boolean"),
    int: (frozenset({int}), "integer"),
    float: (frozenset({int, float}), "decimal"),
    NoneType: (frozenset({NoneType}), None),
    None: (frozenset({NoneType}), None),
}
_ARRAYS = frozenset[object]({list, Sequence, Iterable})
_OBJECTS = frozenset[object]({dict, Mapping})
_UNIONS = frozenset[object]({Union, UnionType})
_QUALIFIERS = frozenset[object]({Required, NotRequired, ReadOnly})
_NOT_JSON = frozenset[object]({bytes, IO, PathLike, tuple})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a field takes: some JSON types as they are, others after a further check."""

    plain: frozenset[type[object]]
    branches: Mapping[type[object], Check]
    nouns: tuple[str, ...]
    """For messages, without articles: `string`, `array of strings`."""
    anything: bool
    """Values that are not JSON pass too, such as an upload."""

    def takes(self, value: object) -> bool:
        """Whether the value's own type is right; what it holds may yet be wrong."""
        return self.anything or type(value) in self.plain or type(value) in self.branches

    def check(self, value: object, depth: int) -> None:
        kind = type(value)
        if kind in self.plain:
            return
        branch = self.branches.get(kind)
        if branch is not None:
            branch(value, depth)
        elif not self.anything:
            raise InvalidType(self.nouns, value)


class ObjectShape:
    """One TypedDict: its fields by the names they have in JSON.

    `fields` is filled after construction, so that a type may contain itself.
    """

    def __init__(self, typed_dict: type[object], extra_fields: Mapping[str, Any]) -> None:
        hints = get_type_hints(typed_dict, include_extras=True)
        declared: frozenset[str] = typed_dict.__dict__.get("__required_keys__", frozenset())
        self.annotations: dict[str, Any] = {}
        self.fields: dict[str, Shape] = {}
        self._ordered: list[str] = []
        for name, annotation in hints.items():
            # Under `from __future__ import annotations` the class does not see its own `Required`.
            required = _qualifier(annotation)
            alias = _alias(annotation) or name
            self.annotations[alias] = annotation
            if required or (required is None and name in declared):
                self._ordered.append(alias)
        self.annotations.update(extra_fields)
        self.required = frozenset(self._ordered)
        self.names = frozenset(self.annotations)
        self.tags = {
            name: values
            for name, annotation in self.annotations.items()
            if (values := _constants(annotation))
        }

    def check(self, value: dict[str, object], depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise TooDeep(MAX_DEPTH)
        fields = self.fields
        for key, item in value.items():
            shape = fields.get(key)
            if shape is None:
                raise UnknownParameter(key, fields).at(key)
            if type(item) not in shape.plain:
                try:
                    shape.check(item, depth + 1)
                except Fault as fault:
                    fault.at(key)
                    raise
        if not self.required <= value.keys():
            raise MissingParameter().at(next(name for name in self._ordered if name not in value))


class ShapeCompiler:
    """Turns annotations into shapes; each TypedDict is compiled once."""

    def __init__(self, extra_fields_of: Mapping[Any, Mapping[str, Any]]) -> None:
        """Take the server's own fields by the (nested) TypedDict that they belong to."""
        self._extra_fields_of = extra_fields_of
        self._objects: dict[type[object], ObjectShape] = {}

    def members(self, annotation: Any, extra_fields: Mapping[str, Any]) -> list[ObjectShape]:
        """The TypedDicts of a request body, each with the server's own fields added.

        Raises:
            TypeError: The annotation is not a TypedDict or a union of them.
        """
        parts = _Parts()
        parts.add(annotation)
        if not parts.objects or parts.plain or parts.arrays or parts.mappings or parts.constants:
            raise TypeError(f"{annotation!r} is not a TypedDict or a union of them.")
        return [self._filled(ObjectShape(each, extra_fields)) for each in parts.objects]

    def shape(self, annotation: Any) -> Shape:
        """What a field with this annotation takes.

        Raises:
            TypeError: The annotation has no counterpart in JSON that we know.
        """
        parts = _Parts()
        parts.add(annotation)
        return self._assemble(parts)

    def _assemble(self, parts: _Parts) -> Shape:
        if parts.anything or parts.takes_uploads_only:
            return Shape(plain=_JSON_TYPES, branches={}, nouns=(), anything=True)
        arrays = [self.shape(each) for each in parts.arrays]
        mappings = [self.shape(each) for each in parts.mappings]
        checks: dict[type[object], Check] = {
            kind: _constant_check([value for value in parts.constants if type(value) is kind])
            for kind in {type(value) for value in parts.constants}
        }
        if arrays and not any(each.anything for each in arrays):
            checks[list] = _array_check(arrays)
        if (mappings or parts.objects) and not any(each.anything for each in mappings):
            checks[dict] = self._object_check(parts.objects, mappings)
        plain = set(parts.plain)
        if arrays and list not in checks:
            plain.add(list)
        if mappings and dict not in checks:
            plain.add(dict)
        return Shape(
            plain=frozenset(plain),
            branches={kind: check for kind, check in checks.items() if kind not in plain},
            nouns=_nouns(parts, arrays),
            anything=False,
        )

    def _object_check(self, typed_dicts: list[type[object]], mappings: list[Shape]) -> Check:
        checks = [_mapping_check(each) for each in mappings]
        members: list[Member] = [self._object(each) for each in typed_dicts]
        return first_fit([choose(members), *checks] if members else checks)

    def _object(self, typed_dict: type[object]) -> ObjectShape:
        known = self._objects.get(typed_dict)
        if known is None:
            extra_fields = self._extra_fields_of.get(typed_dict, {})
            known = self._objects[typed_dict] = ObjectShape(typed_dict, extra_fields)
            self._filled(known)
        return known

    def _filled(self, target: ObjectShape) -> ObjectShape:
        target.fields.update((name, self.shape(each)) for name, each in target.annotations.items())
        return target


@dataclass(slots=True)
class _Parts:
    """The members of an annotation, unions flattened, sorted by the JSON type they are."""

    plain: set[type[object]] = field(default_factory=set)
    constants: list[str | bool | int] = field(default_factory=list)
    arrays: list[Any] = field(default_factory=list)  # the annotations of their items
    mappings: list[Any] = field(default_factory=list)  # the annotations of their values
    objects: list[type[object]] = field(default_factory=list)  # TypedDicts
    nouns: list[str] = field(default_factory=list)  # in order; "array" stands for all arrays
    anything: bool = False
    has_upload: bool = False

    @property
    def takes_uploads_only(self) -> bool:
        """A file field, which the multipart parser has already looked at."""
        return self.has_upload and not (self.nouns or self.constants)

    def add(self, annotation: Any) -> None:
        origin = get_origin(annotation)
        if origin is Annotated or origin in _QUALIFIERS:
            self.add(get_args(annotation)[0])
        elif origin in _UNIONS:
            for member in get_args(annotation):
                self.add(member)
        elif origin is Literal:
            self._add_constants(get_args(annotation))
        elif annotation is object or annotation is Any:
            self.anything = True
        elif annotation in _SCALARS:
            kinds, noun = _SCALARS[annotation]
            self.plain |= kinds
            self.nouns.extend([noun] if noun else [])
        else:
            self._add_container(annotation, origin or annotation)

    def _add_constants(self, values: tuple[Any, ...]) -> None:
        for value in values:
            if value is None:
                self.plain.add(NoneType)
            else:
                self.constants.append(value)
                self.nouns.extend(literal_nouns([value]))
        if True in self.constants and False in self.constants:
            self.plain.add(bool)

    def _add_container(self, annotation: Any, origin: Any) -> None:
        if is_typeddict(annotation):
            self.objects.append(annotation)
            self.nouns.append("object")
        elif origin in _ARRAYS:
            self.arrays.append((get_args(annotation) or (object,))[0])
            self.nouns.append("array")
        elif origin in _OBJECTS:
            self.mappings.append((get_args(annotation) or (str, object))[1])
            self.nouns.append("object")
        elif origin in _NOT_JSON:
            self.has_upload = True
        else:
            raise TypeError(f"No check is known for the annotation {annotation!r}.")


def _qualifier(annotation: Any) -> bool | None:
    """True under `Required`, False under `NotRequired`, None where the class decides."""
    while (origin := get_origin(annotation)) is Annotated or origin in _QUALIFIERS:
        if origin is Required or origin is NotRequired:
            return origin is Required
        annotation = get_args(annotation)[0]
    return None


def _alias(annotation: Any) -> str | None:
    """The name in JSON of a field whose Python name had to differ, as `from_` for `from`."""
    while (origin := get_origin(annotation)) is Annotated or origin in _QUALIFIERS:
        for extra in getattr(annotation, "__metadata__", ()):
            alias = getattr(extra, "alias", None)
            if isinstance(alias, str):
                return alias
        annotation = get_args(annotation)[0]
    return None


def _constants(annotation: Any) -> tuple[str | bool | int, ...]:
    """The values of a field that takes constants only; empty for any other field."""
    parts = _Parts()
    parts.add(annotation)
    closed = not (parts.anything or parts.arrays or parts.objects or parts.mappings)
    return tuple(parts.constants) if closed and parts.plain <= {NoneType, bool} else ()


def _nouns(parts: _Parts, arrays: list[Shape]) -> tuple[str, ...]:
    nouns: list[str] = []
    for noun in parts.nouns:
        if noun == "array":
            nouns.extend(_array_noun(each) for each in arrays)
        elif noun == "integer" and float in parts.plain:
            continue
        elif not noun.startswith("'") or str not in parts.plain:
            nouns.append(noun)
    return tuple(dict.fromkeys(nouns))


def _array_noun(item: Shape) -> str:
    """`array of strings`; constants count as strings here."""
    words = ["string" if noun.startswith("'") else noun for noun in item.nouns]
    plurals = [
        f"arrays{word.removeprefix('array')}" if word.startswith("array") else f"{word}s"
        for word in dict.fromkeys(words)
    ]
    return f"array of {' or '.join(plurals)}" if plurals else "array"


def _constant_check(supported: Sequence[str | bool | int]) -> Check:
    allowed = frozenset(supported)

    def check(value: object, depth: int) -> None:
        if value not in allowed:
            raise InvalidValue(value, dict.fromkeys(supported))

    return check


def _array_check(items: list[Shape]) -> Check:
    """One array type, or several that the first element tells apart."""
    checks = [_uniform_array_check(item) for item in items]
    if len(checks) == 1:
        return checks[0]
    nouns = tuple(dict.fromkeys(noun for item in items for noun in item.nouns))

    def check(value: list[object], depth: int) -> None:
        if not value:
            return
        fitting = [check for item, check in zip(items, checks, strict=True) if item.takes(value[0])]
        if not fitting:
            raise InvalidType(nouns, value[0]).at(0)
        first_fit(fitting)(value, depth)

    return check


def _uniform_array_check(item: Shape) -> Check:
    plain, check_item = item.plain, item.check

    def check(value: list[object], depth: int) -> None:
        if plain and plain.issuperset(map(type, value)):
            return
        for index, element in enumerate(value):
            try:
                check_item(element, depth)
            except Fault as fault:
                fault.at(index)
                raise

    return check


def _mapping_check(item: Shape) -> Check:
    plain, check_item = item.plain, item.check

    def check(value: dict[str, object], depth: int) -> None:
        if plain and plain.issuperset(map(type, value.values())):
            return
        for key, element in value.items():
            try:
                check_item(element, depth)
            except Fault as fault:
                fault.at(key)
                raise

    return check
