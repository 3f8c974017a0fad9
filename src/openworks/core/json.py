"""The type of decoded JSON. `Any` stops at this edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    JsonValue: TypeAlias = (
        "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
    )
else:
    JsonValue = Any  # msgspec reads annotations at run time and cannot follow a recursive alias

JsonObject: TypeAlias = dict[str, JsonValue]
