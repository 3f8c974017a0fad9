"""Which step comes first, and which when that fails: a list, or a walk through a route's graph."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Protocol

import msgspec

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError, NotFoundError, RateLimitError
from openworks.core.ids import KeyId
from openworks.gateway.messages import GatewayRequest
from openworks.gateway.options import Options
from openworks.gateway.policy import Policy, RunningRoute
from openworks.gateway.providers.base import AUTH_HEADERS
from openworks.gateway.routing.context import RouteContext
from openworks.gateway.routing.graph import Rate
from openworks.gateway.routing.walk import EndStep, ModelStep, RateStep, Walk
from openworks.gateway.steps import (
    OPERATIONS,
    Step,
    compat_step,
    native_step,
    read_object,
    universal_items,
    universal_step,
)
from openworks.ports.gateways import Gateway, GatewayId, RateLimit, Selector, SpendRule
from openworks.ports.limits import Claim
from openworks.ports.upstream import Headers

COMPAT = "compat"
_DYNAMIC = "dynamic/"
PassesRate = Callable[[RateStep, RunningRoute], Awaitable[bool]]


class Plan(Protocol):
    """The steps of one call, one after the other."""

    first: Step | None
    """None when `following` must be awaited for it."""
    label: str | None
    """The dynamic route and its version, if one chooses."""

    def has_fallback(self) -> bool:
        """Whether there may be another step after the present one."""
        ...

    async def following(self) -> Step | None:
        """Return the next step, as the present one failed; None when there is none.

        Raises:
            RateLimitError: The route's own limit lets nothing pass, and it has no other way.
        """
        ...


class StepList:
    """Steps that are known from the start."""

    __slots__ = ("_at", "_steps", "first", "label")

    def __init__(self, steps: list[Step]) -> None:
        self.first: Step | None = steps[0]
        self.label: str | None = None
        self._steps = steps
        self._at = 0

    def has_fallback(self) -> bool:
        return self._at + 1 < len(self._steps)

    async def following(self) -> Step | None:
        if not self.has_fallback():
            return None
        self._at += 1
        return self._steps[self._at]


class RoutePlan:
    """Steps that a dynamic route chooses on the way."""

    __slots__ = (
        "_has_asked",
        "_has_fallback",
        "_make",
        "_passes",
        "_running",
        "_started",
        "_walk",
        "first",
        "label",
    )

    def __init__(
        self,
        running: RunningRoute,
        walk: Walk,
        *,
        make: Callable[[str, str], Step],
        passes: PassesRate,
    ) -> None:
        """Stand before the start.

        Args:
            running: The route.
            walk: Not yet begun.
            make: Makes the step that asks a provider's model.
            passes: Decides on a rate element.
        """
        self.first: Step | None = None
        self.label: str | None = running.label
        self._running = running
        self._walk = walk
        self._make = make
        self._passes = passes
        self._started = False
        self._has_asked = False
        self._has_fallback = False

    def has_fallback(self) -> bool:
        return self._has_fallback

    async def following(self) -> Step | None:
        at = self._walk.advance(False if self._started else None)
        self._started = True
        while isinstance(at, RateStep):
            at = self._walk.advance(await self._passes(at, self._running))
        if isinstance(at, ModelStep):
            return self._step_of(at)
        self._ended(at)
        return None

    def _step_of(self, at: ModelStep) -> Step:
        element = at.element
        self._has_fallback = element.fallback is not None
        self._has_asked = True
        step = self._make(element.provider, element.model)
        step.is_routed = True
        step.default_timeout_ms = element.timeout_ms
        if element.retries and step.options.max_attempts is None:
            step.options = replace(step.options, max_attempts=element.retries + 1)
        return step

    def _ended(self, at: EndStep) -> None:
        self._has_fallback = False
        if at.reason == "limited":
            raise RateLimitError(
                f"The route {self.label} lets no more calls pass now (element {at.element_id!r}).",
                retry_after_s=1.0,
            )
        # After a model that failed, its own answer tells more.
        if at.reason == "no_answer" and not self._has_asked:
            raise InvalidRequestError(
                f"The route {self.label} ended at {at.element_id!r} without asking a model.",
                code="route_without_answer",
                param="model",
            )


def make_plan(
    request: GatewayRequest,
    options: Options,
    forward: Headers,
    policy: Policy,
    *,
    brought_credential: bool,
    clock: Clock,
    rng: Random,
    passes: PassesRate,
) -> Plan:
    """Read what a request asks for.

    Raises:
        InvalidRequestError: The body or the path has no sense.
        NotFoundError: The provider, the route or the endpoint does not exist.
    """
    slug = request.provider
    if not slug:
        return _universal_plan(request, options, policy, clock=clock, rng=rng, passes=passes)
    if slug != COMPAT:
        provider = policy.find(slug)
        return StepList(
            [
                native_step(
                    request, provider, forward, options, brought_credential=brought_credential
                )
            ]
        )
    return _compat_plan(
        request, options, forward, policy, brought_credential, clock=clock, rng=rng, passes=passes
    )


def _universal_plan(
    request: GatewayRequest,
    options: Options,
    policy: Policy,
    *,
    clock: Clock,
    rng: Random,
    passes: PassesRate,
) -> Plan:
    """Read an array of steps, of which each may be `compat`'s: a provider of any shape."""
    items = universal_items(request, options)
    plans: list[Plan] = []
    for item in items:
        if item.provider != COMPAT:
            plans.append(StepList([universal_step(item, policy)]))
            continue
        asked = replace(
            request,
            provider=COMPAT,
            endpoint=item.endpoint,
            headers=item.headers,
            body=item.body,
        )
        plans.append(
            _compat_plan(
                asked,
                item.options,
                item.headers,
                policy,
                item.brought_credential,
                clock=clock,
                rng=rng,
                passes=passes,
            )
        )
    if len(plans) == 1:
        return plans[0]
    steps = [plan.first for plan in plans if plan.first is not None]
    if len(steps) < len(plans):
        raise InvalidRequestError(
            "A dynamic route has fallbacks of its own, so it must be the only step."
        )
    return StepList(steps)


def _compat_plan(
    request: GatewayRequest,
    options: Options,
    forward: Headers,
    policy: Policy,
    brought_credential: bool,
    *,
    clock: Clock,
    rng: Random,
    passes: PassesRate,
) -> Plan:
    operation = OPERATIONS.get(request.endpoint.removeprefix("v1/"))
    if operation is None:
        raise NotFoundError(
            f"compat has chat/completions, embeddings and models, not {request.endpoint!r:.80}.",
            code="unknown_url",
        )
    body = read_object(request.body)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError(
            f"model must be provider/model or dynamic/route, got {model!r:.80}.", param="model"
        )

    def make(provider: str, name: str) -> Step:
        return compat_step(
            request.body,
            operation,
            f"{provider}/{name}" if provider else name,
            policy,
            forward,
            options,
            brought_credential=brought_credential,
            clock=clock,
        )

    if not model.startswith(_DYNAMIC):
        return StepList([make("", model)])
    running = policy.route(model.removeprefix(_DYNAMIC))
    context = RouteContext(
        metadata=options.metadata or {},
        headers={
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in request.headers
            if name not in AUTH_HEADERS and name != b"cf-aig-authorization"
        },
        body=body,
        session_id=options.session_id,
    )
    walk = Walk(running.graph, context, rng=rng, salt=running.salt)
    return RoutePlan(running, walk, make=make, passes=passes)


def rate_claim(at: RateStep, running: RunningRoute, claim: Claim) -> Claim:
    """Return the claim of a route's rate element: a limit of its own, with a count per value."""
    gateway = running.limits.get(at.element.id)
    if gateway is None:
        gateway = running.limits[at.element.id] = _limit_of(at.element, running, claim.gateway)
    return msgspec.structs.replace(claim, gateway=gateway, key_id=KeyId(at.value))


def _limit_of(element: Rate, running: RunningRoute, gateway: Gateway) -> Gateway:
    window_s = max(1, round(element.window_s))
    rates: tuple[RateLimit, ...] = ()
    rules: tuple[SpendRule, ...] = ()
    if element.unit == "count":
        rates = (
            RateLimit(
                limit=int(element.limit),
                interval_s=window_s,
                technique=element.technique,
                per="key",
            ),
        )
    else:
        rules = (
            SpendRule(
                id=f"{running.label}:{element.id}",
                limit=element.limit,
                window_s=window_s,
                technique=element.technique,
                by={"key": Selector(mode="partition")},
            ),
        )
    return replace(
        gateway,
        id=GatewayId(f"{gateway.id}/{running.salt}/{element.id}"),
        rate_limits=rates,
        spend_rules=rules,
        concurrency=None,
    )
