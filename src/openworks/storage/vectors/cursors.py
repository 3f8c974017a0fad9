"""Where a list of ids stands, as the text that its reader sends back."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace

import msgspec

from openworks.core.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCursor:
    """A place in the ids as they were after so many mutations."""

    mutations: int
    total_count: int
    expires_at_s: float
    after: str

    @classmethod
    def read(cls, text: str, now_s: float) -> ListCursor:
        """Take a cursor from a caller.

        Raises:
            InvalidRequestError: It is none of ours, or its list has expired.
        """
        try:
            cursor = msgspec.json.decode(base64.urlsafe_b64decode(text), type=cls)
        except (ValueError, binascii.Error) as error:
            raise InvalidRequestError(f"'{text}' is not a cursor.", param="cursor") from error
        if cursor.expires_at_s < now_s:
            raise InvalidRequestError(
                "The cursor has expired; begin the list again.", param="cursor"
            )
        return cursor

    def moved(self, after: str) -> ListCursor:
        """The place behind this id."""
        return replace(self, after=after)

    def text(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()
