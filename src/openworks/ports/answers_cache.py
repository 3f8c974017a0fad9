"""Answers that may be given again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from openworks.ports.calls import Usage
from openworks.ports.upstream import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAnswer:
    """A provider's whole answer; a stream's is all of its bytes."""

    status: int
    headers: Headers
    body: bytes
    stream: bool
    usage: Usage
    cost_usd: float
    """What it cost when it was made, which a hit saves."""
    provider: str
    model: str
    stored_at_s: float

    @property
    def size_bytes(self) -> int:
        """What keeping it takes, roughly."""
        return len(self.body) + sum(len(k) + len(v) + 120 for k, v in self.headers) + 600


class AnswerCache(Protocol):
    """Keeps answers for a while. Keys are digests that hold account, gateway and credential."""

    def get(self, key: bytes) -> CachedAnswer | None:
        """Return an answer that is in this process's memory and has not expired."""
        ...

    async def fetch(self, key: bytes) -> CachedAnswer | None:
        """As `get`, asking what is shared with other processes too; None also when that fails."""
        ...

    def put(self, key: bytes, answer: CachedAnswer, *, ttl_s: float) -> None:
        """Keep an answer, evicting the least recently used; one over the limit is not kept."""
        ...
