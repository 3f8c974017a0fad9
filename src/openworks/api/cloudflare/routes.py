"""`/ai-gateway/gateways/{id}/routes`: dynamic routes, their versions and deployments."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from openworks.api.answers import Answer, Json
from openworks.api.cloudflare.frame import actor_of, body_of, gateway_id_of, ok, path_value
from openworks.api.cloudflare.paging import PageNumber, cut, page_of
from openworks.api.context import Context
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.documents import Document
from openworks.wire.cloudflare.envelope import success, timestamp
from openworks.wire.cloudflare.fields import checked
from openworks.wire.cloudflare.nouns import NewDeployment, NewRoute, NewVersion, RouteUpdate


async def create(context: Context) -> Answer:
    """Make a route; its first version is deployed."""
    actor = await actor_of(context)
    given = checked(NewRoute, body_of(context))
    route = await context.services.dynamic_routes.create(
        actor, gateway_id_of(context), given.name, given.elements
    )
    return ok(_route(route))


async def list_routes(context: Context) -> Answer:
    """List the gateway's routes, newest first."""
    actor = await actor_of(context)
    page = page_of(context.request.query_params)
    found = await context.services.dynamic_routes.list(actor, gateway_id_of(context))
    return _listed("routes", [_route(item) for item in cut(found, page)[0]], page)


async def retrieve(context: Context) -> Answer:
    """Return one with its deployed elements."""
    actor = await actor_of(context)
    route = await context.services.dynamic_routes.get(
        actor, gateway_id_of(context), _route_id(context)
    )
    return ok(_route(route))


async def update(context: Context) -> Answer:
    """Give one another name."""
    actor = await actor_of(context)
    given = checked(RouteUpdate, body_of(context))
    route = await context.services.dynamic_routes.rename(
        actor, gateway_id_of(context), _route_id(context), given.name
    )
    rendered = _route(route)
    return Json({**success(rendered), "route": rendered})


async def delete(context: Context) -> Answer:
    """Delete one with its versions."""
    actor = await actor_of(context)
    route = await context.services.dynamic_routes.delete(
        actor, gateway_id_of(context), _route_id(context)
    )
    return ok(_summary(route))


async def create_version(context: Context) -> Answer:
    """Add a version, which answers once it is deployed."""
    actor = await actor_of(context)
    given = checked(NewVersion, body_of(context))
    route, version = await context.services.dynamic_routes.create_version(
        actor, gateway_id_of(context), _route_id(context), given.elements
    )
    return ok(_version_of(route, version))


async def list_versions(context: Context) -> Answer:
    """List a route's versions, newest first."""
    actor = await actor_of(context)
    page = page_of(context.request.query_params)
    route, found = await context.services.dynamic_routes.list_versions(
        actor, gateway_id_of(context), _route_id(context)
    )
    return _listed("versions", [_version(route, item) for item in cut(found, page)[0]], page)


async def retrieve_version(context: Context) -> Answer:
    """Return one version."""
    actor = await actor_of(context)
    route, version = await context.services.dynamic_routes.get_version(
        actor, gateway_id_of(context), _route_id(context), path_value(context, "version_id")
    )
    return ok(_version_of(route, version))


async def deploy(context: Context) -> Answer:
    """Let a version answer from now on."""
    actor = await actor_of(context)
    given = checked(NewDeployment, body_of(context))
    route = await context.services.dynamic_routes.deploy(
        actor, gateway_id_of(context), _route_id(context), given.version_id
    )
    return ok({**_summary(route), **_deployed(route)})


async def list_deployments(context: Context) -> Answer:
    """List which versions were deployed when, newest first."""
    actor = await actor_of(context)
    page = page_of(context.request.query_params)
    found = await context.services.dynamic_routes.list_deployments(
        actor, gateway_id_of(context), _route_id(context)
    )
    rows: list[JsonObject] = [
        {
            "deployment_id": item.id,
            "version_id": item.body["version_id"],
            "created_at": timestamp(item.created_at_s),
        }
        for item in cut(found, page)[0]
    ]
    return _listed("deployments", rows, page)


def _route_id(context: Context) -> str:
    return path_value(context, "route_id")


def _listed(noun: str, rows: Sequence[JsonObject], page: PageNumber) -> Json:
    """Answer with a list as the SDK reads it: in `data`, beside the envelope's own members."""
    data: JsonObject = {
        "order_by": "created_at",
        "order_by_direction": "desc",
        "page": page.page,
        "per_page": page.per_page,
        noun: list(rows),
    }
    return Json({**success(data), "data": data})


def _summary(route: Document, elements: JsonValue = None) -> JsonObject:
    return {
        "id": route.id,
        "account_tag": route.account_id,
        "gateway_id": route.parent,
        "name": route.body["name"],
        "elements": route.body["elements"] if elements is None else elements,
        "created_at": timestamp(route.created_at_s),
        "modified_at": timestamp(route.modified_at_s),
    }


def _deployed(route: Document) -> JsonObject:
    return {
        "deployment_id": route.body["deployment_id"],
        "version_id": route.body["version_id"],
    }


def _route(route: Document) -> JsonObject:
    body = route.body
    return {
        **_summary(route),
        "deployment": {**_deployed(route), "created_at": _time(body["deployed_at_s"])},
        "version": {
            "version_id": body["version_id"],
            "active": "true",
            "is_valid": True,
            "data": _text(body["elements"]),
            "created_at": _time(body["version_created_at_s"]),
        },
    }


def _version(route: Document, version: Document) -> JsonObject:
    is_active = route.body["version_id"] == version.id
    return {
        "version_id": version.id,
        "active": "true" if is_active else "false",
        "is_valid": True,
        "data": _text(version.body["elements"]),
        "created_at": timestamp(version.created_at_s),
    }


def _version_of(route: Document, version: Document) -> JsonObject:
    return {**_summary(route, version.body["elements"]), **_version(route, version)}


def _text(elements: JsonValue) -> str:
    return orjson.dumps(elements).decode()


def _time(at_s: JsonValue) -> str:
    assert isinstance(at_s, int | float)
    return timestamp(at_s)
