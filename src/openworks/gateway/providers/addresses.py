"""Which addresses the gateway may call: an account's provider must not reach into our network."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

from openworks.core.errors import InvalidRequestError
from openworks.ports.upstream import Origin

_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMERIC_LABEL = re.compile(r"(\d+|0x[0-9a-f]*)")
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
NOT_PUBLIC = "private addresses are not allowed (setting gateway.allow_private_providers)"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public_address(address: str) -> bool:
    """Whether an IP address is one that anybody may reach.

    A name can point anywhere and change between two look-ups, so the check that counts is this one,
    on the address that is about to be connected to.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


def parse_base_url(url: str, *, allow_private: bool = False) -> tuple[Origin, str]:
    """Take a provider's base URL apart.

    Args:
        url: `http://` or `https://`, a host, perhaps a port and a path; nothing else.
        allow_private: Accept this machine's and private networks' addresses.

    Returns:
        The origin, and the path without its last slash.

    Raises:
        InvalidRequestError: It is not such a URL, or it names a private host.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise _refused(url, "it is not a URL") from exc
    if not url.isascii() or any(ord(char) <= 32 or char == "\\" for char in url):
        raise _refused(url, "it holds characters that no URL has")
    if parts.scheme not in ("http", "https"):
        raise _refused(url, "its scheme is neither http nor https")
    if parts.username is not None or parts.password is not None:
        raise _refused("of the provider", "it holds a user name or a password")
    if parts.query or parts.fragment:
        raise _refused(url.partition("?")[0], "it has a query or a fragment")
    host = (parts.hostname or "").rstrip(".")
    _check_host(host, allow_private=allow_private)
    if "//" in parts.path or any(step in (".", "..") for step in parts.path.split("/")):
        raise _refused(url, "its path is not a plain one")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    default_port = 443 if scheme == "https" else 80
    origin = Origin(scheme=scheme, host=host, port=default_port if port is None else port)
    return origin, parts.path.rstrip("/")


def _check_host(host: str, *, allow_private: bool) -> None:
    if not host:
        raise _refused("of the provider", "it names no host")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise _refused(host, "its host is not a name") from None
        # `127.1`, `0x7f000001` and `2130706433` are addresses to some resolvers.
        if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
            raise _refused(host, "its host ends in a number and is not an IP address") from None
        is_public = host != "localhost" and not host.endswith(_PRIVATE_SUFFIXES)
    else:
        is_public = is_public_address(host)
    if not is_public and not allow_private:
        raise _refused(host, NOT_PUBLIC)


def _refused(url: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The base URL '{url[:200]}' cannot be used: {reason}.",
        code="invalid_base_url",
        param="base_url",
    )
