"""Whom to trust among providers."""

from __future__ import annotations

import ssl

from openworks.gateway.http.config import HttpConfig


def client_context(config: HttpConfig) -> ssl.SSLContext:
    """Verify names and chains, unless told otherwise, and offer HTTP/1.1 alone.

    Raises:
        OSError: `ca_file` cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    if config.ca_file is not None:
        context.load_verify_locations(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
