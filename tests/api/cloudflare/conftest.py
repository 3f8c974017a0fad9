"""Servers for the official `cloudflare` client, with the sample that all tests begin from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cloudflare import Cloudflare

from tests.server import ServerProcess

CloudflareFor = Callable[..., Cloudflare]

REQUIRED: dict[str, Any] = {
    "cache_ttl": 0,
    "cache_invalidate_on_update": False,
    "collect_logs": True,
    "rate_limiting_interval": 0,
    "rate_limiting_limit": 0,
}
"""What the SDK wants of every gateway."""


@pytest.fixture(scope="module")
def control_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """An open server without models."""
    process = ServerProcess({}, tmp_path_factory.mktemp("control"))
    yield process
    assert process.stop() == 0


@pytest.fixture
def cloudflare_for() -> Iterator[CloudflareFor]:
    """Make clients that never ask twice."""
    opened: list[Cloudflare] = []

    def make(server: ServerProcess, *, token: str = "none") -> Cloudflare:
        client = Cloudflare(
            base_url=f"{server.url}/client/v4", api_token=token, max_retries=0, timeout=60.0
        )
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def cloudflare(control_server: ServerProcess, cloudflare_for: CloudflareFor) -> Cloudflare:
    return cloudflare_for(control_server)


@pytest.fixture
def account(request: pytest.FixtureRequest) -> str:
    """An account of the test's own: on an open server every name is one."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", request.node.name)[-64:]


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an access token, `token-of-the-owner`."""
    flags = {"access.token": "token-of-the-owner"}
    process = ServerProcess(flags, tmp_path_factory.mktemp("guarded"))
    yield process
    assert process.stop() == 0
