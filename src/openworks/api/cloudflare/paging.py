"""Pages by number: the SDK asks for the next one until a page is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import QueryParams

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject

DEFAULT_PER_PAGE = 20
MAX_PER_PAGE = 1000
_MAX_DIGITS = 9

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageNumber:
    """Which page is asked for."""

    page: int = 1
    per_page: int = DEFAULT_PER_PAGE

    @property
    def offset(self) -> int:
        """How many items come before it."""
        return (self.page - 1) * self.per_page

    def info(self, *, count: int, total_count: int) -> JsonObject:
        """Return the `result_info` of a page with `count` items."""
        return {
            "page": self.page,
            "per_page": self.per_page,
            "count": count,
            "total_count": total_count,
        }


def page_of(query: QueryParams) -> PageNumber:
    """Read `page` and `per_page`.

    Raises:
        InvalidRequestError: One is not a number in its range.
    """
    return PageNumber(
        page=whole_number(query, "page", default=1, most=10**_MAX_DIGITS),
        per_page=whole_number(query, "per_page", default=DEFAULT_PER_PAGE, most=MAX_PER_PAGE),
    )


def whole_number(query: QueryParams, name: str, *, default: int, most: int) -> int:
    """Read a query parameter from 1 to `most`.

    Raises:
        InvalidRequestError: It is something else.
    """
    text = query.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    if not is_number or not 1 <= int(text) <= most:
        raise InvalidRequestError(f"{name} must be 1..{most}, got {text[:80]!r}.", param=name)
    return int(text)


def flag(query: QueryParams, name: str) -> bool | None:
    """Read a query parameter that is `true` or `false`; None when it is not there.

    Raises:
        InvalidRequestError: It is something else.
    """
    text = query.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise InvalidRequestError(f"{name} must be true or false, got {text[:80]!r}.", param=name)
    return text == "true"


def cut(items: Sequence[T], page: PageNumber) -> tuple[Sequence[T], JsonObject]:
    """Return the items of a page, and its `result_info`."""
    rows = items[page.offset : page.offset + page.per_page]
    return rows, page.info(count=len(rows), total_count=len(items))
