"""What of the official client's AI Gateway is served."""

from __future__ import annotations

import inspect
import re

from cloudflare.resources.ai_gateway import (
    ai_gateway,
    custom_providers,
    datasets,
    dynamic_routing,
    evaluation_types,
    evaluations,
    logs,
    provider_configs,
    urls,
)

from openworks.api.routes import ROUTES

MODULES = (
    ai_gateway,
    custom_providers,
    datasets,
    dynamic_routing,
    evaluation_types,
    evaluations,
    logs,
    provider_configs,
    urls,
)
CALL = re.compile(
    r"self\._(get|post|put|patch|delete|get_api_list)\(\s*path_template\(\s*\"([^\"]+)\"", re.DOTALL
)


def blank(path: str) -> str:
    """Return a path in which no parameter has a name."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_every_call_of_the_client_has_a_route() -> None:
    called = {
        ("GET" if method == "get_api_list" else method.upper(), f"/client/v4{blank(path)}")
        for module in MODULES
        for method, path in CALL.findall(inspect.getsource(module))
    }
    served = {(spec.method, blank(spec.path)) for spec in ROUTES}

    assert len(called) == 38
    assert not called - served
