"""The way into everything below `/gateway/v1`: exchanges, and the few requests that are none."""

from __future__ import annotations

from openworks.api.context import Services
from openworks.api.gateway.models import ModelList, is_models
from openworks.api.gateway.run import RUN, Pending, begin_run
from openworks.gateway.messages import GatewayAnswer, GatewayRequest


def is_special(request: GatewayRequest) -> bool:
    """Whether a request, whose body need not have come, is more than one exchange."""
    return request.provider == RUN or (request.method == b"GET" and is_models(request))


def begin(services: Services, request: GatewayRequest) -> GatewayAnswer | Pending:
    """Return the answer, or what must be run for it; never waits, and never raises."""
    if request.provider == RUN and not request.endpoint:
        return begin_run(services, request)
    if is_models(request):
        return ModelList(services, request)
    return services.plane.begin(request)
