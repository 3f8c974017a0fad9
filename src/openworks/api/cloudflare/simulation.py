"""`…/routes/{id}/simulate`: which way a call would take through a dynamic route."""

from __future__ import annotations

import random

from openworks.api.answers import Answer
from openworks.api.cloudflare.frame import actor_of, body_of, gateway_id_of, ok, path_value
from openworks.api.context import Context
from openworks.gateway.routing.context import RouteContext
from openworks.gateway.routing.parse import parse_graph
from openworks.gateway.routing.walk import simulate as walk
from openworks.wire.cloudflare.fields import checked
from openworks.wire.cloudflare.nouns import SimulatedCall


async def simulate(context: Context) -> Answer:
    """Say which way a made-up call would take; no model is asked, and nothing is counted."""
    actor = await actor_of(context)
    given = checked(SimulatedCall, body_of(context))
    route_id = path_value(context, "route_id")
    elements = await context.services.dynamic_routes.elements(
        actor, gateway_id_of(context), route_id, given.version_id
    )
    result = walk(
        parse_graph(elements),
        RouteContext(
            metadata=given.metadata,
            headers={name.lower(): value for name, value in given.headers.items()},
            body=given.body,
            session_id=given.session_id,
        ),
        rng=random.Random(given.seed),
        salt=route_id,
        passes=lambda step: step.element.id not in given.limited,
        answers=lambda step: step.element.id not in given.failing,
    )
    return ok(
        {
            "visits": [
                {
                    "element_id": visit.element_id,
                    "type": visit.type,
                    "output": visit.output,
                    "reason": visit.reason,
                }
                for visit in result.visits
            ],
            "end": {"element_id": result.end.element_id, "reason": result.end.reason},
            "provider": None if result.model is None else result.model.provider,
            "model": None if result.model is None else result.model.model,
        }
    )
