"""Checks a request body against the `openai` package's own TypedDicts, with OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, NoneType
from typing import Any, Generic, TypeVar, cast

from typing_extensions import TypeForm

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonValue
from openworks.wire.openai.choice import choose
from openworks.wire.openai.faults import Fault, describe_type
from openworks.wire.openai.shapes import ObjectShape, ShapeCompiler

__all__ = ["RequestValidator", "describe_type"]

T = TypeVar("T")

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class RequestValidator(Generic[T]):
    """A TypedDict, or a union of them, compiled once into a check; safe to share.

    Unlike a type checker it admits `1` for a decimal, and never a boolean for a number. Fields that
    hold files admit anything: whoever parsed the upload has looked at them.
    """

    def __init__(
        self,
        shape: TypeForm[T],
        *,
        extra_fields: Mapping[str, Any] = _NOTHING,
        extra_fields_of: Mapping[Any, Mapping[str, Any]] = _NOTHING,
        keep_nulls: bool = False,
    ) -> None:
        """Compile the check.

        Args:
            shape: A TypedDict, or a union such as `CompletionCreateParams`.
            extra_fields: The server's own optional fields at the top level, by name, with their
                annotations; they win over fields of the same name in `shape`.
            extra_fields_of: The same for nested TypedDicts, by class.
            keep_nulls: Leave null where the type allows it, for updates in which null clears a
                field.

        Raises:
            TypeError: `shape` holds something that has no counterpart in JSON.
        """
        members = ShapeCompiler(extra_fields_of).members(shape, extra_fields)
        self._check = choose(members)
        self._absent_if_null = frozenset(
            name
            for name in frozenset[str]().union(*(member.names for member in members))
            if not all(name in member.required for member in members)
            and not (keep_nulls and _any_takes_null(members, name))
        )

    def check(self, body: JsonValue) -> T:
        """Return the body itself, or a shallow copy without those nulls that mean "absent".

        Raises:
            InvalidRequestError: With the code and the path of the first thing that is wrong.
        """
        if not isinstance(body, dict):
            raise InvalidRequestError(
                f"The request body must be a JSON object, got {describe_type(body)}.",
                code="invalid_type",
            )
        if None in body.values():
            dropped = self._absent_if_null
            body = {k: v for k, v in body.items() if v is not None or k not in dropped}
        try:
            self._check(body, 0)
        except Fault as fault:
            raise fault.error() from None
        return cast("T", body)


def _any_takes_null(members: list[ObjectShape], name: str) -> bool:
    return any(NoneType in m.fields[name].plain for m in members if name in m.fields)
