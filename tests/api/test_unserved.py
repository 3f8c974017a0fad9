"""Every endpoint of the SDK that is not served here says so, by name, and never in HTML."""

from __future__ import annotations

import re

import pytest

from openworks.api.routes import ROUTES
from tests.api.raw import ask
from tests.server import ServerProcess
from tools.openai_endpoints import openai_endpoints

SERVED = {(spec.method, re.sub(r"\{[^}]*\}", "{}", spec.path)) for spec in ROUTES}
ENDPOINTS = sorted(set(openai_endpoints()))
UNSERVED = [
    (method, path)
    for method, path in ENDPOINTS
    if (method, "/v1" + re.sub(r"\{[^}]*\}", "{}", path)) not in SERVED
]


def test_the_sdk_has_many_endpoints() -> None:
    assert len(ENDPOINTS) > 150
    assert len(UNSERVED) < len(ENDPOINTS)


@pytest.mark.parametrize("noun", sorted({path.split("/")[1] for _, path in UNSERVED}))
def test_every_unserved_endpoint_is_refused_by_name(server: ServerProcess, noun: str) -> None:
    for method, path in UNSERVED:
        if path.split("/")[1] != noun:
            continue
        filled = "/v1" + re.sub(r"\{[^}]*\}", "x_1", path)

        reply = ask(server, method, filled, {} if method == "POST" else None)

        error = reply.error()
        assert (reply.status, error["code"]) in {
            (501, "endpoint_not_implemented"),
            (405, "method_not_allowed"),
        }
        assert filled in error["message"]
