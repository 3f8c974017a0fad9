from __future__ import annotations

import asyncio
import gzip
import json
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from openworks.core.ids import AccountId
from openworks.gateway.exchange import Exchange
from openworks.gateway.messages import GatewayAnswer
from openworks.ports.calls import Usage
from openworks.ports.gateways import (
    DlpPolicy,
    Guardrails,
    LogPolicy,
    RateLimit,
    RetryPolicy,
    SpendRule,
)
from openworks.ports.limits import Refusal
from openworks.ports.moderation import ModerationUnavailableError
from openworks.ports.snapshots import ActiveRoute
from openworks.ports.text import EmbeddingRequest, EmbeddingResult
from openworks.ports.upstream import Counted
from tests.fakes import Said, events_of
from tests.unit.gateway.exchange_world import (
    ACCOUNT,
    ANSWER,
    CHAT,
    COST_USD,
    EVENTS,
    KEY,
    World,
    all_of,
    header,
    lost,
    make_world,
    message,
    principal,
    sent_headers,
    settle,
    snapshot,
    stored,
)

LIMITED: Mapping[str, Any] = {"rate_limits": (RateLimit(limit=10, interval_s=60),)}
STREAM = {**CHAT, "stream": True}
CARD = "4242 4242 4242 4242"
JSON = [(b"content-type", b"application/json")]


class FakeModerator:
    """Finds what it is told in every text, and remembers the texts."""

    def __init__(self, **categories: float) -> None:
        self.found = categories
        self.texts: list[str] = []
        self.is_down = False
        self.holds: asyncio.Event | None = None

    async def categories(self, text: str) -> Mapping[str, float]:
        self.texts.append(text)
        if self.holds is not None:
            await self.holds.wait()
        if self.is_down:
            raise ModerationUnavailableError("It is down.")
        return self.found


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def limited(world: World) -> World:
    world.set(**LIMITED)
    return world


# One record, one settlement, nothing left behind: whatever happens.


async def test_good_call_leaves_one_record_and_settles_for_what_it_took(limited: World) -> None:
    assert await limited.whole() == ANSWER
    record = limited.record
    assert (record.outcome, record.status, record.error_code) == ("ok", 200, None)
    assert record.usage == Usage(prompt_tokens=10, completion_tokens=5)
    assert record.cost_usd == pytest.approx(COST_USD)
    assert (record.provider, record.model, record.key_id) == ("openai", "gpt-4.1", "key_1")
    assert (record.attempts, record.estimated, record.cached) == (1, False, False)
    assert limited.settled() == (15, pytest.approx(COST_USD))
    assert limited.provider.open == 0


async def test_refused_call_is_recorded_and_nobody_is_asked(limited: World) -> None:
    limited.limiter.refusal = Refusal(
        kind="rate", bucket="gateway", limit=10, used=10, retry_after_s=1.2
    )
    answer = await limited.call()
    assert answer.status == 429
    assert header(answer, b"retry-after") == b"2"
    assert (limited.record.outcome, limited.record.error_code) == ("error", "rate_limit_exceeded")
    assert limited.record.attempts == 0
    assert not limited.provider.requests


async def test_error_status_of_a_provider_passes_and_settles_for_nothing(limited: World) -> None:
    limited.provider.script[0] = Said(status=404, body=b'{"error": "no such model"}')
    answer = await limited.call()
    assert (answer.status, answer.body) == (404, b'{"error": "no such model"}')
    record = limited.record
    assert (record.outcome, record.status, record.error_code) == ("error", 404, "provider_status")
    assert record.usage == Usage()
    assert limited.settled() == (0, 0.0)


async def test_provider_without_an_answer_is_a_502_of_the_gateway(limited: World) -> None:
    limited.provider.script[0] = Said(fails=lost())
    answer = await limited.call()
    assert answer.status == 502
    assert json.loads(answer.body or b"")["internalCode"] == 2005
    assert limited.record.error_code == "upstream_failed"
    assert limited.settled() == (0, 0.0)


async def test_whole_answer_that_breaks_off_is_never_shown_in_part(limited: World) -> None:
    limited.provider.script[0] = Said(body=ANSWER, breaks=lost())
    answer = await limited.call()
    assert answer.status == 502
    assert limited.provider.open == 0


async def test_stream_passes_unchanged_and_is_recorded_when_it_ends(limited: World) -> None:
    limited.provider.script[0] = events_of(*EVENTS)
    answer = await limited.call(STREAM)
    assert not limited.recorder.records
    sent = b"".join(b"data: %b\n\n" % event for event in EVENTS)
    assert await all_of(answer) == sent
    assert limited.record.usage == Usage(prompt_tokens=10, completion_tokens=5)
    assert limited.record.stream
    assert limited.settled() == (15, pytest.approx(COST_USD))


async def test_stream_that_breaks_ends_with_an_error_event_and_is_recorded_as_broken(
    limited: World,
) -> None:
    limited.provider.script[0] = events_of(*EVENTS[:2], breaks=lost())
    sent = await limited.whole(STREAM)
    last = json.loads(sent.strip().rpartition(b"data: ")[2])
    assert last["error"]["code"] == "upstream_failed"
    record = limited.record
    assert (record.outcome, record.status) == ("error", 502)
    assert record.estimated
    assert record.usage.completion_tokens == 2
    (bodies,) = limited.recorder.bodies
    assert bodies is not None
    assert bodies.is_partial
    assert limited.limiter.unsettled == 0


async def test_stream_without_its_last_event_ends_with_an_error_event(limited: World) -> None:
    limited.provider.script[0] = events_of(*EVENTS[:2])
    sent = await limited.whole(STREAM)
    assert b"upstream_failed" in sent.rpartition(b"data: ")[2]
    assert b"[DONE]" not in sent
    assert limited.record.outcome == "error"


async def test_providers_own_last_word_of_an_error_is_not_repeated(limited: World) -> None:
    error = b'{"error":{"message":"It overflowed.","code":"overflow"}}'
    limited.provider.script[0] = events_of(*EVENTS[:2], error)
    sent = await limited.whole(STREAM)
    assert sent.endswith(b"data: %b\n\n" % error)
    assert sent.count(b'"error"') == 1
    assert (limited.record.outcome, limited.record.error_code) == ("error", "provider_error")


async def test_client_that_leaves_a_stream_ends_it_at_the_provider(limited: World) -> None:
    limited.provider.script[0] = events_of(*EVENTS)
    answer = await limited.call(STREAM)
    chunks = answer.chunks
    assert chunks is not None
    await anext(chunks)
    await chunks.aclose()
    assert limited.provider.responses[0].was_aborted
    record = limited.record
    assert (record.outcome, record.status) == ("client_closed", 499)
    assert record.usage.completion_tokens == 1
    assert limited.limiter.unsettled == 0


async def test_client_that_leaves_before_the_first_piece_of_a_stream_leaves_nothing_behind(
    limited: World,
) -> None:
    limited.set(cache_ttl_s=60, **LIMITED)
    limited.provider.script[0] = events_of(*EVENTS)
    answer = await limited.call(STREAM)
    assert answer.chunks is not None
    await answer.chunks.aclose()  # nobody has asked for anything yet
    await answer.chunks.aclose()
    assert limited.provider.open == 0
    assert limited.record.outcome == "client_closed"
    assert limited.limiter.unsettled == 0
    assert len(limited.flights) == 0


async def test_client_that_leaves_while_the_provider_thinks_cancels_the_question(
    limited: World,
) -> None:
    limited.provider.script[0] = Said(hangs=True)
    begun = limited.begin()
    assert isinstance(begun, Exchange)
    task = asyncio.create_task(begun.run())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limited.provider.cancelled == 1
    assert (limited.record.outcome, limited.record.status) == ("client_closed", 499)
    assert limited.settled() == (0, 0.0)


async def test_call_that_is_abandoned_before_it_ran_is_recorded_once(limited: World) -> None:
    begun = limited.begin()
    assert isinstance(begun, Exchange)
    begun.abandon()
    begun.abandon()
    assert limited.record.outcome == "client_closed"
    assert limited.settled() == (0, 0.0)


async def test_call_that_waits_for_a_turn_and_is_cancelled_gives_its_place_back(
    limited: World,
) -> None:
    limited.limiter.turn = asyncio.Event()
    begun = limited.begin()
    assert isinstance(begun, Exchange)
    task = asyncio.create_task(begun.run())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limited.limiter.left_the_queue == 1
    assert limited.record.outcome == "client_closed"


async def test_call_that_is_abandoned_before_it_waits_for_a_turn_leaves_no_coroutine(
    limited: World,
) -> None:
    limited.limiter.turn = asyncio.Event()
    begun = limited.begin()
    assert isinstance(begun, Exchange)
    begun.abandon()  # a coroutine that nobody awaits warns, and warnings are errors
    assert limited.record.outcome == "client_closed"


async def test_call_waits_for_its_turn_and_then_asks(limited: World) -> None:
    limited.limiter.turn = asyncio.Event()
    task = asyncio.create_task(limited.whole())
    await settle()
    assert not limited.provider.requests
    limited.limiter.turn.set()
    assert await task == ANSWER
    assert limited.settled() == (15, pytest.approx(COST_USD))


async def test_malformed_body_is_recorded_without_an_admission(limited: World) -> None:
    answer = await limited.call(b'{"model": ')
    assert answer.status == 400
    assert limited.record.error_code == "invalid_json"
    assert not limited.limiter.admissions


async def test_big_answer_of_unknown_length_flows_and_is_closed_when_the_client_leaves(
    limited: World,
) -> None:
    pieces = tuple(b"x" * (1 << 20) for _ in range(12))
    limited.provider.script[0] = Said(headers=JSON, chunks=pieces)
    answer = await limited.call()
    assert answer.chunks is not None
    assert await anext(answer.chunks) == pieces[0]
    await answer.chunks.aclose()
    assert limited.provider.open == 0
    assert limited.record.outcome == "client_closed"


# What a call costs.


async def test_own_price_per_token_goes_before_ours(limited: World) -> None:
    price = json.dumps({"per_token_in": 0.5, "per_token_out": 2})
    await limited.whole(headers={"cf-aig-custom-cost": price})
    assert limited.record.cost_usd == pytest.approx(15.0)
    assert limited.record.custom_cost
    assert limited.settled() == (15, pytest.approx(15.0))


TOTAL = {"cf-aig-custom-cost": '{"total_cost": 0.25}'}


async def test_own_total_is_the_cost_of_a_good_call(limited: World) -> None:
    await limited.whole(headers=TOTAL)
    assert limited.record.cost_usd == 0.25


async def test_own_total_is_the_cost_of_a_good_call_without_tokens_too(limited: World) -> None:
    limited.provider.script[0] = Said(headers=[(b"content-type", b"image/png")], body=b"\x89PNG")
    await limited.whole(b"--form", path="openai/images", headers=TOTAL)
    assert limited.record.usage == Usage()
    assert limited.record.cost_usd == 0.25


@pytest.mark.parametrize("said", [Said(status=500), Said(fails=lost()), Said(status=400)])
async def test_own_total_is_not_charged_for_a_call_that_failed(limited: World, said: Said) -> None:
    limited.provider.script[0] = said
    await limited.whole(headers=TOTAL)
    assert limited.record.cost_usd == 0.0
    assert limited.settled() == (0, 0.0)


async def test_own_total_is_not_charged_for_a_refusal_of_a_model_of_this_server(
    limited: World,
) -> None:
    counted = Counted(usage=Usage(), deployment=None)
    limited.inside.script[0] = Said(status=404, body=b"{}", counted=counted)
    await limited.whole(path="workers-ai/v1/chat/completions", headers=TOTAL)
    assert limited.record.cost_usd == 0.0


async def test_hit_costs_nothing_but_shows_what_it_saved(limited: World) -> None:
    limited.set(cache_ttl_s=60, **LIMITED)
    await limited.whole(headers=TOTAL)
    answer = await limited.call(headers=TOTAL)
    assert header(answer, b"cf-aig-cache-status") == b"HIT"
    hit = limited.recorder.records[1]
    assert (hit.cached, hit.cost_usd, hit.attempts) == (True, 0.0, 0)
    assert hit.usage == Usage(prompt_tokens=10, completion_tokens=5)
    assert limited.limiter.admissions[1].settled == [(0, 0.0)]


async def test_tokens_are_estimated_where_nobody_counted_them(limited: World) -> None:
    limited.provider.script[0] = Said(body=b'{"text": "12345678"}')
    await limited.whole()
    record = limited.record
    assert record.estimated
    assert record.usage.completion_tokens == 5
    assert record.usage.prompt_tokens == (len(json.dumps(CHAT)) + 3) // 4


async def test_nothing_is_estimated_for_what_takes_no_tokens(limited: World) -> None:
    limited.provider.script[0] = Said(body=b'{"data": []}')
    await limited.whole(b"", path="openai/models", method=b"GET")
    assert not limited.record.estimated
    assert limited.record.usage == Usage()


# What a call sets aside.


async def test_claim_is_for_prompt_and_the_most_that_may_be_written(limited: World) -> None:
    await limited.whole({**CHAT, "max_tokens": 100})
    claim = limited.limiter.admissions[0].claim
    prompt = (len(json.dumps({**CHAT, "max_tokens": 100})) + 3) // 4
    assert claim.tokens == prompt + 100
    assert claim.cost_usd == pytest.approx((prompt + 200) / 1e6)


async def test_claim_for_an_answer_without_a_limit_is_a_guess(limited: World) -> None:
    await limited.whole()
    claim = limited.limiter.admissions[0].claim
    assert claim.tokens == (len(json.dumps(CHAT)) + 3) // 4 + 1024


@pytest.mark.parametrize("path", ["openai/embeddings", "google-ai-studio/v1/models/x:embedContent"])
async def test_claim_for_embeddings_is_for_the_prompt_alone(limited: World, path: str) -> None:
    body = {"model": "gpt-embed", "input": "hi"}
    await limited.whole(body, path=path)
    claim = limited.limiter.admissions[0].claim
    assert claim.tokens == (len(json.dumps(body)) + 3) // 4


async def test_claim_of_a_call_without_tokens_is_for_none(limited: World) -> None:
    await limited.whole(b"", path="openai/models", method=b"GET")
    assert limited.limiter.admissions[0].claim.tokens == 0


async def test_negative_limit_in_a_body_sets_nothing_free(limited: World) -> None:
    await limited.whole({**CHAT, "max_tokens": -1_000_000})
    claim = limited.limiter.admissions[0].claim
    assert claim.tokens > 0
    assert claim.cost_usd > 0


@pytest.mark.parametrize("most", [-1, 2**64, 10**400, 1e300, "many", None])
async def test_limit_without_sense_in_a_body_is_as_good_as_none(
    limited: World, most: object
) -> None:
    await limited.whole({**CHAT, "max_tokens": most})
    claim = limited.limiter.admissions[0].claim
    assert 1024 < claim.tokens < 2000
    assert limited.limiter.unsettled == 0


@pytest.mark.parametrize("count", [-1, 2**64, 10**400, "many"])
@pytest.mark.parametrize("stream", [False, True])
async def test_counts_without_sense_in_an_answer_are_estimated_instead(
    limited: World, count: object, stream: bool
) -> None:
    told = {
        "choices": [{"delta": {"content": "hello"}}],
        "usage": {"prompt_tokens": count, "completion_tokens": 5},
    }
    body = json.dumps(told).encode()
    limited.provider.script[0] = events_of(body, b"[DONE]") if stream else Said(body=body)
    await limited.whole({**CHAT, "stream": stream})
    assert limited.record.estimated
    assert 0 < limited.record.usage.prompt_tokens < 1000
    assert limited.limiter.unsettled == 0


# Who may what.


async def test_key_may_not_use_a_model_that_it_does_not_name(limited: World) -> None:
    limited.callers.by_secret[KEY] = principal(allowed=frozenset({"openai/gpt-4o"}))
    answer = await limited.call()
    assert answer.status == 403
    assert limited.record.error_code == "model_not_allowed"
    assert not limited.limiter.admissions


@pytest.mark.parametrize("allowed", ["gpt-4.1", "openai/gpt-4.1", "openai/*"])
async def test_key_may_use_a_model_by_any_of_its_names(world: World, allowed: str) -> None:
    world.callers.by_secret[KEY] = principal(allowed=frozenset({allowed}))
    assert await world.whole() == ANSWER


async def test_key_that_may_not_use_a_fallback_is_refused_there(world: World) -> None:
    world.callers.by_secret[KEY] = principal(allowed=frozenset({"gpt-4.1"}))
    world.provider.script.appendleft(Said(status=500))
    steps = [
        {"provider": "openai", "endpoint": "chat/completions", "query": CHAT},
        {"provider": "groq", "endpoint": "chat/completions", "query": {"model": "other"}},
    ]
    answer = await world.call(steps, path="")
    assert answer.status == 403
    assert len(world.provider.requests) == 1
    assert world.record.status == 403


async def test_stored_credential_of_the_gateway_is_sent_when_the_caller_has_none(
    world: World,
) -> None:
    world.set(credentials=[stored("sk-stored")])
    await world.whole(headers={"authorization": ""})
    assert sent_headers(world.provider.requests[0])[b"authorization"] == b"Bearer sk-stored"


async def test_callers_own_credential_goes_before_the_stored_one(world: World) -> None:
    world.set(credentials=[stored("sk-stored")])
    await world.whole()
    assert sent_headers(world.provider.requests[0])[b"authorization"] == b"Bearer sk-theirs"


async def test_alias_goes_before_the_callers_own_credential(world: World) -> None:
    world.set(credentials=[stored("sk-other", alias="other")])
    await world.whole(headers={"cf-aig-byok-alias": "other"})
    assert sent_headers(world.provider.requests[0])[b"authorization"] == b"Bearer sk-other"


async def test_unknown_alias_is_named(world: World) -> None:
    answer = await world.call(headers={"cf-aig-byok-alias": "nobody"})
    assert answer.status == 400
    assert "'nobody'" in message(answer)


async def test_byok_only_gateway_never_sends_the_callers_own_credential(world: World) -> None:
    world.set(byok_only=True)
    answer = await world.call()
    assert answer.status == 400
    assert not world.provider.requests
    world.set(byok_only=True, credentials=[stored("sk-stored")])
    await world.whole()
    assert sent_headers(world.provider.requests[0])[b"authorization"] == b"Bearer sk-stored"


FULL = Refusal(kind="rate", bucket="gateway", limit=1, used=1, retry_after_s=3.0)
OWN_LIMIT = RateLimit(limit=1, interval_s=60)


async def test_credential_over_its_own_limit_leaves_the_call_to_its_equals(world: World) -> None:
    limited = replace(stored("sk-a"), rate_limit=OWN_LIMIT)
    world.set(credentials=[limited, stored("sk-b", alias="b")])
    world.limiter.refusals["gw/credential/cred-default"] = FULL
    headers = {"authorization": "", "cf-aig-byok-alias": "default,b"}
    for _ in range(5):
        assert await world.whole(headers=headers) == ANSWER
    used = {sent_headers(each)[b"authorization"] for each in world.provider.requests}
    assert used == {b"Bearer sk-b"}
    assert world.limiter.unsettled == 0


async def test_only_credential_over_its_own_limit_refuses_the_call(world: World) -> None:
    world.set(credentials=[replace(stored("sk-a"), rate_limit=OWN_LIMIT)])
    assert await world.whole(headers={"authorization": ""}) == ANSWER
    world.limiter.refusals["gw/credential/cred-default"] = FULL
    answer = await world.call(headers={"authorization": ""})
    assert answer.status == 429
    assert len(world.provider.requests) == 1
    assert len(world.recorder.records) == 2
    assert world.limiter.unsettled == 0


async def test_step_whose_credential_is_over_its_limit_is_skipped(world: World) -> None:
    world.set(credentials=[replace(stored("sk-a"), rate_limit=OWN_LIMIT)])
    world.limiter.refusals["gw/credential/cred-default"] = FULL
    steps = two_steps()
    steps[0]["headers"] = {}
    answer = await world.call(steps, path="")
    assert answer.body == ANSWER
    assert header(answer, b"cf-aig-step") == b"1"


async def test_our_key_never_reaches_a_provider_wherever_it_stood(world: World) -> None:
    for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key"):
        for scheme in ("", "Bearer ", "bearer ", "Token "):
            await world.whole(headers={name: f"{scheme}{KEY}"}, key=None)
            sent = world.provider.requests.pop()
            assert KEY.encode() not in b"".join(value for _, value in sent.headers)


async def test_our_key_in_the_headers_of_a_universal_step_never_reaches_a_provider(
    world: World,
) -> None:
    step = {
        "provider": "openai",
        "endpoint": "chat/completions",
        "headers": {"Authorization": f"Bearer {KEY}", "cf-aig-authorization": f"Bearer {KEY}"},
        "query": CHAT,
    }
    world.set(credentials=[stored("sk-stored")])
    await world.whole([step], path="")
    (sent,) = world.provider.requests
    assert sent_headers(sent)[b"authorization"] == b"Bearer sk-stored"
    assert KEY.encode() not in b"".join(value for _, value in sent.headers)


async def test_access_token_in_the_headers_of_a_universal_step_never_reaches_a_provider(
    world: World,
) -> None:
    world.callers.token = b"open-sesame"
    world.callers.by_secret["open-sesame"] = principal()
    step = {
        "provider": "openai",
        "endpoint": "chat/completions",
        "headers": {"x-api-key": "open-sesame"},
        "query": CHAT,
    }
    await world.whole([step], path="", key=None, headers={"authorization": "Bearer open-sesame"})
    assert b"x-api-key" not in sent_headers(world.provider.requests[0])


async def test_keys_of_universal_steps_are_not_logged(world: World) -> None:
    step = {
        "provider": "openai",
        "endpoint": "chat/completions",
        "headers": {"Authorization": "Bearer sk-theirs"},
        "query": CHAT,
    }
    await world.whole([step], path="")
    (bodies,) = world.recorder.bodies
    assert bodies is not None
    assert json.loads(bodies.request) == CHAT


async def test_keys_of_malformed_universal_steps_are_not_logged(world: World) -> None:
    headers = {"Authorization": "Bearer sk-theirs"}
    step = {"provider": "nobody", "endpoint": "x", "headers": headers, "query": CHAT}
    answer = await world.call([step], path="")
    assert answer.status == 404
    (bodies,) = world.recorder.bodies
    assert bodies is not None
    assert b"sk-theirs" not in bodies.request


async def test_record_and_answer_hold_no_secret(world: World) -> None:
    world.set(credentials=[stored("sk-stored")])
    for headers in ({}, {"authorization": ""}, {"cf-aig-byok-alias": "nobody"}):
        answer = await world.call(headers=headers)
        told = repr((answer, world.recorder.records, world.recorder.bodies))
        for secret in (KEY, "sk-theirs", "sk-stored"):
            assert secret not in told


# The cache.


async def test_same_question_is_asked_once(world: World) -> None:
    world.set(cache_ttl_s=60)
    first, second = await world.call(), await world.call()
    assert header(first, b"cf-aig-cache-status") == b"MISS"
    assert header(second, b"cf-aig-cache-status") == b"HIT"
    assert second.body == ANSWER
    assert len(world.provider.requests) == 1


async def test_stream_is_given_again_as_a_stream(world: World) -> None:
    world.set(cache_ttl_s=60)
    world.provider.script[0] = events_of(*EVENTS)
    first = await world.whole(STREAM)
    answer = await world.call(STREAM)
    assert answer.body is None
    assert await all_of(answer) == first
    assert world.recorder.records[1].stream


async def test_broken_stream_is_not_kept(world: World) -> None:
    world.set(cache_ttl_s=60)
    world.provider.script[0] = events_of(*EVENTS, breaks=lost())
    await world.whole(STREAM)
    assert len(world.cache) == 0
    assert len(world.flights) == 0


async def test_answers_do_not_cross_accounts(world: World) -> None:
    other = AccountId("other")
    world.set(cache_ttl_s=60)
    world.snapshots.by_place[(other, snapshot().gateway.id)] = snapshot(
        account=other, cache_ttl_s=60
    )
    world.callers.by_secret["sk-ow-other"] = principal(other)
    await world.whole()
    answer = await world.call(key="sk-ow-other", account="other")
    assert header(answer, b"cf-aig-cache-status") == b"MISS"
    assert [record.account_id for record in world.recorder.records] == ["acme", "other"]


async def test_answers_do_not_cross_provider_credentials(world: World) -> None:
    world.set(cache_ttl_s=60, credentials=[stored("sk-stored"), stored("sk-b", alias="b")])
    await world.whole()
    await world.whole(headers={"authorization": "Bearer sk-another"})
    await world.whole(headers={"authorization": ""})
    await world.whole(headers={"authorization": "", "cf-aig-byok-alias": "b"})
    assert len(world.provider.requests) == 4


async def test_answer_of_a_model_of_this_server_is_not_given_to_a_key_that_may_not_ask_it(
    world: World,
) -> None:
    world.set(cache_ttl_s=60)
    path = "workers-ai/v1/chat/completions"
    await world.whole(path=path)
    world.callers.by_secret["sk-ow-less"] = principal(allowed=frozenset({"another"}))
    answer = await world.call(path=path, key="sk-ow-less")
    assert header(answer, b"cf-aig-cache-status") == b"MISS"


async def test_followers_get_the_leaders_answer_and_a_record_each(limited: World) -> None:
    limited.set(cache_ttl_s=60, **LIMITED)
    gate = asyncio.Event()
    limited.provider.script[0] = Said(body=ANSWER, holds=gate)
    tasks = [asyncio.create_task(limited.whole()) for _ in range(5)]
    await settle()
    assert len(limited.provider.requests) == 1
    gate.set()
    assert await asyncio.gather(*tasks) == [ANSWER] * 5
    assert sum(record.cached for record in limited.recorder.records) == 4
    assert len(limited.recorder.records) == 5
    assert limited.limiter.unsettled == 0
    assert len(limited.flights) == 0


async def test_follower_takes_over_when_the_leader_leaves(world: World) -> None:
    world.set(cache_ttl_s=60)
    world.provider.script[0] = Said(body=ANSWER)
    world.provider.script.appendleft(Said(hangs=True))
    leader = asyncio.create_task(world.whole())
    await settle()
    follower = asyncio.create_task(world.whole())
    await settle()
    leader.cancel()
    assert await follower == ANSWER
    assert len(world.flights) == 0
    assert sorted(record.outcome for record in world.recorder.records) == ["client_closed", "ok"]


async def test_followers_of_a_stream_take_over_when_its_client_never_reads_it(
    world: World,
) -> None:
    world.set(cache_ttl_s=60)
    world.provider.script[0] = events_of(*EVENTS)
    leading = await world.call(STREAM)
    follower = asyncio.create_task(world.whole(STREAM))
    await settle()
    assert leading.chunks is not None
    await leading.chunks.aclose()
    assert b"[DONE]" in await follower
    assert len(world.flights) == 0


async def test_errors_are_not_shared_with_followers_for_ever(world: World) -> None:
    world.set(cache_ttl_s=60)
    world.provider.script[0] = Said(status=500)
    answers = await asyncio.gather(*(world.call() for _ in range(4)))
    assert {answer.status for answer in answers} == {500}
    assert len(world.flights) == 0
    assert len(world.cache) == 0


@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
async def test_what_is_polled_or_deleted_is_so_each_time(world: World, method: bytes) -> None:
    world.set(cache_ttl_s=60)
    await world.whole(b"", path="openai/batches/1", method=b"GET")
    answer = await world.call(b"", path="openai/batches/1", method=method)
    assert header(answer, b"cf-aig-cache-status") is None
    assert [request.method for request in world.provider.requests] == [b"GET", method]


class OneVector:
    """Finds all texts alike, and counts them."""

    def __init__(self) -> None:
        self.texts: list[str | Sequence[int]] = []

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        self.texts += request.inputs
        return EmbeddingResult(vectors=[array("f", [1.0, 0.0]).tobytes()], usage=Usage())


@pytest.fixture
def alike() -> World:
    world = make_world(embedder=OneVector())
    world.set(cache_ttl_s=60, semantic_threshold=0.9, credentials=[stored("sk-stored")], **LIMITED)
    return world


async def test_question_that_means_the_same_gets_the_same_answer(alike: World) -> None:
    await alike.whole(asking("hello"))
    answer = await alike.call(asking("hallo"))
    assert header(answer, b"cf-aig-cache-status") == b"HIT"
    assert header(answer, b"cf-aig-cache-similarity") == b"1.0000"
    assert len(alike.provider.requests) == 1
    assert alike.limiter.unsettled == 0
    assert len(alike.flights) == 0


async def test_alike_questions_of_others_are_not_looked_at(alike: World) -> None:
    await alike.whole(asking("hello"))
    answer = await alike.call(asking("hallo"), headers={"authorization": "Bearer sk-another"})
    assert header(answer, b"cf-aig-cache-status") == b"MISS"


@pytest.mark.parametrize("path", ["", "openai/audio/transcriptions"])
async def test_what_is_no_question_is_asked_all_the_same(alike: World, path: str) -> None:
    body = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nw\r\n--x--\r\n'
    assert await alike.whole(body if path else two_steps(), path=path) == ANSWER


# Steps, and the options of each.


def two_steps(**config: object) -> list[dict[str, object]]:
    return [
        {
            "provider": "openai",
            "endpoint": "chat/completions",
            "headers": {"authorization": "Bearer sk-a"},
            "query": CHAT,
            "config": config,
        },
        {
            "provider": "groq",
            "endpoint": "chat/completions",
            "headers": {"authorization": "Bearer sk-b"},
            "query": {**CHAT, "model": "llama"},
        },
    ]


async def test_second_step_answers_when_the_first_fails(world: World) -> None:
    world.provider.script.appendleft(Said(status=500))
    answer = await world.call(two_steps(), path="")
    assert answer.body == ANSWER
    assert header(answer, b"cf-aig-step") == b"1"
    record = world.record
    assert (record.step, record.attempts) == (1, 2)
    assert (record.provider, record.model) == ("groq", "llama")
    assert [sent_headers(each)[b"authorization"] for each in world.provider.requests] == [
        b"Bearer sk-a",
        b"Bearer sk-b",
    ]


async def test_stream_that_breaks_before_content_falls_back_and_after_it_does_not(
    world: World,
) -> None:
    world.provider.script.extendleft([events_of(breaks=lost())])
    steps = two_steps()
    for step in steps:
        step["query"] = STREAM
    answer = await world.call(steps, path="")
    assert header(answer, b"cf-aig-step") == b"1"
    world.provider.script.clear()
    world.provider.script.append(events_of(EVENTS[0], breaks=lost()))
    answer = await world.call(steps, path="")
    assert header(answer, b"cf-aig-step") == b"0"
    assert b"upstream_failed" in await all_of(answer)


async def test_config_of_a_step_goes_before_headers_and_those_before_the_gateway(
    world: World,
) -> None:
    world.set(retry=RetryPolicy(max_attempts=2))
    world.provider.script[0] = Said(status=500)
    await world.whole()
    assert len(world.provider.requests) == 2
    await world.whole(headers={"cf-aig-max-attempts": "3"})
    assert len(world.provider.requests) == 5
    await world.whole(two_steps(maxAttempts=4), path="", headers={"cf-aig-max-attempts": "1"})
    assert len(world.provider.requests) == 5 + 4 + 1


async def test_what_a_steps_config_says_of_the_call_is_what_is_recorded(world: World) -> None:
    config = {
        "eventId": "evt-1\r\nset-cookie: a=b",
        "metadata": {"team": "red"},
        "customCost": {"total_cost": 3},
        "collectLogPayload": False,
        "collectLog": False,
    }
    answer = await world.call(
        two_steps(**config),
        path="",
        headers={"cf-aig-metadata": '{"team": "blue"}', "cf-aig-event-id": "evt-2"},
    )
    record = world.record
    assert record.metadata == {"team": "red"}
    assert record.event_id == "evt-1\r\nset-cookie: a=b"
    assert (record.custom_cost, record.cost_usd) == (True, 3.0)
    assert world.recorder.bodies == [None]
    (policy,) = world.recorder.policies
    assert policy is not None
    assert not policy.collect
    assert header(answer, b"cf-aig-event-id") == b"evt-1??set-cookie: a=b"


async def test_big_error_answer_is_let_go_before_the_next_step(world: World) -> None:
    huge = tuple(b"x" * (1 << 20) for _ in range(12))
    world.provider.script.appendleft(Said(status=500, headers=JSON, chunks=huge))
    assert await world.whole(two_steps(), path="") == ANSWER
    assert world.provider.open == 0


async def test_timeout_of_a_step_is_until_its_first_byte(world: World) -> None:
    world.provider.script.appendleft(Said(takes_s=3.0))
    answer = await world.call(two_steps(requestTimeout=2000), path="")
    assert header(answer, b"cf-aig-step") == b"1"
    assert world.provider.timeouts[0].first_byte_s == 2.0


async def test_request_timeout_of_zero_is_none(world: World) -> None:
    await world.whole(headers={"cf-aig-request-timeout": "0"})
    assert world.provider.timeouts[0].first_byte_s == 600.0


async def test_call_that_is_too_slow_is_a_504(world: World) -> None:
    world.provider.script[0] = Said(takes_s=3.0)
    answer = await world.call(headers={"cf-aig-request-timeout": "1000"})
    assert answer.status == 504
    assert world.record.error_code == "provider_timeout"


# Dynamic routes.


def route(*elements: dict[str, Any]) -> dict[str, ActiveRoute]:
    made = ActiveRoute(
        id="r1",
        name="smart",
        version_id="v1",
        elements=({"id": "start", "type": "start", "outputs": to(next="a")}, *elements),
    )
    return {"smart": made}


def to(**targets: str) -> dict[str, Any]:
    return {name: {"elementId": target} for name, target in targets.items()}


def model(name: str, model: str, *, provider: str = "openai", **targets: str) -> dict[str, Any]:
    return {
        "id": name,
        "type": "model",
        "properties": {"provider": provider, "model": model},
        "outputs": to(**targets),
    }


END: dict[str, Any] = {"id": "end", "type": "end", "outputs": {}}
DYNAMIC = {**CHAT, "model": "dynamic/smart"}
COMPAT = "compat/chat/completions"


def with_route(world: World, *elements: dict[str, Any], **fields: Any) -> None:
    made = replace(snapshot(**fields), routes=route(*elements))
    world.snapshots.by_place[(ACCOUNT, made.gateway.id)] = made


async def test_route_asks_its_model_and_tells_which(world: World) -> None:
    with_route(world, model("a", "gpt-4.1", success="end"), END)
    answer = await world.call(DYNAMIC, path=COMPAT)
    assert header(answer, b"cf-aig-model") == b"gpt-4.1"
    assert header(answer, b"cf-aig-provider") == b"openai"
    assert world.record.routed_by == "smart@v1"


async def test_model_name_of_a_route_cannot_break_out_of_its_header(world: World) -> None:
    with_route(world, model("a", "gpt\r\nset-cookie: a", success="end"), END)
    answer = await world.call(DYNAMIC, path=COMPAT)
    assert header(answer, b"cf-aig-model") == b"gpt??set-cookie: a"


async def test_route_whose_models_all_fail_gives_the_last_ones_answer(world: World) -> None:
    world.provider.script[0] = Said(status=503, body=b'{"error": {"message": "busy"}}')
    with_route(world, model("a", "gpt-4.1", success="end", fallback="end"), END)
    answer = await world.call(DYNAMIC, path=COMPAT)
    assert answer.status == 503
    assert b"busy" in (answer.body or b"")


async def test_route_without_a_model_is_refused(world: World) -> None:
    with_route(world, {**END, "id": "a"})
    answer = await world.call(DYNAMIC, path=COMPAT)
    assert answer.status == 400
    assert world.record.error_code == "route_without_answer"


def by_plan(limit: Any = None) -> list[dict[str, Any]]:
    return [
        {
            "id": "a",
            "type": "conditional",
            "properties": {"conditions": {"metadata.plan": {"$eq": "paid"}}},
            "outputs": {"true": {"elementId": "big"}, "false": {"elementId": "small"}},
        },
        model("big", "gpt-4.1", success="end"),
        model("small", "gpt-4.1-mini", success="end"),
        END,
    ]


async def test_cached_answer_of_a_routes_big_model_is_not_given_to_who_gets_the_small_one(
    world: World,
) -> None:
    with_route(world, *by_plan(), cache_ttl_s=60)
    for plan in ("paid", "free", "paid"):
        await world.whole(
            DYNAMIC, path=COMPAT, headers={"cf-aig-metadata": json.dumps({"plan": plan})}
        )
    assert [record.model for record in world.recorder.records] == [
        "gpt-4.1",
        "gpt-4.1-mini",
        "gpt-4.1",
    ]
    assert [record.cached for record in world.recorder.records] == [False, False, True]
    hit = await world.call(DYNAMIC, path=COMPAT)
    assert header(hit, b"cf-aig-model") == b"gpt-4.1-mini"


async def test_route_that_is_over_its_rate_refuses_and_settles_everything(limited: World) -> None:
    rate = {
        "id": "a",
        "type": "rate",
        "properties": {"limit": 1, "window": 60, "limitType": "count", "key": ""},
        "outputs": to(success="m"),
    }
    with_route(limited, rate, model("m", "gpt-4.1", success="end"), END, **LIMITED)
    assert await limited.whole(DYNAMIC, path=COMPAT) == ANSWER
    assert len(limited.limiter.admissions) == 2
    assert limited.limiter.unsettled == 0
    limited.limiter.refusal = Refusal(kind="rate", bucket="key", limit=1, used=1, retry_after_s=2.0)
    answer = await limited.call(DYNAMIC, path=COMPAT)
    assert answer.status == 429
    assert limited.limiter.unsettled == 0


# Guards.


def guarded(moderator: FakeModerator | None = None, **fields: Any) -> World:
    world = make_world(moderator=moderator)
    world.set(**LIMITED, **fields)
    return world


DLP = (DlpPolicy(id="cards", action="REDACT", profiles=("financial",)),)
BLOCKED = (DlpPolicy(id="cards", action="BLOCK", profiles=("financial",)),)


def asking(text: str) -> dict[str, Any]:
    return {"model": "gpt-4.1", "messages": [{"role": "user", "content": text}]}


async def test_blocked_prompt_is_not_sent_and_takes_nothing() -> None:
    world = guarded(dlp=BLOCKED)
    answer = await world.call(asking(CARD))
    assert answer.status == 424
    assert not world.provider.requests
    (admission,) = world.limiter.admissions
    assert admission.settled == [(0, 0.0)]
    assert world.record.error_code == "dlp_request"
    assert world.record.guard_findings


async def test_redacted_prompt_is_sent_and_logged_without_the_finding() -> None:
    world = guarded(dlp=DLP)
    await world.whole(asking(CARD))
    (bodies,) = world.recorder.bodies
    assert bodies is not None
    for body in (world.provider.requests[0].body, bodies.request):
        assert CARD.encode() not in body
        assert b"messages" in body


async def test_call_that_ends_before_it_was_screened_leaves_no_request_in_the_log() -> None:
    world = guarded(dlp=DLP)
    world.callers.by_secret[KEY] = principal(allowed=frozenset())
    assert (await world.call(asking(CARD))).status == 403
    world.callers.by_secret[KEY] = principal()
    begun = world.begin(asking(CARD))
    assert isinstance(begun, Exchange)
    begun.abandon()
    assert CARD not in repr(world.recorder.bodies)


async def test_only_the_step_that_is_asked_is_screened() -> None:
    world = guarded(dlp=BLOCKED)
    steps = two_steps()
    steps[1]["query"] = asking(CARD)
    assert await world.whole(steps, path="") == ANSWER
    world.provider.script[0] = Said(status=500)
    answer = await world.call(steps, path="")
    assert answer.status == 424
    assert len(world.provider.requests) == 2
    assert world.limiter.unsettled == 0


async def test_blocked_answer_is_paid_for_all_the_same() -> None:
    world = guarded(dlp=(DlpPolicy(id="c", action="BLOCK", checks=frozenset({"RESPONSE"}),
                                   profiles=("financial",)),))  # fmt: skip
    said = json.loads(ANSWER)
    said["choices"][0]["message"]["content"] = CARD
    world.provider.script[0] = Said(body=json.dumps(said).encode())
    answer = await world.call()
    assert answer.status == 424
    assert (world.record.outcome, world.record.error_code) == ("error", "dlp_response")
    assert world.record.usage == Usage(prompt_tokens=10, completion_tokens=5)
    assert world.settled() == (15, pytest.approx(COST_USD))
    assert CARD not in repr(world.recorder.bodies)


async def test_client_that_leaves_while_its_answer_is_judged_pays_for_it() -> None:
    moderator = FakeModerator(S1=0.0)
    world = guarded(moderator, guardrails=Guardrails(response={"S1": "BLOCK"}))
    moderator.holds = asyncio.Event()
    task = asyncio.create_task(world.call())
    await settle(12)
    assert moderator.texts
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert world.record.outcome == "client_closed"
    assert world.settled() == (15, pytest.approx(COST_USD))


async def test_blocked_stream_shows_nothing_but_the_refusal() -> None:
    world = guarded(FakeModerator(S1=0.9), guardrails=Guardrails(response={"S1": "BLOCK"}))
    world.provider.script[0] = events_of(*EVENTS)
    sent = await world.whole(STREAM)
    assert b"hel" not in sent
    assert b"guardrails_response" in sent
    assert world.record.guard_findings == ("S1",)
    assert world.record.usage == Usage(prompt_tokens=10, completion_tokens=5)
    assert len(world.cache) == 0


async def test_guard_that_is_down_refuses_where_a_rule_blocks_and_not_where_it_flags() -> None:
    moderator = FakeModerator()
    moderator.is_down = True
    world = guarded(moderator, guardrails=Guardrails(prompt={"S1": "BLOCK"}))
    assert (await world.call()).status == 503
    assert not world.provider.requests
    world = guarded(moderator, guardrails=Guardrails(prompt={"S1": "FLAG"}))
    assert (await world.call()).status == 200


def unreadable() -> list[Said]:
    said = json.dumps({"choices": [{"message": {"content": CARD}}]}).encode()
    packed = [*JSON, (b"content-encoding", b"gzip")]
    return [
        Said(headers=packed, body=gzip.compress(said)),
        Said(body=said + b" " * (9 << 20)),
        Said(headers=JSON, chunks=(said, *(b" " * (1 << 20) for _ in range(9)))),
        replace(events_of(gzip.compress(said)), headers=[EVENT_TYPE, (b"content-encoding", b"br")]),
    ]


EVENT_TYPE = (b"content-type", b"text/event-stream")


@pytest.mark.parametrize("which", range(4))
async def test_answer_that_no_guard_can_read_does_not_pass_where_one_must(which: int) -> None:
    said = unreadable()[which]
    world = guarded(dlp=BLOCKED)
    world.provider.script[0] = said
    answer = await world.call()
    assert answer.status == 502
    assert world.provider.open == 0
    assert world.limiter.unsettled == 0
    world = guarded(dlp=(DlpPolicy(id="cards", action="FLAG", profiles=("financial",)),))
    world.provider.script[0] = said
    answer = await world.call()
    assert answer.status == 200
    await all_of(answer)


async def test_big_picture_passes_a_guard_of_texts() -> None:
    world = guarded(dlp=BLOCKED)
    picture = [(b"content-type", b"image/png")]
    world.provider.script[0] = Said(headers=picture, body=b"\x89PNG" * (3 << 20))
    answer = await world.call()
    assert answer.status == 200
    assert len(await all_of(answer)) == 12 << 20


async def test_step_cannot_ask_for_a_compressed_answer_that_no_guard_can_read(
    world: World,
) -> None:
    steps = two_steps()[:1]
    steps[0]["headers"] = {"accept-encoding": "gzip", "cookie": "a=b", "authorization": "sk"}
    await world.whole(steps, path="")
    sent = sent_headers(world.provider.requests[0])
    assert b"accept-encoding" not in sent
    assert b"cookie" not in sent


# This server's own models.


async def test_model_of_this_server_counts_for_itself(limited: World) -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=4)
    counted = Counted(usage=usage, deployment="model-id")
    limited.inside.script[0] = Said(body=ANSWER, counted=counted)
    await limited.whole(path="workers-ai/v1/chat/completions")
    assert (limited.record.usage, limited.record.deployment) == (usage, "model-id")
    assert not limited.record.estimated
    assert limited.settled()[0] == 7


async def test_model_of_this_server_counts_a_stream_that_its_client_left(limited: World) -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=1)
    said = events_of(*EVENTS)
    limited.inside.script[0] = replace(said, counted=Counted(usage=usage, deployment="model-id"))
    answer = await limited.call(STREAM, path="workers-ai/v1/chat/completions")
    assert answer.chunks is not None
    await anext(answer.chunks)
    await answer.chunks.aclose()
    assert (limited.record.usage, limited.record.deployment) == (usage, "model-id")
    assert not limited.record.estimated


async def test_model_of_this_server_is_never_asked_twice_at_once(world: World) -> None:
    world.set(hedge_after_ms=1)
    gate = asyncio.Event()
    world.inside.script[0] = Said(body=ANSWER, holds=gate)
    task = asyncio.create_task(world.whole(path="workers-ai/v1/chat/completions"))
    await asyncio.sleep(0.01)
    gate.set()
    await task
    assert len(world.inside.requests) == 1


# Logs.


async def test_bodies_are_kept_as_the_gateway_and_the_caller_say(world: World) -> None:
    await world.whole()
    await world.whole(headers={"cf-aig-collect-log-payload": "false"})
    world.set(logs=LogPolicy(payloads=False))
    await world.whole()
    await world.whole(headers={"cf-aig-collect-log-payload": "true"})
    assert [bodies is not None for bodies in world.recorder.bodies] == [True, False, False, True]


async def test_log_is_collected_as_the_gateway_and_the_caller_say(world: World) -> None:
    await world.whole()
    await world.whole(headers={"cf-aig-collect-log": "false"})
    assert [policy and policy.collect for policy in world.recorder.policies] == [True, False]


async def test_spend_rule_is_a_limit_too(world: World) -> None:
    world.set(spend_rules=(SpendRule(id="r", limit=1, window_s=60),))
    await world.whole()
    assert world.settled() == (15, pytest.approx(COST_USD))


async def test_answer_names_the_call(world: World) -> None:
    answer = await world.call(headers={"cf-aig-event-id": "evt-1"})
    assert isinstance(answer, GatewayAnswer)
    assert header(answer, b"cf-aig-log-id") == world.record.id.encode()
    assert header(answer, b"cf-aig-event-id") == b"evt-1"
    assert world.record.event_id == "evt-1"
