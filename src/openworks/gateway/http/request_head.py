"""Turns a request into bytes, and refuses whatever a server could read as two requests."""

from __future__ import annotations

import re

from openworks.ports.upstream import Origin, UpstreamError, UpstreamRequest

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")

_OURS = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that frame the message or belong to one connection: the transport's alone."""

_BODILESS_METHODS = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS"})
"""Methods whose empty body needs no length."""

_MAX_KNOWN_NAMES = 1024


def refuse(message: str) -> UpstreamError:
    """Nothing was sent: the request itself is at fault."""
    return UpstreamError(message, kind="protocol", unread=True)


def host_header(origin: Origin) -> bytes:
    """Return the value of `Host`, without the port that the scheme implies.

    Raises:
        UpstreamError: The host or the port cannot be one.
    """
    if not _HOST.fullmatch(origin.host):
        raise refuse(f"{origin.host!r} is not a host name.")
    if not 0 < origin.port < 65536:
        raise refuse(f"The port of '{origin.host}' must be 1..65535, got {origin.port}.")
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    default_port = 443 if origin.scheme == "https" else 80
    return (host if origin.port == default_port else f"{host}:{origin.port}").encode("ascii")


class HeadWriter:
    """Writes request heads; remembers the header names that it has checked."""

    __slots__ = ("_known_names",)

    def __init__(self) -> None:
        self._known_names: set[bytes] = set()

    def write(self, request: UpstreamRequest, host: bytes) -> bytes:
        """Return everything up to the body.

        Raises:
            UpstreamError: A part holds what would end a line, or a header is the transport's.
        """
        method, target = request.method, request.target
        if not (_TARGET.fullmatch(target) and _TOKEN.fullmatch(method)):
            raise refuse("The method or the target of the request is not allowed in HTTP.")
        lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, host)]
        known_names = self._known_names
        for header in request.headers:
            if header[0] not in known_names:
                self._check_name(header[0])
            lines.append(b": ".join(header))
        body = request.body
        if body or method not in _BODILESS_METHODS:
            lines.append(b"content-length: %d" % len(body))
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        # Every line feed must be one of ours: one per join, one after the request line, one at
        # the end. Counting is a tenth of the cost of looking at each value.
        line_feeds = len(lines) + 1
        if head.count(b"\n") != line_feeds or head.count(b"\r") != line_feeds or b"\0" in head:
            raise refuse("A header of the request holds a line break or a NUL.")
        return head

    def _check_name(self, name: bytes) -> None:
        if not _TOKEN.fullmatch(name):
            raise refuse("The name of a header of the request is not allowed in HTTP.")
        if name.lower() in _OURS:
            raise refuse(f"Header '{name.decode('ascii')}' is the transport's to write.")
        if len(self._known_names) < _MAX_KNOWN_NAMES:
            self._known_names.add(name)
