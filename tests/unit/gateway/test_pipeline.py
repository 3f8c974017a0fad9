from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from openworks.core.errors import (
    AppError,
    EngineCrashedError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from openworks.core.ids import AccountId, RequestId
from openworks.gateway.gate import Gate
from openworks.gateway.pipeline import Pipeline
from openworks.ports.calls import Call, CallBodies, CallRecord, Principal, Usage
from openworks.ports.catalog import Deployment, ModelEntry, Price
from openworks.ports.engines import Residency
from openworks.ports.gateways import Gateway, GatewayId, LogPolicy, RateLimit
from openworks.ports.limits import Refusal
from openworks.ports.snapshots import GatewaySnapshot
from openworks.ports.text import (
    ChatRequest,
    CompletionModel,
    Embedder,
    Reranker,
    Sampling,
    TextChunk,
)
from tests.fakes import FakeClock, FakeLimiter, MemorySnapshots

REQUEST = ChatRequest(messages=[{"role": "user", "content": "hi"}])
PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)


@dataclass
class FakeModels:
    def canonical(self, name: str) -> str:
        return "model" if name in {"alias", "model", "other"} else name

    async def deploy(self, name: str, account: AccountId) -> Deployment:
        return self.resolve(name)

    def resolve(self, name: str) -> Deployment:
        if name not in {"alias", "model", "other"}:
            raise ModelNotFoundError(f"The model {name!r} does not exist.")
        entry = ModelEntry(id="model", name="Model", task="text-generation", price=PRICE)
        return Deployment(entry=entry, engine="llamacpp", weights=Path("model.gguf"))


@dataclass
class FakeChat:
    clock: FakeClock
    error: AppError | None = None
    closed: bool = False

    async def stream(self, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        try:
            yield TextChunk(usage=Usage(prompt_tokens=10))
            self.clock.advance(0.25)
            yield TextChunk(content="a", usage=Usage(prompt_tokens=10, completion_tokens=1))
            self.clock.advance(0.75)
            await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            yield TextChunk(content="b", usage=Usage(prompt_tokens=10, completion_tokens=2))
        finally:
            self.closed = True


class FakeCounter:
    async def count_tokens(self, request: ChatRequest) -> int:
        return 10 * len(request.messages)


@dataclass
class FakeEngines:
    model: FakeChat
    background: list[bool] = field(default_factory=list)

    def chat(
        self, deployment: Deployment, account: AccountId, *, is_background: bool = False
    ) -> FakeChat:
        self.background.append(is_background)
        return self.model

    def token_counter(self, deployment: Deployment) -> FakeCounter:
        return FakeCounter()

    def completions(
        self, deployment: Deployment, account: AccountId, *, is_background: bool = False
    ) -> CompletionModel:
        raise NotImplementedError

    def embedder(self, deployment: Deployment, *, is_background: bool = False) -> Embedder:
        raise NotImplementedError

    def reranker(self, deployment: Deployment) -> Reranker:
        raise NotImplementedError

    def forget(self, generation: str) -> None:
        raise NotImplementedError

    def residency(self) -> Sequence[Residency]:
        return []


@dataclass
class Recorded:
    records: list[CallRecord] = field(default_factory=list)

    def record(
        self,
        record: CallRecord,
        bodies: CallBodies | None = None,
        *,
        policy: LogPolicy | None = None,
    ) -> None:
        self.records.append(record)


@dataclass
class World:
    clock: FakeClock
    chat: FakeChat
    engines: FakeEngines
    recorded: Recorded
    pipeline: Pipeline

    @property
    def record(self) -> CallRecord:
        (record,) = self.recorded.records
        return record


@pytest.fixture
def world() -> World:
    clock = FakeClock()
    chat, recorded = FakeChat(clock), Recorded()
    engines = FakeEngines(chat)
    pipeline = Pipeline(models=FakeModels(), engines=engines, recorders=[recorded], clock=clock)
    return World(clock, chat, engines, recorded, pipeline)


def call(model: str = "alias", allowed: frozenset[str] | None = None) -> Call:
    principal = Principal(account_id=AccountId("default"), allowed_models=allowed)
    return Call(
        request_id=RequestId("req_1"), principal=principal, route="/v1/x", model=model, stream=True
    )


async def run(world: World, made: Call) -> str:
    async with aclosing(world.pipeline.chat(made, REQUEST)) as chunks:
        return "".join([chunk.content async for chunk in chunks])


async def test_call_leaves_one_record_with_tokens_cost_and_latencies(world: World) -> None:
    assert await run(world, call()) == "ab"
    record = world.record
    assert record.deployment == "model"
    assert record.usage == Usage(prompt_tokens=10, completion_tokens=2)
    assert record.cost_usd == pytest.approx(14e-6)
    assert record.first_token_ms == pytest.approx(250)
    assert record.duration_ms == pytest.approx(1000)
    assert (record.outcome, record.status) == ("ok", 200)


async def test_client_that_leaves_ends_the_engine_and_is_recorded_with_its_tokens(
    world: World,
) -> None:
    chunks = world.pipeline.chat(call(), REQUEST)
    await anext(chunks)
    await anext(chunks)
    await chunks.aclose()
    assert world.chat.closed
    assert (world.record.outcome, world.record.status) == ("client_closed", 499)
    assert world.record.usage.completion_tokens == 1


async def test_cancelled_task_is_recorded_as_a_client_that_left(world: World) -> None:
    task = asyncio.create_task(run(world, call()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.record.outcome == "client_closed"


async def test_engine_that_dies_in_the_middle_is_recorded_with_what_was_made(world: World) -> None:
    world.chat.error = EngineCrashedError("It died.")
    with pytest.raises(EngineCrashedError):
        await run(world, call())
    record = world.record
    assert (record.outcome, record.status, record.error_code) == ("error", 503, "engine_crashed")
    assert record.usage.completion_tokens == 1


async def test_unknown_model_is_recorded_without_a_deployment(world: World) -> None:
    with pytest.raises(ModelNotFoundError):
        await run(world, call("nobody"))
    assert world.record.deployment is None
    assert world.record.status == 404


@pytest.mark.parametrize("allowed", [{"alias"}, {"model"}, {"other"}])
async def test_key_may_use_a_model_by_any_of_its_names(world: World, allowed: set[str]) -> None:
    assert await run(world, call(allowed=frozenset(allowed))) == "ab"


async def test_key_may_not_use_another_model(world: World) -> None:
    with pytest.raises(PermissionDeniedError):
        await run(world, call(allowed=frozenset({"else"})))
    assert world.record.status == 403


@pytest.mark.parametrize("is_background", [False, True])
async def test_engine_is_told_whether_somebody_waits(world: World, is_background: bool) -> None:
    await run(world, replace(call(), is_background=is_background))

    assert world.engines.background == [is_background]
    assert (world.record.first_token_ms is None) == is_background


async def test_counting_leaves_no_record(world: World) -> None:
    assert await world.pipeline.count_tokens(call(), REQUEST) == 10
    assert world.recorded.records == []


async def test_key_may_not_count_for_another_model(world: World) -> None:
    with pytest.raises(PermissionDeniedError):
        await world.pipeline.count_tokens(call(allowed=frozenset({"else"})), REQUEST)


async def test_model_for_another_task_is_refused(world: World) -> None:
    from openworks.ports.text import EmbeddingRequest

    with pytest.raises(InvalidRequestError, match="text-generation, not for text-embeddings"):
        await world.pipeline.embed(call(), EmbeddingRequest(inputs=["hi"]))


# The limits of the caller's gateway.


@dataclass
class Limited:
    """A pipeline whose callers have a limit."""

    world: World
    limiter: FakeLimiter

    def settled(self) -> object:
        (admission,) = self.limiter.admissions
        (settled,) = admission.settled
        return settled


@pytest.fixture
def limited(world: World) -> Limited:
    limiter = FakeLimiter()
    gateway = Gateway(
        account_id=AccountId("default"),
        id=GatewayId("default"),
        rate_limits=(RateLimit(limit=1, interval_s=60),),
    )
    world.pipeline = Pipeline(
        models=FakeModels(),
        engines=FakeEngines(world.chat),
        recorders=[world.recorded],
        gate=Gate(MemorySnapshots(GatewaySnapshot(gateway=gateway)), limiter),
        clock=world.clock,
    )
    return Limited(world, limiter)


async def test_call_sets_aside_what_it_may_take_and_settles_for_what_it_took(
    limited: Limited,
) -> None:
    await run(limited.world, call())
    claim = limited.limiter.admissions[0].claim
    assert (claim.model, claim.provider, claim.tokens) == ("model", "workers-ai", 1 + 1024)
    assert claim.cost_usd == pytest.approx((1 + 2 * 1024) / 1e6)
    assert limited.settled() == (12, pytest.approx(14e-6))


async def test_call_with_a_limit_sets_aside_no_more_than_that(limited: Limited) -> None:
    asked = replace(REQUEST, sampling=Sampling(max_tokens=7), n=3)
    async with aclosing(limited.world.pipeline.chat(call(), asked)) as chunks:
        async for _ in chunks:
            pass
    assert limited.limiter.admissions[0].claim.tokens == 1 + 3 * 7


async def test_refused_call_is_recorded_and_no_engine_is_asked(limited: Limited) -> None:
    limited.limiter.refusal = Refusal(kind="rate", bucket="key", limit=1, used=1, retry_after_s=1.0)
    with pytest.raises(RateLimitError):
        await run(limited.world, call())
    record = limited.world.record
    assert (record.outcome, record.status, record.error_code) == (
        "error",
        429,
        "rate_limit_exceeded",
    )
    assert not limited.world.chat.closed


async def test_call_that_may_not_use_its_model_takes_no_place(limited: Limited) -> None:
    with pytest.raises(PermissionDeniedError):
        await run(limited.world, call(allowed=frozenset({"else"})))
    assert not limited.limiter.admissions


async def test_engine_that_dies_is_settled_for_what_it_made(limited: Limited) -> None:
    limited.world.chat.error = EngineCrashedError("It died.")
    with pytest.raises(EngineCrashedError):
        await run(limited.world, call())
    assert limited.settled() == (11, pytest.approx(12e-6))


async def test_client_that_leaves_is_settled_for_what_it_got(limited: Limited) -> None:
    chunks = limited.world.pipeline.chat(call(), REQUEST)
    await anext(chunks)
    await anext(chunks)
    await chunks.aclose()
    assert limited.settled() == (11, pytest.approx(12e-6))


async def test_client_that_leaves_while_it_waits_for_a_turn_gives_its_place_back(
    limited: Limited,
) -> None:
    limited.limiter.turn = asyncio.Event()
    task = asyncio.create_task(run(limited.world, call()))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limited.limiter.left_the_queue == 1
    assert limited.world.record.outcome == "client_closed"


async def test_part_of_another_call_is_neither_limited_nor_recorded(limited: Limited) -> None:
    seen: list[CallRecord] = []
    assert await run(limited.world, replace(call(), observer=seen.append)) == "ab"
    assert not limited.limiter.admissions
    assert not limited.world.recorded.records
    assert seen[0].usage == Usage(prompt_tokens=10, completion_tokens=2)


async def test_record_names_gateway_and_metadata(limited: Limited) -> None:
    await run(limited.world, replace(call(), gateway_id="gw", metadata={"team": "red"}))
    record = limited.world.record
    assert (record.gateway_id, record.metadata, record.endpoint) == ("gw", {"team": "red"}, "/v1/x")
