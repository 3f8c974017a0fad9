"""After thousands of mixed calls, the ledger says what the provider says: each token, each cent."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from openworks.ports.calls import CallRecord
from tests.gateway.gateway_server import GatewayServer, Place, chat_body, message_body
from tests.gateway.stand_in import Reply, Request, StandIn, answer_as_provider, chat_completion

IS_SOAK = bool(os.environ.get("SOAK"))
NUM_CALLS = 20_000 if IS_SOAK else 2000
CONCURRENCY = 64
SEED = 20_261_120
OPENAI, SILENT, ANTHROPIC = "gpt-4o-mini", "gpt-4.1-nano", "claude-haiku-4-5"
USD_PER_MTOK = {OPENAI: (0.15, 0.6), SILENT: (0.1, 0.4), ANTHROPIC: (1.0, 5.0)}
CARD = "4111 1111 1111 1111"
BUDGET_USD = 0.001


@dataclass(slots=True)
class Call:
    """One call: what was asked, and what the caller saw of it."""

    kind: str
    id: str
    prompt: int
    completion: int
    rng: Random
    status: int | None = None
    log_id: str | None = None
    cache: str | None = None
    events: int = 0
    """Content events that the caller saw."""
    said_error: bool = False


@dataclass(slots=True)
class World:
    """Server, provider and what they are asked with."""

    place: Place
    provider: StandIn
    session: aiohttp.ClientSession
    arrived: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    asked: Counter[str] = field(default_factory=Counter)
    """How often the provider was asked for each call."""

    def answer(self, request: Request) -> Reply:
        """Answer as the call's own headers tell, whatever the model."""
        call_id = request.header("x-call") or ""
        self.asked[call_id] += 1
        self.arrived[call_id].set()
        steer = request.header("x-steer") or "mock"
        if self.asked[call_id] <= int(request.header("x-fail") or 0):
            return Reply(status=500, body=b'{"error":{"message":"again"}}')
        body = {**request.json(), "model": steer}
        reply = answer_as_provider(replace(request, body=json.dumps(body).encode()))
        if reply.tokens is not None:
            reply = replace(reply, tokens=replace(reply.tokens, model=request.model))
            if request.header("x-say"):
                assert reply.tokens is not None
                reply = chat_completion(reply.tokens, request.header("x-say"))
        return reply

    async def post(
        self,
        call: Call,
        path: str,
        body: object,
        *,
        gateway: str = "default",
        steer: str = "",
        headers: dict[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        tokens = f"mock-p{call.prompt}-t{call.completion}{steer}"
        response = await self.session.post(
            self.place.url(path, gateway),
            data=json.dumps(body),
            headers=self.place.headers(
                {
                    "content-type": "application/json",
                    "cf-aig-event-id": call.id,
                    "x-call": call.id,
                    "x-steer": tokens,
                    **(headers or {}),
                }
            ),
        )
        call.status = response.status
        call.log_id = response.headers.get("cf-aig-log-id")
        call.cache = response.headers.get("cf-aig-cache-status")
        return response


async def _read(call: Call, response: aiohttp.ClientResponse, leave_after: int = -1) -> None:
    """Read an answer to its end, or leave after so many content events."""
    async with response:
        async for line in response.content:
            call.events += b'" tok' in line
            call.said_error |= line.startswith(b'data: {"error"') or b'"type":"error"' in line
            if call.events == leave_after:
                response.close()
                return


async def whole_openai(world: World, call: Call) -> None:
    await _read(call, await world.post(call, "openai/chat/completions", chat_body(OPENAI)))


async def whole_anthropic(world: World, call: Call) -> None:
    await _read(call, await world.post(call, "anthropic/messages", message_body(ANTHROPIC)))


def _stream_body() -> dict[str, Any]:
    return chat_body(OPENAI, stream=True, stream_options={"include_usage": True})


async def stream_openai(world: World, call: Call) -> None:
    await _read(call, await world.post(call, "openai/chat/completions", _stream_body()))


async def stream_silent(world: World, call: Call) -> None:
    body = chat_body(SILENT, stream=True)
    await _read(call, await world.post(call, "openai/chat/completions", body))


async def stream_anthropic(world: World, call: Call) -> None:
    body = message_body(ANTHROPIC, stream=True)
    await _read(call, await world.post(call, "anthropic/messages", body))


async def leave_before(world: World, call: Call) -> None:
    body = chat_body(OPENAI, stream=call.rng.random() < 0.5)
    task = asyncio.create_task(world.post(call, "openai/chat/completions", body, steer="-h"))
    await world.arrived[call.id].wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def leave_openai(world: World, call: Call) -> None:
    call.completion = 400
    response = await world.post(call, "openai/chat/completions", _stream_body(), steer="-c5")
    await _read(call, response, leave_after=call.rng.randint(1, 8))


async def leave_anthropic(world: World, call: Call) -> None:
    call.completion = 400
    body = message_body(ANTHROPIC, stream=True)
    response = await world.post(call, "anthropic/messages", body, steer="-c5")
    await _read(call, response, leave_after=call.rng.randint(1, 8))


async def retried(world: World, call: Call) -> None:
    headers = {
        "cf-aig-max-attempts": "3",
        "cf-aig-retry-delay": "1",
        "x-fail": str(call.rng.randint(1, 2)),
    }
    response = await world.post(call, "openai/chat/completions", chat_body(OPENAI), headers=headers)
    await _read(call, response)


async def fallback(world: World, call: Call) -> None:
    tokens = f"mock-p{call.prompt}-t{call.completion}"
    shared = {"content-type": "application/json", "authorization": "Bearer sk-b", "x-call": call.id}
    steps = [
        {
            "provider": "groq",
            "endpoint": "chat/completions",
            "headers": {**shared, "x-steer": f"{tokens}-x503"},
            "query": chat_body("mock-ill"),
        },
        {
            "provider": "anthropic",
            "endpoint": "messages",
            "headers": {**shared, "x-steer": tokens},
            "query": message_body(ANTHROPIC, stream=call.rng.random() < 0.5),
        },
    ]
    await _read(call, await world.post(call, "", steps))


async def cached(world: World, call: Call) -> None:
    which = call.rng.randint(1, 20)
    call.prompt, call.completion = 40 + which, which
    response = await world.post(
        call,
        "openai/chat/completions",
        chat_body(OPENAI, stream=which % 2 == 0, stream_options={"include_usage": True}),
        headers={
            "cf-aig-cache-ttl": "3600",
            "cf-aig-cache-key": f"which-{which}",
        },
    )
    await _read(call, response)


async def budgeted(world: World, call: Call) -> None:
    call.prompt = call.rng.randint(1, 20)  # no more than its bytes let expect
    body = chat_body(OPENAI, max_tokens=200)
    await _read(call, await world.post(call, "openai/chat/completions", body, gateway="poor"))


async def refused(world: World, call: Call) -> None:
    status = call.rng.choice([400, 401, 404, 422, 429, 500, 503])
    body = chat_body(OPENAI, stream=call.rng.random() < 0.3)
    response = await world.post(call, "openai/chat/completions", body, steer=f"-x{status}")
    await _read(call, response)
    assert call.status == status


async def guarded_prompt(world: World, call: Call) -> None:
    body = chat_body(OPENAI, messages=[{"role": "user", "content": f"It is {CARD}."}])
    await _read(call, await world.post(call, "openai/chat/completions", body, gateway="guarded"))


async def guarded_answer(world: World, call: Call) -> None:
    response = await world.post(
        call,
        "openai/chat/completions",
        chat_body(OPENAI),
        gateway="guarded",
        headers={"x-say": f"It is {CARD}."},
    )
    await _read(call, response)


async def reset_whole(world: World, call: Call) -> None:
    body = chat_body(OPENAI)
    await _read(call, await world.post(call, "openai/chat/completions", body, steer="-k1"))


async def reset_stream(world: World, call: Call) -> None:
    call.completion = 60
    cut = call.rng.randint(1, 12)
    response = await world.post(
        call, "openai/chat/completions", _stream_body(), steer=f"-c2-k{cut}"
    )
    await _read(call, response)


KINDS: dict[Callable[[World, Call], Awaitable[None]], int] = {
    whole_openai: 22,
    whole_anthropic: 10,
    stream_openai: 12,
    stream_silent: 5,
    stream_anthropic: 8,
    leave_before: 3,
    leave_openai: 3,
    leave_anthropic: 2,
    retried: 4,
    fallback: 5,
    cached: 10,
    budgeted: 5,
    refused: 5,
    guarded_prompt: 2,
    guarded_answer: 2,
    reset_whole: 1,
    reset_stream: 1,
}
"""Kind → its share."""
_BY_NAME = {ask.__name__: ask for ask in KINDS}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        StandIn(keep_requests=10) as provider,
        aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as session,
    ):
        server = await asyncio.to_thread(GatewayServer, provider, tmp_path / "server")
        place = Place(server, "everyone")
        rule = {"id": "b", "limit": BUDGET_USD, "limitType": "cost", "window": 86_400}
        policy = {
            "id": "p",
            "action": "BLOCK",
            "check": ["REQUEST", "RESPONSE"],
            "enabled": True,
            "profiles": ["financial"],
        }
        await asyncio.to_thread(place.make, "poor", spend_limits={"enabled": True, "rules": [rule]})
        await asyncio.to_thread(place.make, "guarded", dlp={"enabled": True, "policies": [policy]})
        world = World(place, provider, session)
        provider.script(world.answer)
        yield world
        await session.close()
        if server.process.is_running():
            await asyncio.to_thread(server.stop)


def _calls() -> list[Call]:
    rng = Random(SEED)
    kinds = rng.choices([kind.__name__ for kind in KINDS], list(KINDS.values()), k=NUM_CALLS)
    return [
        Call(
            kind=kind,
            id=f"call-{number}",
            prompt=rng.randint(1, 3000),
            completion=rng.randint(1, 60),
            rng=Random(rng.random()),
        )
        for number, kind in enumerate(kinds)
    ]


async def _make_all(world: World, calls: list[Call]) -> None:
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await _BY_NAME[call.kind](world, call)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def _cost_usd(model: str, prompt: int, completion: int) -> float:
    per_in, per_out = USD_PER_MTOK.get(model, (0.0, 0.0))
    return (prompt * per_in + completion * per_out) / 1e6


@pytest.mark.timeout(900 if IS_SOAK else 120)
async def test_the_ledger_equals_what_the_provider_served(world: World) -> None:
    calls = _calls()
    began_s = time.monotonic()
    await _make_all(world, calls)
    took_s = time.monotonic() - began_s
    server, counters = world.place.server, world.provider.counters
    ill = await asyncio.to_thread(world.place.records, NUM_CALLS)
    await asyncio.to_thread(server.stop)  # whatever is on its way is written now

    everything = await asyncio.to_thread(server.records)
    records = [r for r in everything if r.account_id == "everyone"]
    by_id = {record.event_id: record for record in records}
    assert len(ill) == NUM_CALLS
    assert len(records) == len(by_id) == NUM_CALLS, "each call has exactly one record"
    for call in calls:
        _check(call, by_id[call.id], world)
    _check_tokens(records, counters.prompt_tokens, counters.completion_tokens)
    _check_broken(records, sum(counters.unsaid_tokens.values()))
    _check_caching(calls, world)
    _check_budget(calls, records)
    sums = await asyncio.to_thread(server.sums)
    (row,) = [row for row in sums if row.group == "everyone"]
    assert row.calls == NUM_CALLS
    assert row.errors == sum(record.outcome == "error" for record in records)
    assert row.usage.prompt_tokens == sum(r.usage.prompt_tokens for r in records)
    assert row.usage.completion_tokens == sum(r.usage.completion_tokens for r in records)
    assert row.cost_usd == pytest.approx(sum(r.cost_usd for r in records), abs=1e-9)
    print(
        f"\n{NUM_CALLS} calls in {took_s:.1f} s ({NUM_CALLS / took_s:.0f}/s): provider served "
        f"{counters.served}, aborted {counters.aborted}, cut {counters.cut}; "
        f"{sum(counters.prompt_tokens.values())} + {sum(counters.completion_tokens.values())} "
        f"tokens, {row.cost_usd:.6f} USD; by kind {dict(Counter(c.kind for c in calls))}; "
        f"outcomes {dict(Counter(r.outcome for r in records))}"
    )


def _check(call: Call, record: CallRecord, world: World) -> None:
    """One record against what its caller saw."""
    seen = (call, record)
    if call.log_id is not None:
        assert record.id == call.log_id, seen
    if call.kind == "leave_before" or call.kind.startswith("leave_"):
        assert (record.outcome, record.status) == ("client_closed", 499), seen
        assert record.usage.completion_tokens >= call.events, seen
    elif call.kind == "reset_stream":
        assert (record.outcome, record.error_code) == ("error", "upstream_failed"), seen
        assert call.said_error, seen
        assert record.usage.completion_tokens >= call.events, seen
    else:
        assert record.status == call.status, seen
        assert (record.outcome == "ok") == (call.status == 200), seen
    if record.cached:
        assert (record.cost_usd, record.attempts) == (0, 0), seen
        assert call.cache == "HIT", seen
    else:
        assert record.attempts == world.asked[call.id], seen
        model_usd = _cost_usd(
            record.model, record.usage.prompt_tokens, record.usage.completion_tokens
        )
        assert record.cost_usd == pytest.approx(model_usd, abs=1e-12), seen
    if call.kind == "stream_silent":
        assert record.estimated, seen
        assert record.usage.completion_tokens == _estimate(call.completion), seen
    elif record.outcome == "ok":
        assert not record.estimated, seen
        usage = (record.usage.prompt_tokens, record.usage.completion_tokens)
        assert usage == (call.prompt, call.completion), seen


def _estimate(events: int) -> int:
    """What the gateway makes of so many of the stand-in's events, when nobody says their tokens."""
    return max(events, (sum(len(f" tok{number}") for number in range(events)) + 3) // 4)


def _check_tokens(
    records: list[CallRecord], prompt: Counter[str], completion: Counter[str]
) -> None:
    """Of every answer that was whole and said its usage."""
    ours: dict[str, Counter[str]] = {"prompt": Counter(), "completion": Counter()}
    for record in records:
        if not record.cached and not record.estimated:
            ours["prompt"][record.model] += record.usage.prompt_tokens
            ours["completion"][record.model] += record.usage.completion_tokens
    for model in (OPENAI, ANTHROPIC):
        assert ours["prompt"][model] == prompt[model], model
        assert ours["completion"][model] == completion[model], model


def _check_broken(records: list[CallRecord], sent: int) -> None:
    """Of streams that ended before they said their usage: no more than was sent.

    One of the stand-in's events is up to seven bytes, so at most two tokens in an estimate.
    """
    broken = [r for r in records if r.estimated and r.model != SILENT]
    assert broken
    assert all(record.outcome != "ok" for record in broken)
    assert sum(record.usage.completion_tokens for record in broken) <= 2 * sent


def _check_caching(calls: list[Call], world: World) -> None:
    hits = [call for call in calls if call.cache == "HIT"]
    misses = [call for call in calls if call.cache == "MISS"]
    assert len(misses) == 20
    assert all(world.asked[call.id] == 0 for call in hits)
    assert all(call.status == 200 for call in hits)


def _check_budget(calls: list[Call], records: list[CallRecord]) -> None:
    stopped = [r for r in records if r.error_code == "spend_limit_exceeded"]
    spent = sum(record.cost_usd for record in records if record.gateway_id == "poor")
    assert stopped
    assert all(record.attempts == 0 for record in stopped)
    assert 0.5 * BUDGET_USD < spent <= BUDGET_USD
    assert {call.status for call in calls if call.kind == "budgeted"} == {200, 429}
