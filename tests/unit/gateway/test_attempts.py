from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from openworks.core.errors import ProviderError
from openworks.gateway.attempts import Asker, Reply
from openworks.gateway.options import Options
from openworks.gateway.providers.base import Credential, ServiceAccount
from openworks.gateway.providers.peek import Peek
from openworks.gateway.providers.registry import Providers
from openworks.gateway.resilience.backoff import RetryBudgets
from openworks.gateway.resilience.breaker import Breakers
from openworks.gateway.resilience.choice import Scoreboard
from openworks.gateway.steps import Step
from openworks.ports.gateways import RetryPolicy
from openworks.ports.upstream import Timeouts
from tests.fakes import FakeClock, FakeTransport, Said, events_of
from tests.unit.gateway.exchange_world import ANSWER, EVENTS, FakeTokens, lost, settle

PROVIDERS = Providers()
ONCE = RetryPolicy()
THRICE = RetryPolicy(max_attempts=3, delay_ms=100, backoff="constant")
FIRST = Credential(digest="first", headers=((b"authorization", b"Bearer 1"),))
SECOND = Credential(digest="second", headers=((b"authorization", b"Bearer 2"),))


@dataclass
class Place:
    clock: FakeClock
    provider: FakeTransport
    tokens: FakeTokens
    breakers: Breakers
    scores: Scoreboard[tuple[str, str]]
    asker: Asker
    attempts: int = 0

    def say(self, *script: Said) -> None:
        self.provider.script.clear()
        self.provider.script.extend(script)

    async def ask(
        self,
        credentials: Sequence[Credential] = (),
        retry: RetryPolicy = ONCE,
        *,
        step: Step | None = None,
        timeouts: Timeouts | None = None,
        **options: Any,
    ) -> Reply:
        return await self.asker.ask(
            step or make_step(),
            credentials,
            retry,
            timeouts or Timeouts(),
            patient=Timeouts(),
            on_attempt=self._count,
            **options,
        )

    def _count(self) -> None:
        self.attempts += 1

    def state(self, credential: Credential | None = None) -> str:
        digest = b"" if credential is None else credential.digest.encode()
        return self.breakers.of(("openai", digest, "gpt-4.1")).state


def make_step(*, stream: bool = False, slug: str = "openai", **options: Any) -> Step:
    provider = PROVIDERS.get(slug)
    assert provider is not None
    return Step(
        provider=provider,
        endpoint="chat/completions",
        query=b"",
        method=b"POST",
        headers=[(b"content-type", b"application/json")],
        body=b"{}",
        peek=Peek("gpt-4.1", stream, None, 10),
        options=Options(**options),
    )


@pytest.fixture
def place() -> Place:
    clock = FakeClock()
    provider, tokens, breakers = FakeTransport(clock), FakeTokens(), Breakers(clock)
    scores: Scoreboard[tuple[str, str]] = Scoreboard(clock)
    provider.script.append(Said(body=ANSWER))
    asker = Asker(
        transport=provider,
        tokens=tokens,
        breakers=breakers,
        budgets=RetryBudgets(clock),
        scores=scores,
        clock=clock,
        rng=Random(5),
    )
    return Place(clock, provider, tokens, breakers, scores, asker)


async def test_good_answer_is_read_whole(place: Place) -> None:
    reply = await place.ask()
    assert (reply.status, reply.body, reply.chunks) == (200, ANSWER, None)
    assert place.attempts == 1


async def test_what_may_pass_is_asked_again_after_a_pause(place: Place) -> None:
    place.say(Said(status=503), Said(fails=lost()), Said(body=ANSWER))
    reply = await place.ask(retry=THRICE)
    assert reply.body == ANSWER
    assert place.attempts == 3
    assert all(0 <= slept <= 0.1 for slept in place.clock.slept_s)


async def test_what_stays_is_not_asked_again(place: Place) -> None:
    place.say(Said(status=401), Said(body=ANSWER))
    assert (await place.ask(retry=THRICE)).status == 401
    assert place.attempts == 1


async def test_retry_after_is_waited_out_and_one_of_hours_is_not(place: Place) -> None:
    place.say(Said(status=429, headers=[(b"retry-after", b"3")]), Said(body=ANSWER))
    await place.ask(retry=THRICE)
    assert 3 <= place.clock.slept_s[0] < 4
    place.say(Said(status=429, headers=[(b"retry-after", b"7200")]), Said(body=ANSWER))
    assert (await place.ask(retry=THRICE)).status == 429


async def test_last_retry_waits_as_long_as_it_takes(place: Place) -> None:
    place.say(Said(takes_s=30.0))
    patient = Timeouts(first_byte_s=1.0)
    reply = await place.ask(retry=THRICE, timeouts=patient)
    assert reply.status == 200
    assert [each.first_byte_s for each in place.provider.timeouts[:2]] == [1.0, 1.0]
    assert place.attempts == 3


@pytest.mark.parametrize("has_fallback", [True, False])
async def test_timeout_holds_for_an_only_attempt_and_where_another_step_waits(
    place: Place, has_fallback: bool
) -> None:
    place.say(Said(takes_s=30.0))
    retry = THRICE if has_fallback else ONCE
    reply = await place.ask(
        retry=retry, timeouts=Timeouts(first_byte_s=1.0), has_fallback=has_fallback
    )
    assert reply.error is not None
    assert reply.error.kind == "timeout"


async def test_retry_takes_another_credential(place: Place) -> None:
    place.say(Said(status=500), Said(body=ANSWER))
    await place.ask([FIRST, SECOND], THRICE)
    used = {dict(each.headers)[b"authorization"] for each in place.provider.requests}
    assert used == {b"Bearer 1", b"Bearer 2"}


async def test_session_stays_with_one_credential(place: Place) -> None:
    step = make_step(session_id="ses_1")
    for _ in range(5):
        await place.ask([FIRST, SECOND], step=step)
    assert len({dict(each.headers)[b"authorization"] for each in place.provider.requests}) == 1


async def test_every_attempt_is_told_to_the_breaker(place: Place) -> None:
    place.say(Said(fails=lost()))
    for _ in range(10):
        await place.ask()
    assert place.state() == "open"
    assert place.asker.is_open(make_step(), ())


async def test_faults_of_the_caller_do_not_open_the_breaker(place: Place) -> None:
    place.say(Said(status=400))
    for _ in range(20):
        await place.ask()
    assert place.state() == "closed"


async def test_cancelled_attempt_gives_its_ticket_and_its_place_back(place: Place) -> None:
    place.say(Said(hangs=True))
    task = asyncio.create_task(place.ask([FIRST]))
    await settle()
    assert place.scores._marks[("openai", "first")].pending == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.scores._marks[("openai", "first")].pending == 0
    assert place.provider.cancelled == 1


async def test_probe_whose_client_left_lets_another_probe_start(place: Place) -> None:
    place.say(Said(fails=lost()))
    for _ in range(10):
        await place.ask()
    place.clock.advance(6)
    place.say(Said(hangs=True))
    task = asyncio.create_task(place.ask())
    await settle()
    assert place.asker.is_open(make_step(), ())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not place.asker.is_open(make_step(), ())


async def test_illness_of_one_credential_is_nothing_to_another(place: Place) -> None:
    place.say(Said(fails=lost()))
    for _ in range(10):
        await place.ask([FIRST])
    assert place.asker.is_open(make_step(), [FIRST])
    assert not place.asker.is_open(make_step(), [SECOND])
    assert not place.asker.is_open(make_step(), [FIRST, SECOND])


async def test_stream_flows_from_its_head_when_there_is_nowhere_else_to_go(place: Place) -> None:
    place.say(events_of(*EVENTS))
    reply = await place.ask(step=make_step(stream=True))
    assert reply.is_events
    assert not reply.held
    assert place.provider.responses[0].num_read == 0


async def test_stream_is_held_until_content_while_there_is_somewhere_else_to_go(
    place: Place,
) -> None:
    place.say(events_of(b'{"choices":[{"delta":{"role":"assistant"}}]}', *EVENTS))
    reply = await place.ask(step=make_step(stream=True), has_fallback=True)
    assert len(reply.held) == 2


async def test_stream_that_breaks_before_content_is_asked_for_again(place: Place) -> None:
    place.say(events_of(breaks=lost()), events_of(*EVENTS))
    reply = await place.ask(step=make_step(stream=True), retry=THRICE)
    assert reply.is_good
    assert place.attempts == 2


async def test_client_that_leaves_while_a_stream_is_held_ends_it(place: Place) -> None:
    place.say(replace(events_of(*EVENTS), stalls_after=0))
    task = asyncio.create_task(place.ask(step=make_step(stream=True), has_fallback=True))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.provider.open == 0


async def test_answer_that_breaks_off_while_it_is_read_counts_as_failed(place: Place) -> None:
    place.say(Said(body=ANSWER, breaks=lost()), Said(body=ANSWER))
    reply = await place.ask(retry=THRICE)
    assert reply.body == ANSWER
    assert place.attempts == 2


async def test_error_answer_that_flows_is_let_go_before_the_next_attempt(place: Place) -> None:
    huge = (b"x" * (1 << 20),) * 12
    place.say(Said(status=500, chunks=huge), Said(body=ANSWER))
    await place.ask(retry=THRICE)
    assert place.provider.open == 0


async def test_client_that_leaves_while_an_answer_of_unknown_length_comes_ends_it(
    place: Place,
) -> None:
    place.say(Said(chunks=(b"a", b"b"), stalls_after=1))
    task = asyncio.create_task(place.ask())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.provider.open == 0


async def test_credential_without_a_token_is_a_failed_step_and_not_a_failed_call(
    place: Place,
) -> None:
    google = Credential(
        digest="g", google=ServiceAccount(client_email="a@b.c", private_key_pem="-")
    )
    place.tokens.error = ProviderError("Google gives no token.", code="no_token")
    reply = await place.ask([google], THRICE, has_fallback=True)
    assert reply.error is not None
    assert reply.error.code == "no_token"
    assert place.attempts == 0
    assert not place.provider.requests


# Asking twice.


async def test_slow_head_is_hedged_and_the_loser_is_cancelled(place: Place) -> None:
    place.say(Said(hangs=True), Said(body=ANSWER))
    reply = await place.ask(hedge_s=0.001)
    await settle()
    assert reply.body == ANSWER
    assert place.attempts == 2
    assert place.provider.cancelled == 1


async def test_hedge_whose_first_question_answers_after_all_leaves_nothing_open(
    place: Place,
) -> None:
    gate = asyncio.Event()
    place.say(Said(body=ANSWER, holds=gate))
    task = asyncio.create_task(place.ask(hedge_s=0.001))
    await asyncio.sleep(0.01)
    gate.set()  # both answer in the same moment
    reply = await task
    await settle()
    assert reply.body == ANSWER
    assert place.attempts == 2
    assert place.provider.open == 0


async def test_hedged_call_that_is_cancelled_leaves_no_question_behind(place: Place) -> None:
    place.say(Said(hangs=True))
    task = asyncio.create_task(place.ask(hedge_s=0.001))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert place.provider.cancelled == 2
    assert len(asyncio.all_tasks()) == 1


async def test_hedged_call_fails_only_when_both_questions_do(place: Place) -> None:
    gate = asyncio.Event()
    place.say(Said(fails=lost(), holds=gate), Said(body=ANSWER))
    reply = await place.ask(hedge_s=0.001)
    assert reply.body == ANSWER
    place.say(Said(fails=lost()))
    assert (await place.ask(hedge_s=10.0)).error is not None


async def test_caller_that_leaves_as_a_loser_is_let_go_is_not_kept(place: Place) -> None:
    """A cancellation must not be taken for the loser's."""
    place.say(Said(hangs=True), replace(events_of(*EVENTS), stalls_after=0))
    step = make_step(stream=True)
    task = asyncio.create_task(place.ask(step=step, hedge_s=0.001, has_fallback=True))
    for _ in range(1000):
        await asyncio.sleep(0)
        if place.provider.responses:
            break
        await asyncio.sleep(0.0005)
    task.cancel()  # the winner has its head; the loser is on its way out
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert place.provider.open == 0
