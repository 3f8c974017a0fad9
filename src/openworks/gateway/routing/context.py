"""What a walk through a route knows of the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from openworks.core.json import JsonObject
from openworks.ports.gateways import Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteContext:
    """What a walk decides by."""

    metadata: Metadata = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; without credentials, which no condition should see."""
    body: JsonObject = field(default_factory=dict)
    session_id: str | None = None
    """`cf-aig-session-id`: calls of one session take the same side of a split."""

    @property
    def sticky_key(self) -> str | None:
        """What a split sticks to: the session, or the user that the metadata name."""
        if self.session_id:
            return self.session_id
        for name in _USER_NAMES:
            value = self.metadata.get(name)
            if value is not None and value != "":
                return f"{name}={value}"
        return None


_USER_NAMES: Final = ("session_id", "sessionId", "user_id", "userId", "user")
