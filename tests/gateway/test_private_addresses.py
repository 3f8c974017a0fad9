"""An account's own provider cannot lead into this network, whatever its name resolves to."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.fallback import AiohttpTransport
from openworks.gateway.http.transport import Http1Transport
from openworks.ports.upstream import Origin, Timeouts, UpstreamError, UpstreamRequest
from tests.gateway.stand_in import StandIn

NAME = "rebinding.example.com"


@pytest.fixture(autouse=True)
def rebinding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name that points at this machine."""
    look_up = socket.getaddrinfo

    def lie(host: Any, *arguments: Any, **more: Any) -> Any:
        return look_up("127.0.0.1" if host == NAME else host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lie)


def request(port: int, *, is_public: bool) -> UpstreamRequest:
    return UpstreamRequest(
        origin=Origin(scheme="http", host=NAME, port=port, is_public=is_public),
        method=b"GET",
        target=b"/v1/models",
        headers=[],
        body=b"",
    )


@pytest.mark.parametrize("kind", [Http1Transport, AiohttpTransport])
async def test_name_of_an_account_that_leads_to_this_machine_is_not_called(kind: Any) -> None:
    async with StandIn() as provider:
        transport = kind(HttpConfig())
        try:
            with pytest.raises(UpstreamError) as refused:
                await transport.send(request(provider.port, is_public=True), Timeouts())
            assert refused.value.kind == "connect"
            assert not provider.requests
        finally:
            await transport.close()


@pytest.mark.parametrize("kind", [Http1Transport, AiohttpTransport])
async def test_address_of_the_operator_may_be_anywhere(kind: Any) -> None:
    async with StandIn() as provider:
        transport = kind(HttpConfig())
        try:
            answer = await transport.send(request(provider.port, is_public=False), Timeouts())
            await answer.read()
            assert len(provider.requests) == 1
        finally:
            await transport.close()
