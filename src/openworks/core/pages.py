"""Cursor pages, as OpenAI lists them: `limit`, `order`, `after`, `before`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from openworks.core.errors import InvalidRequestError

T = TypeVar("T")
Order = Literal["asc", "desc"]
MAX_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which part of a list is asked for."""

    limit: int = 20
    order: Order = "desc"
    after: str | None = None
    """The id after which the page begins; exclusive."""
    before: str | None = None
    """The id before which the page ends; exclusive."""
    most: int = MAX_LIMIT
    """The largest limit that this list admits."""

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= self.most:
            raise InvalidRequestError(
                f"limit must be 1..{self.most}, got {self.limit}.",
                code="invalid_value",
                param="limit",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One part of a list, in the order that was asked for."""

    items: Sequence[T]
    has_more: bool
