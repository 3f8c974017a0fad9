"""Rates, budgets and turns, exact whoever asks at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import pairwise
from typing import Any

import httpx2
import pytest

from tests.gateway.gateway_server import Place, chat_body

PER_CALL_USD = (120 * 0.15 + 64 * 0.6) / 1e6
"""What the stand-in's usual answer costs with `gpt-4o-mini`."""


async def _at_once(
    place: Place,
    count: int,
    model: str = "mock",
    *,
    headers: dict[str, str] | None = None,
    **more: object,
) -> list[httpx2.Response]:
    limits = httpx2.Limits(max_connections=count)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
        return await asyncio.gather(
            *(
                client.post(
                    place.url("openai/chat/completions", "gw"),
                    json=chat_body(model, **more),
                    headers=place.headers(headers),
                )
                for _ in range(count)
            )
        )


def _codes(answers: list[httpx2.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
async def test_a_rate_limit_lets_exactly_its_number_pass(place: Place, technique: str) -> None:
    place.make(
        rate_limiting_interval=600, rate_limiting_limit=20, rate_limiting_technique=technique
    )

    answers = await _at_once(place, 60)

    assert _codes(answers) == {200: 20, 429: 40}
    assert len(place.provider.requests) == 20
    left = sorted(int(a.headers["x-ratelimit-remaining-requests"]) for a in answers if a.is_success)
    assert left == list(range(20))
    refused = next(a for a in answers if a.status_code == 429)
    body = refused.json()
    assert (body["internalCode"], body["httpCode"]) == (2003, 429)
    assert "gateway" in body["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 600
    records = await asyncio.to_thread(place.records, 60)
    assert Counter(record.error_code for record in records) == {
        None: 20,
        "rate_limit_exceeded": 40,
    }


def test_a_fixed_window_opens_again(place: Place) -> None:
    place.make(rate_limiting_interval=1, rate_limiting_limit=1)
    seen = []
    for _ in range(2):
        while place.chat(gateway="gw").status_code == 429:
            time.sleep(0.02)
        seen.append(time.monotonic())

    assert seen[1] - seen[0] < 1.5


@pytest.mark.parametrize("per", ["key", "model", "provider", "metadata.user"])
def test_rates_count_by_what_they_are_told_to(place: Place, per: str) -> None:
    place.make(limits=[{"limit": 2, "interval": 600, "per": per}])
    secrets = [place.server.process.make_key(account=place.account)[1] for _ in range(2)]

    def ask(which: int) -> int:
        headers = {
            "cf-aig-authorization": f"Bearer {secrets[which if per == 'key' else 0]}",
            "cf-aig-metadata": f'{{"user": "u{which if per == "metadata.user" else 0}"}}',
        }
        path = "groq" if per == "provider" and which else "openai"
        model = f"mock-{which if per == 'model' else 0}"
        answer = place.post(
            f"{path}/chat/completions", chat_body(model), gateway="gw", headers=headers
        )
        return answer.status_code

    assert [ask(which) for which in (0, 0, 0, 1, 1, 1, 0)] == [200, 200, 429, 200, 200, 429, 429]


def _spend(limit: float, **more: Any) -> dict[str, Any]:
    rule = {"id": "budget", "limit": limit, "limitType": "cost", "window": 86_400, **more}
    return {"enabled": True, "rules": [rule]}


async def test_a_budget_is_never_overdrawn_however_many_ask_at_once(place: Place) -> None:
    """Each call sets aside its most; what it did not use is given back to the next."""
    worst_usd = 1024 * 0.6 / 1e6
    place.make(spend_limits=_spend(10.4 * worst_usd))

    answers = await _at_once(place, 60, "gpt-4o-mini")
    passed = _codes(answers)[200]

    assert _codes(answers) == {200: passed, 429: 60 - passed}
    assert 9 <= passed <= 60
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.json()["internalCode"] == 2041
    assert "budget" in refused.json()["message"]
    assert int(refused.headers["retry-after"]) >= 1
    # One after the other, now that all is settled: until what is left is less than one call's most.
    asked = 61
    while (answer := await asyncio.to_thread(place.chat, "gpt-4o-mini", gateway="gw")).is_success:
        passed += 1
        asked += 1
        spent = passed * PER_CALL_USD
        left = float(answer.headers["cf-aig-budget-remaining"])
        assert left >= 0
        assert left <= 10.4 * worst_usd - (spent - PER_CALL_USD)
    records = await asyncio.to_thread(place.records, asked)
    spent = sum(record.cost_usd for record in records)
    assert spent == pytest.approx(passed * PER_CALL_USD)
    assert spent <= 10.4 * worst_usd
    assert spent > 9.3 * worst_usd


async def test_a_token_budget_counts_what_was_used(place: Place) -> None:
    place.make(spend_limits=_spend(2000, limitType="tokens"))

    left = []
    for _ in range(4):
        answer = await asyncio.to_thread(
            place.chat, "mock", gateway="gw", max_tokens=100, stream=False
        )
        left.append(int(answer.headers["cf-aig-budget-remaining"]))

    assert [a - b for a, b in pairwise(left)] == [184, 184, 184]
    assert (await asyncio.to_thread(place.chat, "mock", gateway="gw", max_tokens=5000)).is_error


def test_streams_that_break_and_callers_that_leave_settle_their_budget(place: Place) -> None:
    place.make(spend_limits=_spend(10_000, limitType="tokens"))

    place.chat("mock-k3-t30", gateway="gw", stream=True)
    place.chat("mock-x500", gateway="gw")
    with pytest.raises(httpx2.ReadTimeout):
        place.server.http.post(
            place.url("openai/chat/completions", "gw"),
            json=chat_body("mock-h"),
            headers=place.headers(),
            timeout=0.2,
        )
    place.records(3)
    used = sum(
        record.usage.prompt_tokens + record.usage.completion_tokens for record in place.records(3)
    )
    answer = place.chat("mock", gateway="gw", max_tokens=100)

    reserved = 10_000 - used - int(answer.headers["cf-aig-budget-remaining"])
    assert 100 < reserved < 200  # this call's own most, and nothing else


def test_a_cache_hit_costs_nothing_of_the_budget(place: Place) -> None:
    place.make(spend_limits=_spend(1.0), cache_ttl=60)
    left = [
        float(place.chat("gpt-4o-mini", gateway="gw").headers["cf-aig-budget-remaining"])
        for _ in range(4)
    ]

    assert left[1] == left[2] == left[3]


def test_a_budget_may_be_one_for_each_metadata_value(place: Place) -> None:
    place.make(
        spend_limits=_spend(150, limitType="tokens", metadata={"user": {"mode": "partition"}})
    )

    def ask(user: str) -> int:
        headers = {"cf-aig-metadata": f'{{"user": "{user}"}}'}
        answer = place.chat("mock-p60-t40", gateway="gw", headers=headers, max_tokens=40)
        return answer.status_code

    assert [ask(user) for user in "aabba"] == [200, 429, 200, 429, 429]


async def test_no_more_than_the_limit_run_at_once_and_the_rest_wait(place: Place) -> None:
    place.make(concurrency={"limit": 4, "queue": 100, "wait_s": 30})

    running, most = 0, 0
    answers = asyncio.create_task(_at_once(place, 24, "mock-d100"))
    while not answers.done():
        counters = place.provider.counters
        running = counters.requests - counters.served
        most = max(most, running)
        await asyncio.sleep(0.005)

    assert _codes(await answers) == {200: 24}
    assert most == 4


async def test_a_stream_keeps_its_turn_until_it_ends(place: Place) -> None:
    place.make(concurrency={"limit": 1, "queue": 10, "wait_s": 30})

    answers = await _at_once(place, 4, "mock-t20-c10", stream=True)

    assert _codes(answers) == {200: 4}
    took_s = sorted(answer.elapsed.total_seconds() for answer in answers)
    assert took_s[3] - took_s[0] > 0.45, "three streams of 0.2 s each, one after the other"


async def test_a_full_queue_and_a_long_wait_are_refused(place: Place) -> None:
    place.make(concurrency={"limit": 1, "queue": 3, "wait_s": 0.3})

    answers = await _at_once(place, 10, "mock-d1000")

    assert _codes(answers)[200] == 1
    refused = [a for a in answers if a.status_code == 429]
    assert len(refused) == 9
    assert all(a.json()["internalCode"] == 2003 for a in refused)
    assert all("retry-after" in a.headers for a in refused)


async def test_a_key_that_floods_does_not_starve_another(place: Place) -> None:
    process = place.server.process
    _, loud = await asyncio.to_thread(process.make_key, account=place.account)
    _, quiet = await asyncio.to_thread(process.make_key, account=place.account)
    place.make(concurrency={"limit": 2, "queue": 200, "wait_s": 60})

    def auth(secret: str) -> dict[str, str]:
        return {"cf-aig-authorization": f"Bearer {secret}"}

    flood = asyncio.create_task(_at_once(place, 60, "mock-d50", headers=auth(loud)))
    await asyncio.sleep(0.4)
    began_s = time.monotonic()
    answers = await _at_once(place, 4, "mock-d50", headers=auth(quiet))
    quiet_s = time.monotonic() - began_s
    await flood

    assert _codes(answers) == {200: 4}
    assert quiet_s < 0.7, "alternating turns: about 8 calls' time, and not 50"


async def test_a_waiting_caller_that_leaves_gives_up_its_place(place: Place) -> None:
    place.make(concurrency={"limit": 1, "queue": 1, "wait_s": 30})
    chat, headers = place.url("openai/chat/completions", "gw"), place.headers()
    async with httpx2.AsyncClient(timeout=30) as client:

        def ask(model: str) -> asyncio.Task[httpx2.Response]:
            return asyncio.create_task(client.post(chat, json=chat_body(model), headers=headers))

        first = ask("mock-d600")
        await asyncio.sleep(0.15)
        leaver = ask("mock")
        await asyncio.sleep(0.15)
        leaver.cancel()
        await asyncio.sleep(0.1)
        third = ask("mock-t3")
        assert [(await first).status_code, (await third).status_code] == [200, 200]

    assert len(place.provider.requests) == 2
    records = await asyncio.to_thread(place.records, 3)
    assert Counter(record.status for record in records) == {200: 2, 499: 1}


def test_stored_credential_has_a_limit_of_its_own(place: Place) -> None:
    place.make("gw")
    place.keep_credential("sk-narrow", rate_limit=2, rate_limit_period=3600)
    place.keep_credential("sk-wide", alias="wide", default=False)

    def ask(**headers: str) -> int:
        answer = place.chat(gateway="gw", headers={"authorization": "Bearer none", **headers})
        return answer.status_code

    assert [ask() for _ in range(3)] == [200, 200, 429]
    assert ask(**{"cf-aig-byok-alias": "wide"}) == 200
    assert ask(**{"cf-aig-byok-alias": "default,wide"}) == 200
    shown = [request.header("authorization") for request in place.provider.requests]
    assert shown == ["Bearer sk-narrow"] * 2 + ["Bearer sk-wide"] * 2
