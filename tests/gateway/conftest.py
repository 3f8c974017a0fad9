"""A stand-in provider and the server in front of it for each module, an account for each test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.gateway.gateway_server import GatewayServer, Place
from tests.gateway.stand_in import StandIn, answer_as_provider, stand_in_on_thread

_numbers = count(1)


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    """Every provider of `gateway_server`."""
    with stand_in_on_thread(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def gateway_server(
    provider: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """A guarded server whose providers are the stand-in; breakers of other modules are not its."""
    server = GatewayServer(provider, tmp_path_factory.mktemp("gateway"))
    yield server
    server.stop()


@pytest.fixture
def place(gateway_server: GatewayServer) -> Place:
    """An account of the test's own; the provider remembers nothing of other tests."""
    gateway_server.provider.clear()
    gateway_server.provider.script(answer_as_provider)
    return Place(gateway_server, f"account-{next(_numbers)}")
