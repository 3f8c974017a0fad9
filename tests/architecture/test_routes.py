from __future__ import annotations

from openworks.api.openai.unserved import NOUNS
from openworks.api.routes import ROUTES
from tools.openai_endpoints import noun, openai_endpoints


def test_every_noun_of_the_sdk_is_served_or_refused_by_name() -> None:
    served = {noun(spec.path.removeprefix("/v1")) for spec in ROUTES}
    nouns = {noun(path) for _, path in openai_endpoints()}
    assert len(nouns) > 20
    assert nouns - served == NOUNS


def test_only_health_checks_are_open_to_everybody() -> None:
    assert {spec.path for spec in ROUTES if spec.scope is None} == {"/health", "/ready"}


def test_every_route_says_what_it_does() -> None:
    assert all(spec.handler.__doc__ for spec in ROUTES)
