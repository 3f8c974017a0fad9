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


def ask(server: ServerProcess, **headers: str) -> tuple[int, str]:
    connection = HTTPConnection(*server.address, timeout=30)
    connection.request("GET", "/v1/models", headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_page_of_another_site_may_not_call_an_open_server(server: ServerProcess) -> None:
    assert preflight(server, "https://app.example") == (403, None)
    status, body = ask(server, Origin="https://app.example")
    assert status == 403
    assert "origin_not_allowed" in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "app.localhost"])
def test_names_of_this_machine_reach_an_open_server(server: ServerProcess, host: str) -> None:
    address = f"{host}:{server.address[1]}"
    assert ask(server, Host=address)[0] == 200
    assert ask(server, Host=address, Origin=f"http://{address}")[0] == 200


def test_name_that_somebody_else_points_at_this_machine_does_not(server: ServerProcess) -> None:
    status, body = ask(server, Host="rebound.example:8080")
    assert status == 403
    assert "host_not_allowed" in body


def test_listed_host_reaches_an_open_server(start_server: StartServer) -> None:
    server = start_server({"server.allowed_hosts": ["box.lan"]})
    assert ask(server, Host="box.lan")[0] == 200


def test_key_is_guard_enough_whatever_the_name(start_server: StartServer) -> None:
    server = start_server({"access.token": "open-sesame"})
    headers = {"Host": "public.example", "Authorization": "Bearer open-sesame"}
    assert ask(server, **headers)[0] == 200
    assert ask(server, Host="public.example")[0] == 401


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_load_balancer_may_ask_with_head(server: ServerProcess, path: str) -> None:
    connection = HTTPConnection(*server.address, timeout=30)
    connection.request("HEAD", path)
    assert connection.getresponse().status in {200, 503}
    connection.close()
