"""Marks test files whose every test runs over each engine that chats."""

from __future__ import annotations

import pytest

EACH_ENGINE = pytest.mark.parametrize(
    "engine", ["llamacpp", "batched"], indirect=True, scope="session"
)
"""For `pytestmark`: one contract, whichever engine answers."""
