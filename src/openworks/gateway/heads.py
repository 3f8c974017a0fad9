"""The headers of requests, read once: a client sends the same ones again and again."""

from __future__ import annotations

from typing import Final

from openworks.gateway.caching.keys import told_by
from openworks.gateway.options import split_headers
from openworks.gateway.secrets import take_our_secret
from openworks.ports.upstream import Headers

_MAX_HEADERS: Final = 40
"""Of a head that is remembered; SDKs send less than twenty."""
_MAX_BYTES: Final = 4096


class Head:
    """What the headers of a request say. Shared by requests, so nobody may change it."""

    __slots__ = ("_told", "brought", "forward", "options", "secret")

    def __init__(self, headers: Headers, token: bytes | None) -> None:
        """Read headers.

        Args:
            headers: With names in lower case.
            token: The server's access token, if it has one.

        Raises:
            InvalidRequestError: An option has no sense.
        """
        options, forward = split_headers(headers)
        secret, brought = take_our_secret(options.authorization, forward, token)
        if secret is not None:  # so that steps can leave it out
            options.authorization = secret.encode("latin-1")
        self.options = options
        self.forward = forward
        """What a provider may see."""
        self.secret = secret
        """Who asks, as they showed it to us."""
        self.brought = brought
        """Whether they brought a credential of the provider's."""
        self._told: bytes | None = None

    @property
    def told(self) -> bytes:
        """What of `forward` can change an answer, for the keys of the cache."""
        if self._told is None:
            self._told = told_by(self.forward)
        return self._told


class Heads:
    """Reads heads, and remembers `limit` of them; the oldest goes first."""

    def __init__(self, *, limit: int = 1024) -> None:
        self._limit = limit
        self._known: dict[tuple[tuple[bytes, bytes], ...], Head] = {}

    def read(self, headers: Headers, token: bytes | None) -> Head:
        """Return what headers say, as `Head` does; `token` is the same in every call."""
        # The length is the only one that differs from call to call, and nobody looks at it.
        key = tuple([header for header in headers if header[0] != b"content-length"])
        head = self._known.get(key)
        if head is None:
            head = Head(headers, token)
            self._remember(key, head)
        return head

    def _remember(self, key: tuple[tuple[bytes, bytes], ...], head: Head) -> None:
        if len(key) > _MAX_HEADERS or sum(len(k) + len(v) for k, v in key) > _MAX_BYTES:
            return
        if len(self._known) >= self._limit:
            del self._known[next(iter(self._known))]
        self._known[key] = head
