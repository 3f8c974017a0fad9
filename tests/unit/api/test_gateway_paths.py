from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.api.gateway.paths import read_target
from openworks.gateway.messages import GatewayRequest


def read(target: str) -> GatewayRequest | None:
    return read_target(b"POST", target.encode("latin-1"), [(b"a", b"b")], b"body")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/gateway/v1/acme/gw", ("acme", "gw", "", "", b"")),
        ("/gateway/v1/acme/gw/", ("acme", "gw", "", "", b"")),
        ("/gateway/v1/acme/gw?a=1", ("acme", "gw", "", "", b"a=1")),
        ("/gateway/v1/acme/gw/openai", ("acme", "gw", "openai", "", b"")),
        (
            "/gateway/v1/acme/my.gw-1_/openai/v1/chat/completions",
            ("acme", "my.gw-1_", "openai", "v1/chat/completions", b""),
        ),
        (
            "/gateway/v1/acme/gw/workers-ai/@cf%2Fmeta/x?b=%20?",
            ("acme", "gw", "workers-ai", "@cf%2Fmeta/x", b"b=%20?"),
        ),
    ],
)
def test_path_is_read_and_left_as_it_was_encoded(
    target: str, expected: tuple[str, str, str, str, bytes]
) -> None:
    found = read(target)
    assert found is not None
    assert (found.account, found.gateway, found.provider, found.endpoint, found.query) == expected
    assert (found.method, found.headers, found.body) == (b"POST", [(b"a", b"b")], b"body")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/gateway/v1",
        "/gateway/v1/",
        "/gateway/v1/acme",
        "/gateway/v1/acme/",
        "/gateway/v1//gw/openai",
        "/gateway/v1/acme//openai",
        "/gateway/v1/a%2Fb/gw",
        "/gateway/v1/a b/gw",
        "/gateway/v1/" + "a" * 65 + "/gw",
        "/gateway/v1/acme/gw\n/openai",
        "/gateway/v1/\xe9/gw",
        "/gateway/v2/acme/gw",
        "//gateway/v1/acme/gw",
    ],
)
def test_other_paths_are_not_the_data_planes(target: str) -> None:
    assert read(target) is None


@given(provider=st.text(st.characters(min_codepoint=33, max_codepoint=126,
                                      exclude_characters="/?"), max_size=30))  # fmt: skip
def test_labels_for_metrics_are_a_closed_set(provider: str) -> None:
    found = read(f"/gateway/v1/acme/gw/{provider}/x")
    assert found is not None
    known = {"compat", "run", "openai", "anthropic", "workers-ai"}
    tail = found.route.removeprefix("/gateway/v1/{account}/{gateway}")
    assert tail == "" or tail[1:] in known
    assert found.provider == provider


@pytest.mark.parametrize(
    ("provider", "label"),
    [("groq", "/groq"), ("custom-mine", "/custom"), ("nobody", ""), ("compat", "/compat")],
)
def test_routes_label_is_of_a_closed_set(provider: str, label: str) -> None:
    found = read(f"/gateway/v1/acme/gw/{provider}/chat/completions")
    assert found is not None
    assert found.route == "/gateway/v1/{account}/{gateway}" + label
