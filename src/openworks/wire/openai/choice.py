"""Unions of objects: which member a value is meant to be, so that an error speaks of that one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from openworks.wire.openai.faults import Fault, InvalidType, InvalidValue, MissingParameter

Check: TypeAlias = Callable[[Any, int], None]
"""Takes a value of the right JSON type and the number of objects around it; raises `Fault`."""

_Tag: TypeAlias = str | bool | int


class Member(Protocol):
    """What a choice needs to know of one object type."""

    @property
    def names(self) -> frozenset[str]: ...

    @property
    def required(self) -> frozenset[str]: ...

    @property
    def tags(self) -> Mapping[str, tuple[_Tag, ...]]:
        """The fields that admit only the listed constants (and perhaps null)."""

    def check(self, value: dict[str, object], depth: int) -> None: ...


def choose(members: Sequence[Member], spent: frozenset[str] = frozenset()) -> Check:
    """Check a value against the member that its tag (`type`, `role`, ...) names.

    Members that one tag does not tell apart are told apart by a second one, and at last by trying
    them all. Those whose tag is optional are the choice for a value that has none.

    Args:
        members: At least one.
        spent: Tags that these members already share.
    """
    if len(members) == 1:
        return members[0].check
    field = _telling_field(members, spent)
    return _closest(members) if field is None else _by_tag(members, field, spent | {field})


def first_fit(checks: Sequence[Check]) -> Check:
    """Accept what any check accepts; otherwise report the fault that lies furthest in an array."""

    def progress(fault: Fault) -> int:
        step = fault.steps[-1] if fault.steps else -1
        return step if isinstance(step, int) else 0

    def check(value: Any, depth: int) -> None:
        faults = _try_all(checks, value, depth)
        if faults:
            raise max(faults, key=progress)

    return checks[0] if len(checks) == 1 else check


def _telling_field(members: Sequence[Member], spent: frozenset[str]) -> str | None:
    """The tag that most members have and that splits them into the smallest groups."""
    best: tuple[int, float] | None = None
    found = None
    for field in dict.fromkeys(name for member in members for name in member.tags):
        holders = [member for member in members if field in member.tags]
        group_sizes = [
            sum(value in holder.tags[field] for holder in holders)
            for value in {value for holder in holders for value in holder.tags[field]}
        ]
        mean_size = sum(group_sizes) / len(group_sizes)
        score = (len(holders), -mean_size)
        tells = field not in spent and len(holders) * 2 > len(members) and mean_size < len(holders)
        if tells and (best is None or score > best):
            best, found = score, field
    return found


def _by_tag(members: Sequence[Member], field: str, spent: frozenset[str]) -> Check:
    values = list(dict.fromkeys(value for m in members for value in m.tags.get(field, ())))
    # A member with any string under this name may be meant by every tag, known or not.
    wild = [m for m in members if field in m.names and field not in m.tags]
    untagged = [m for m in members if field not in m.required]
    # By type first: True is 1 to a dict.
    tables: dict[type[object], dict[object, Check]] = {}
    for value in values:
        group = [m for m in members if m in wild or value in m.tags.get(field, ())]
        tables.setdefault(type(value), {})[value] = choose(group, spent)
    if_absent = choose(untagged, spent) if untagged else None
    if_other = choose(wild, spent) if wild else None

    def check(value: dict[str, object], depth: int) -> None:
        tag = value.get(field)
        table = tables.get(type(tag))
        branch = table.get(tag) if table is not None else None
        if branch is None:
            branch = if_absent if tag is None else if_other
        if branch is None:
            raise _tag_fault(field, values, value).at(field)
        branch(value, depth)

    return check


def _tag_fault(field: str, values: Sequence[_Tag], value: dict[str, object]) -> Fault:
    if field not in value:
        return MissingParameter()
    tag = value[field]
    if type(tag) in {type(supported) for supported in values}:
        return InvalidValue(tag, values)
    return InvalidType(literal_nouns(values), tag)


def literal_nouns(values: Iterable[_Tag]) -> tuple[str, ...]:
    """How constants appear among the expected types: strings by value, others by their type."""
    named = {bool: "boolean", int: "integer"}
    return tuple(dict.fromkeys(named.get(type(value)) or f"'{value}'" for value in values))


def _closest(members: Sequence[Member]) -> Check:
    """Try each member; the fault reported is that of the member which the value resembles most."""
    checks = [member.check for member in members]

    def check(value: dict[str, object], depth: int) -> None:
        faults = _try_all(checks, value, depth)
        if not faults:
            return

        def likeness(index: int) -> tuple[int, int]:
            known = len(members[index].names & value.keys())
            missing = len(members[index].required - value.keys())
            return known - missing, len(faults[index].steps)

        raise faults[max(range(len(members)), key=likeness)]

    return check


def _try_all(checks: Sequence[Check], value: Any, depth: int) -> list[Fault]:
    """The fault of each check, or nothing as soon as one passes."""
    faults = []
    for check in checks:
        try:
            check(value, depth)
        except Fault as fault:
            faults.append(fault)
        else:
            return []
    return faults
