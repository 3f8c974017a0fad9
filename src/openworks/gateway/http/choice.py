"""Which client speaks to providers."""

from __future__ import annotations

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.fallback import AiohttpTransport
from openworks.gateway.http.transport import Http1Transport
from openworks.ports.upstream import Transport


def open_transport(config: HttpConfig) -> Transport:
    """Make the one that `config` asks for; within the running loop that will use it.

    Raises:
        OSError: `ca_file` cannot be read or holds no certificate.
    """
    if config.client == "aiohttp" or config.proxy is not None:
        return AiohttpTransport(config)
    return Http1Transport(config)
