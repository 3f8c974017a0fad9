"""Identifiers: OpenAI's prefixes before enough randomness never to collide."""

from __future__ import annotations

import secrets
import string
from typing import NewType, Protocol

AccountId = NewType("AccountId", str)
KeyId = NewType("KeyId", str)
RequestId = NewType("RequestId", str)

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 24  # 62**24 ≈ 2**143


class NewId(Protocol):
    """Make an id with a prefix such as `chatcmpl-`; an argument, so that tests can count."""

    def __call__(self, prefix: str) -> str:
        """Return `prefix` followed by a fresh random part."""
        ...


def new_id(prefix: str) -> str:
    """Return `prefix` and 24 random letters and digits, from the operating system's generator."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
