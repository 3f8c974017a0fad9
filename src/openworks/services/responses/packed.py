"""Text that callers carry for us and hand back: opaque to programs, and no secret.

OpenAI calls the fields that hold it `encrypted_content`. Here it is the caller's own conversation,
told to the caller in full beside it.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

_MARK: Final = b"openworks:1:"


def pack(text: str) -> str:
    """Return a text in the form that `unpack` reads."""
    return urlsafe_b64encode(_MARK + text.encode()).decode()


def unpack(packed: str) -> str | None:
    """Return the text; None if this was packed by somebody else."""
    try:
        content = urlsafe_b64decode(packed.encode())
        return content.removeprefix(_MARK).decode() if content.startswith(_MARK) else None
    except ValueError:
        return None
