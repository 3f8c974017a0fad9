from __future__ import annotations

import pytest

from openworks.core.errors import InvalidRequestError
from openworks.gateway.providers.addresses import is_public_address, parse_base_url
from openworks.ports.upstream import Origin


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        (
            "https://api.example.com",
            Origin(scheme="https", host="api.example.com", port=443),
            "",
        ),
        (
            "http://API.Example.com:8080/v1/",
            Origin(scheme="http", host="api.example.com", port=8080),
            "/v1",
        ),
        ("https://1.1.1.1/x", Origin(scheme="https", host="1.1.1.1", port=443), "/x"),
    ],
)
def test_a_plain_url_is_taken_apart(url: str, origin: Origin, path: str) -> None:
    assert parse_base_url(url) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "gopher://api.example.com",
        "https://",
        "https:///path",
        "https://user:secret@api.example.com",
        "https://api.example.com@evil.example",
        "https://api.example.com?x=1",
        "https://api.example.com#x",
        "https://api.example.com/a/../b",
        "https://api.example.com//b",
        "https://api.example.com:99999",
        "https://api.example.com\r\nhost: evil",
        "https://api.exämple.com",
        "https://api example.com",
        "https://-x.example",
        "https://127.1",
        "https://2130706433",
        "https://0x7f000001",
        "https://0177.0.0.1",
        "https://[::1",
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_no_plain_url_is_never_a_provider(url: str, allow_private: bool) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_base_url(url, allow_private=allow_private)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "api.localhost",
        "db.internal",
        "printer.local",
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "[::1]",
        "[::]",
        "[fd00::1]",
        "[fe80::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)
def test_private_hosts_need_the_settings_leave(host: str) -> None:
    with pytest.raises(InvalidRequestError, match="private"):
        parse_base_url(f"http://{host}:8000/v1")
    origin, _ = parse_base_url(f"http://{host}:8000/v1", allow_private=True)
    assert origin.port == 8000


def test_an_address_is_judged_again_when_it_is_connected_to() -> None:
    assert is_public_address("8.8.8.8")
    assert is_public_address("2606:4700::1111")
    for address in ("127.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "not an address", ""):
        assert not is_public_address(address), address
