"""What a page in a browser may do."""

from __future__ import annotations

from http.client import HTTPConnection

import pytest

from tests.conftest import StartServer
from tests.server import ServerProcess


def preflight(server: ServerProcess, origin: str) -> tuple[int, str | None]:
    connection = HTTPConnection(*server.address, timeout=30)
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    connection.request("OPTIONS", "/v1/chat/completions", headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["access-control-allow-origin"]


def test_page_of_an_allowed_origin_may_call_and_another_may_not(
    start_server: StartServer,
) -> None:
    server = start_server({"server.cors_origins": ["https://app.example"]})
    assert preflight(server, "https://app.example") == (200, "https://app.example")
    status, allowed = preflight(server, "https://evil.example")
    assert status == 400
    assert allowed is None


def test_no_page_may_call_by_default(server: ServerProcess) -> None:
    status, allowed = preflight(server, "https://app.example")
    assert status == 405
    assert allowed is None


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_load_balancer_may_ask_with_head(server: ServerProcess, path: str) -> None:
    connection = HTTPConnection(*server.address, timeout=30)
    connection.request("HEAD", path)
    assert connection.getresponse().status in {200, 503}
    connection.close()
