from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from openworks.core.errors import AppError, InvalidRequestError, NotFoundError, RateLimitError
from openworks.core.ids import KeyId
from openworks.gateway.options import Options
from openworks.gateway.plans import Plan, make_plan, rate_claim
from openworks.gateway.policy import Policy, RunningRoute
from openworks.gateway.providers.registry import Providers
from openworks.gateway.routing.walk import RateStep
from openworks.gateway.steps import Step
from openworks.ports.limits import Claim
from openworks.ports.snapshots import ActiveRoute
from tests.fakes import FakeClock
from tests.unit.gateway.exchange_world import CHAT, snapshot
from tests.unit.gateway.test_steps import STEP, request_of


def element(id: str, type: str, outputs: dict[str, str], **properties: Any) -> dict[str, Any]:
    targets = {name: {"elementId": target} for name, target in outputs.items()}
    return {"id": id, "type": type, "properties": properties, "outputs": targets}


def model(id: str, name: str, **outputs: str) -> dict[str, Any]:
    return element(id, "model", outputs, provider="openai", model=name, timeout=2000, retries=2)


RATE = {"limit": 5, "window": 60, "limitType": "count", "key": "metadata.user"}
START = element("start", "start", {"next": "first"})
END = element("end", "end", {})
TWO_MODELS = [START, model("first", "a", success="end", fallback="second"),
              model("second", "b", success="end"), END]  # fmt: skip


class Rates:
    """Answers rate elements, and remembers them."""

    def __init__(self, *, passes: bool = True) -> None:
        self.passes = passes
        self.asked: list[tuple[RateStep, RunningRoute]] = []

    async def __call__(self, at: RateStep, running: RunningRoute) -> bool:
        self.asked.append((at, running))
        return self.passes


def plan_of(
    body: Any = None,
    *,
    elements: list[dict[str, Any]] | None = None,
    provider: str = "compat",
    endpoint: str = "chat/completions",
    options: Options | None = None,
    rates: Rates | None = None,
) -> Plan:
    made = snapshot()
    if elements is not None:
        route = ActiveRoute(id="r1", name="smart", version_id="v1", elements=tuple(elements))
        made = replace(made, routes={"smart": route})
    return make_plan(
        request_of(
            body if body is not None else {**CHAT, "model": "dynamic/smart"},
            provider=provider,
            endpoint=endpoint,
        ),
        options or Options(),
        [],
        Policy(made, Providers(), moderator=None, allow_private=False),
        brought_credential=False,
        clock=FakeClock(),
        rng=Random(3),
        passes=rates or Rates(),
    )


async def next_of(plan: Plan) -> Step:
    step = await plan.following()
    assert step is not None
    return step


async def test_native_call_is_one_step_without_a_fallback() -> None:
    plan = plan_of(CHAT, provider="openai")
    assert plan.first is not None
    assert plan.label is None
    assert not plan.has_fallback()
    assert await plan.following() is None


async def test_universal_steps_follow_each_other() -> None:
    plan = plan_of([STEP, {**STEP, "provider": "groq"}], provider="", endpoint="")
    assert plan.has_fallback()
    assert (await next_of(plan)).provider.slug == "groq"
    assert not plan.has_fallback()
    assert await plan.following() is None


async def test_universal_step_may_be_of_any_shape() -> None:
    query = {**CHAT, "model": "anthropic/claude-opus-4-5"}
    compat = {"provider": "compat", "endpoint": "chat/completions", "query": query}
    plan = plan_of([STEP, compat], provider="", endpoint="")
    assert (await next_of(plan)).endpoint == "v1/messages"


def test_route_among_other_steps_is_refused() -> None:
    query = {**CHAT, "model": "dynamic/smart"}
    compat = {"provider": "compat", "endpoint": "chat/completions", "query": query}
    with pytest.raises(InvalidRequestError, match="only step"):
        plan_of([STEP, compat], provider="", endpoint="", elements=TWO_MODELS)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"endpoint": "completions", "body": CHAT}, NotFoundError),
        ({"body": b"[]"}, InvalidRequestError),
        ({"body": {"messages": []}}, InvalidRequestError),
        ({"body": {"model": 1}}, InvalidRequestError),
        ({"body": {"model": "dynamic/nobody"}}, NotFoundError),
        ({"body": {"model": "dynamic/"}}, NotFoundError),
        ({"body": CHAT, "provider": "nobody"}, NotFoundError),
        ({"body": CHAT, "provider": "custom-nobody"}, NotFoundError),
    ],
)
def test_what_has_no_plan_is_a_typed_error(options: dict[str, Any], error: type[AppError]) -> None:
    with pytest.raises(error):
        plan_of(**options)


async def test_route_goes_from_model_to_model() -> None:
    plan = plan_of(elements=TWO_MODELS)
    assert plan.first is None
    assert plan.label == "smart@v1"
    first = await next_of(plan)
    assert (first.peek.model, first.is_routed) == ("a", True)
    assert json.loads(first.body)["model"] == "a"
    assert plan.has_fallback()
    assert (await next_of(plan)).peek.model == "b"
    assert not plan.has_fallback()
    assert await plan.following() is None
    assert await plan.following() is None


async def test_patience_of_an_element_is_the_callers_where_they_say() -> None:
    step = await next_of(plan_of(elements=TWO_MODELS))
    assert (step.default_timeout_ms, step.options.max_attempts) == (2000, 3)
    step = await next_of(plan_of(elements=TWO_MODELS, options=Options(max_attempts=1)))
    assert step.options.max_attempts == 1


async def test_end_after_a_failed_model_is_no_error_of_its_own() -> None:
    elements = [START, model("first", "a", success="end", fallback="end"), END]
    plan = plan_of(elements=elements)
    await next_of(plan)
    assert await plan.following() is None


async def test_route_that_never_asks_a_model_is_refused() -> None:
    plan = plan_of(elements=[element("start", "start", {"next": "end"}), END])
    with pytest.raises(InvalidRequestError, match="without asking a model"):
        await plan.following()


async def test_rate_element_decides_the_way() -> None:
    rate = element("first", "rate", {"success": "m", "fallback": "n"}, **RATE)
    elements = [START, rate, model("m", "a", success="end"), model("n", "b", success="end"), END]
    rates = Rates()
    options = Options(metadata={"user": "u1"})
    assert (await next_of(plan_of(elements=elements, rates=rates, options=options))).peek.model == (
        "a"
    )
    assert rates.asked[0][0].value == "u1"
    step = await next_of(plan_of(elements=elements, rates=Rates(passes=False)))
    assert step.peek.model == "b"


async def test_rate_element_without_another_way_is_a_429() -> None:
    rate = element("first", "rate", {"success": "m"}, **RATE)
    elements = [START, rate, model("m", "a", success="end"), END]
    plan = plan_of(elements=elements, rates=Rates(passes=False))
    with pytest.raises(RateLimitError, match="smart@v1"):
        await plan.following()


async def test_limit_of_a_rate_element_counts_each_value_apart_from_the_gateway() -> None:
    rate = element("first", "rate", {"success": "m"}, **RATE)
    elements = [START, rate, model("m", "a", success="end"), END]
    rates = Rates()
    await next_of(plan_of(elements=elements, rates=rates))
    (at, running) = rates.asked[0]
    base = snapshot().gateway
    claim = Claim(
        gateway=base,
        account_id=base.account_id,
        key_id=KeyId("key_1"),
        provider="",
        model="",
        metadata={},
        tokens=0,
        cost_usd=0.0,
    )
    made, again = rate_claim(at, running, claim), rate_claim(at, running, claim)
    assert made.gateway is again.gateway  # so that its counts are the same ones
    assert made.gateway.id == "gw/r1/first"
    assert made.gateway.rate_limits[0].limit == 5
    assert made.key_id == ""
