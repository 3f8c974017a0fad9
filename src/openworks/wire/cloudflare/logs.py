"""What an owner may change of a log, and conditions as they stand in bodies."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from openworks.wire.cloudflare.fields import Shape

_Word = Annotated[str, StringConstraints(max_length=1024)]


class LogUpdate(Shape):
    """Marks on a log; what is left out or null stays as it is."""

    feedback: Annotated[float, Field(ge=-1, le=1, multiple_of=1)] | None = None
    score: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    metadata: Annotated[dict[_Word, _Word | bool | int | float], Field(max_length=5)] | None = None


class Condition(Shape):
    """One condition on logs."""

    key: Annotated[str, StringConstraints(max_length=64)]
    operator: Annotated[str, StringConstraints(max_length=16)]
    value: list[Any]
