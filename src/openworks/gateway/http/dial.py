"""Makes one connection: look the name up, try its addresses, shake hands."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable

from aiohappyeyeballs import start_connection

from openworks.gateway.providers.addresses import NOT_PUBLIC, is_public_address
from openworks.ports.upstream import Origin, UpstreamError

NEXT_ADDRESS_AFTER_S = 0.25
"""RFC 8305: when the first address is silent, try the next beside it."""

HANDSHAKE_WITHIN_S = 20.0
"""Whatever the caller's own patience. uvloop keeps a cancelled handshake and its buffers (more
than 256 KiB) in memory for so long, by default a minute."""


async def dial(
    loop: asyncio.AbstractEventLoop,
    origin: Origin,
    context: ssl.SSLContext | None,
    factory: Callable[[], asyncio.BaseProtocol],
) -> None:
    """Connect a protocol of `factory`; with a context, over TLS to a server of the origin's name.

    Raises:
        UpstreamError: Kind `connect` or `tls`.
    """
    host, port = origin.host, origin.port
    try:
        await _dial(loop, origin, context, factory)
    except ssl.SSLError as exc:  # also a certificate that proves another name
        reason = exc.verify_message if isinstance(exc, ssl.SSLCertVerificationError) else exc.reason
        message = f"'{host}:{port}' did not agree on TLS: {reason}."
        raise UpstreamError(message, kind="tls", unread=True) from exc
    except socket.gaierror as exc:
        message = f"No address was found for '{host}': {exc.strerror}."
        raise UpstreamError(message, kind="connect", unread=True) from exc
    except UnicodeError as exc:  # a label that is empty or too long
        message = f"'{host}' is not a host name."
        raise UpstreamError(message, kind="connect", unread=True) from exc
    except OSError as exc:
        message = f"Could not connect to '{host}:{port}': {exc.strerror or exc}."
        raise UpstreamError(message, kind="connect", unread=True) from exc


async def _dial(
    loop: asyncio.AbstractEventLoop,
    origin: Origin,
    context: ssl.SSLContext | None,
    factory: Callable[[], asyncio.BaseProtocol],
) -> None:
    host, port = origin.host, origin.port
    server_name = host if context is not None else None
    patience_s = HANDSHAKE_WITHIN_S if context is not None else None
    if not _is_address(host):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if origin.is_public:
            found = [each for each in found if is_public_address(str(each[4][0]))]
            if not found:
                raise OSError(
                    None,
                    NOT_PUBLIC,
                )
        if len(found) > 1:
            sock = await start_connection(
                found, happy_eyeballs_delay=NEXT_ADDRESS_AFTER_S, loop=loop
            )
            connected = False
            try:
                await loop.create_connection(
                    factory,
                    sock=sock,
                    ssl=context,
                    server_hostname=server_name,
                    ssl_handshake_timeout=patience_s,
                )
                connected = True
            finally:
                if not connected:
                    sock.close()
            return
        host = str(found[0][4][0])
    await loop.create_connection(
        factory,
        host,
        port,
        ssl=context,
        server_hostname=server_name,
        ssl_handshake_timeout=patience_s,
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
