"""A dataset as its owner writes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from openworks.wire.cloudflare.fields import Shape
from openworks.wire.cloudflare.logs import Condition


class DatasetShape(Shape):
    """Conditions that choose logs of a gateway, also those that are still to come."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    enable: bool
    filters: Annotated[list[Condition], Field(max_length=50)]
