"""Dynamic routes: graphs that choose a model, in versions of which one is deployed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from openworks.core.clock import Clock
from openworks.core.errors import ConflictError, NotFoundError
from openworks.core.ids import NewId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.documents import Document, DocumentStore
from openworks.services.audit import Actor, Audit
from openworks.services.gateways import Gateways, Memory

MAX_ROUTES = 100
"""A gateway has at most so many."""
MAX_VERSIONS = 500
"""A route has at most so many."""
MAX_DEPLOYMENTS = 1000
"""A route remembers so many."""

_Below: TypeAlias = Literal["route_version", "route_deployment"]
_Kind: TypeAlias = Literal["route", "route_version", "route_deployment"]

CheckGraph: TypeAlias = Callable[[JsonValue], None]
"""Raises `InvalidRequestError` if elements make no graph."""


class DynamicRoutes:
    """Keeps routes by gateway.

    A route's document holds the elements of its deployed version too: calls read that one alone.
    Versions never change. What is written first is seen last, so a route never points at nothing.
    """

    def __init__(
        self,
        store: DocumentStore,
        audit: Audit,
        gateways: Gateways,
        memory: Memory,
        *,
        clock: Clock,
        new_id: NewId,
        check: CheckGraph,
    ) -> None:
        self._store = store
        self._audit = audit
        self._gateways = gateways
        self._memory = memory
        self._clock = clock
        self._new_id = new_id
        self._check = check
        self._naming = asyncio.Lock()  # between asking whether a name is free and taking it

    async def create(
        self, actor: Actor, gateway_id: str, name: str, elements: Sequence[JsonObject]
    ) -> Document:
        """Make a route and deploy its first version.

        Raises:
            NotFoundError: There is no such gateway.
            InvalidRequestError: The elements make no graph.
            ConflictError: The name is taken, or the gateway has as many as it may.
        """
        self._check(list(elements))
        async with self._naming:
            others = await self.list(actor, gateway_id)
            _check_name(others, name)
            if len(others) >= MAX_ROUTES:
                raise ConflictError(
                    f"The gateway has {MAX_ROUTES} routes, which is the limit.",
                    code="too_many_routes",
                )
            route = self._document(
                "route", actor, gateway_id, self._new_id("route_"), {"name": name}
            )
            version = await self._add_version(actor, route, elements)
            route = await self._with_deployment(actor, route, version)
            await self._store.insert(route, self._audit.created(actor, route))
        self._memory.forget(actor.account_id, gateway_id)
        return route

    async def list(self, actor: Actor, gateway_id: str) -> Sequence[Document]:
        """Return a gateway's routes, newest first.

        Raises:
            NotFoundError: There is no such gateway.
        """
        await self._gateways.ensure(actor, gateway_id)
        return await self._store.list("route", actor.account_id, gateway_id)

    async def get(self, actor: Actor, gateway_id: str, route_id: str) -> Document:
        """Return a route.

        Raises:
            NotFoundError: There is none.
        """
        found = await self._store.get("route", actor.account_id, gateway_id, route_id)
        if found is None:
            raise NotFoundError(f"No route found with id {route_id[:80]!r}.")
        return found

    async def rename(self, actor: Actor, gateway_id: str, route_id: str, name: str) -> Document:
        """Give a route another name.

        Raises:
            NotFoundError: There is none.
            ConflictError: The name is taken.
        """
        async with self._naming:
            before = await self.get(actor, gateway_id, route_id)
            others = await self.list(actor, gateway_id)
            _check_name([item for item in others if item.id != route_id], name)
            return await self._replace(actor, before, {**before.body, "name": name})

    async def delete(self, actor: Actor, gateway_id: str, route_id: str) -> Document:
        """Delete a route with its versions; return what it was.

        Raises:
            NotFoundError: There is none.
        """
        found = await self.get(actor, gateway_id, route_id)
        entry = self._audit.deleted(actor, found)
        await self._store.delete("route", actor.account_id, gateway_id, route_id, entry)
        self._memory.forget(actor.account_id, gateway_id)
        return found

    async def create_version(
        self, actor: Actor, gateway_id: str, route_id: str, elements: Sequence[JsonObject]
    ) -> tuple[Document, Document]:
        """Add a version, which is not deployed yet; return the route and the version.

        Raises:
            NotFoundError: There is no such route.
            InvalidRequestError: The elements make no graph.
            ConflictError: The route has as many versions as it may.
        """
        self._check(list(elements))
        route = await self.get(actor, gateway_id, route_id)
        if len(await self._below("route_version", route)) >= MAX_VERSIONS:
            raise ConflictError(
                f"The route has {MAX_VERSIONS} versions, which is the limit.",
                code="too_many_versions",
            )
        return route, await self._add_version(actor, route, elements)

    async def list_versions(
        self, actor: Actor, gateway_id: str, route_id: str
    ) -> tuple[Document, Sequence[Document]]:
        """Return a route and its versions, newest first.

        Raises:
            NotFoundError: There is no such route.
        """
        route = await self.get(actor, gateway_id, route_id)
        return route, await self._below("route_version", route)

    async def get_version(
        self, actor: Actor, gateway_id: str, route_id: str, version_id: str
    ) -> tuple[Document, Document]:
        """Return a route and one of its versions.

        Raises:
            NotFoundError: There is none.
        """
        route = await self.get(actor, gateway_id, route_id)
        found = await self._store.get(
            "route_version", route.account_id, f"{gateway_id}/{route_id}", version_id
        )
        if found is None:
            raise NotFoundError(f"No version found with id {version_id[:80]!r}.")
        return route, found

    async def deploy(
        self, actor: Actor, gateway_id: str, route_id: str, version_id: str
    ) -> Document:
        """Let a version answer from now on.

        Raises:
            NotFoundError: There is no such route or version.
            ConflictError: The route was deployed as often as it may.
        """
        route, version = await self.get_version(actor, gateway_id, route_id, version_id)
        if len(await self._below("route_deployment", route)) >= MAX_DEPLOYMENTS:
            raise ConflictError(
                f"The route has {MAX_DEPLOYMENTS} deployments, which is the limit.",
                code="too_many_deployments",
            )
        deployed = await self._with_deployment(actor, route, version)
        return await self._replace(actor, route, deployed.body)

    async def list_deployments(
        self, actor: Actor, gateway_id: str, route_id: str
    ) -> Sequence[Document]:
        """Return what was deployed when, newest first.

        Raises:
            NotFoundError: There is no such route.
        """
        return await self._below("route_deployment", await self.get(actor, gateway_id, route_id))

    async def elements(
        self, actor: Actor, gateway_id: str, route_id: str, version_id: str | None
    ) -> JsonValue:
        """Return the elements of a version; None for those that are deployed.

        Raises:
            NotFoundError: There is no such route or version.
        """
        if version_id is None:
            return (await self.get(actor, gateway_id, route_id)).body["elements"]
        _, version = await self.get_version(actor, gateway_id, route_id, version_id)
        return version.body["elements"]

    async def _add_version(
        self, actor: Actor, route: Document, elements: Sequence[JsonObject]
    ) -> Document:
        version = self._document(
            "route_version",
            actor,
            f"{route.parent}/{route.id}",
            self._new_id("ver_"),
            {"elements": list(elements)},
        )
        await self._store.insert(version, self._audit.created(actor, version))
        return version

    async def _with_deployment(self, actor: Actor, route: Document, version: Document) -> Document:
        deployment = self._document(
            "route_deployment",
            actor,
            f"{route.parent}/{route.id}",
            self._new_id("dep_"),
            {"version_id": version.id},
        )
        await self._store.insert(deployment, self._audit.created(actor, deployment))
        body: JsonObject = {
            **route.body,
            "version_id": version.id,
            "version_created_at_s": version.created_at_s,
            "deployment_id": deployment.id,
            "deployed_at_s": deployment.created_at_s,
            "elements": version.body["elements"],
        }
        return replace(route, body=body)

    async def _replace(self, actor: Actor, before: Document, body: JsonObject) -> Document:
        after = replace(before, body=body, modified_at_s=self._clock.now_s())
        if not await self._store.replace(after, self._audit.updated(actor, after, before.body)):
            raise NotFoundError(f"No route found with id {before.id!r}.")
        self._memory.forget(actor.account_id, before.parent)
        return after

    async def _below(self, kind: _Below, route: Document) -> Sequence[Document]:
        return await self._store.list(kind, route.account_id, f"{route.parent}/{route.id}")

    def _document(
        self, kind: _Kind, actor: Actor, parent: str, document_id: str, body: JsonObject
    ) -> Document:
        now_s = self._clock.now_s()
        return Document(
            kind=kind,
            account_id=actor.account_id,
            parent=parent,
            id=document_id,
            body=body,
            created_at_s=now_s,
            modified_at_s=now_s,
        )


def _check_name(others: Sequence[Document], name: str) -> None:
    if any(item.body["name"] == name for item in others):
        raise ConflictError(f"A route named {name!r} exists already.")
