"""A finetune, which is Cloudflare's word for an adapter, as its owner writes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from openworks.wire.cloudflare.fields import Shape, Text

_RESERVED = "public"


def _not_reserved(name: str) -> str:
    if name == _RESERVED:
        raise ValueError(f"{_RESERVED!r} is the list of those that all may use")
    return name


FinetuneName = Annotated[
    str,
    StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z"),
    AfterValidator(_not_reserved),
]
"""What follows `+` in a model's name, and stands in paths."""


class NewFinetune(Shape):
    """A finetune before its files come."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    name: FinetuneName
    description: Text | None = None
    public: bool = False
