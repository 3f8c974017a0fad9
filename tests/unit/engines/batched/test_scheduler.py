from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import (
    ContextLengthExceededError,
    EngineOverloadedError,
    InvalidRequestError,
    ModelUnavailableError,
)
from openworks.engines.batched.sequence import AdapterKey, SequenceState
from tests.unit.engines.batched.loop import Loop, answer, right_answer

X, Y, Z = AdapterKey("x"), AdapterKey("y"), AdapterKey("z")


def prompt_of(length: int, salt: int = 0) -> list[int]:
    return [(salt + position) % 97 for position in range(length)]


def test_request_gets_the_answer_of_the_model() -> None:
    loop = Loop()
    request = loop.ask(prompt_of(30), max_tokens=9)
    loop.run()
    assert loop.answers[request] == right_answer(request)


def test_long_prompt_is_read_in_chunks_and_only_the_last_gives_a_token() -> None:
    loop = Loop(max_step_tokens=16)
    loop.ask(prompt_of(40))
    pieces = []
    for _ in range(3):
        plan = loop.step()
        assert plan is not None
        pieces += [
            (work.piece.start, len(work.piece.token_ids), work.piece.num_logits, work.is_last)
            for work in plan.work
        ]
    assert pieces == [(0, 16, 0, False), (16, 16, 0, False), (32, 8, 1, True)]


def test_running_answers_get_their_token_in_every_step_while_a_long_prompt_is_read() -> None:
    loop = Loop(max_step_tokens=8)
    talking = [loop.ask([salt], max_tokens=30, account=str(salt)) for salt in range(3)]
    loop.step()
    loop.ask(prompt_of(60))
    for num_tokens in range(2, 12):
        plan = loop.step()
        assert plan is not None
        assert sum(len(work.piece.token_ids) for work in plan.work) <= 8
        assert [seq.num_generated for seq in talking] == [num_tokens] * 3


def test_prompts_that_nobody_waits_for_share_a_small_part_of_each_step() -> None:
    loop = Loop(max_step_tokens=16, max_background_tokens=5)
    idle = [
        loop.make(prompt_of(12, salt), is_background=True, account=str(salt)) for salt in (1, 2)
    ]
    for sequence in idle:
        loop.add(sequence)
    loop.ask(prompt_of(30))
    for number in range(3):
        plan = loop.step()
        assert plan is not None
        read = [work for work in plan.work if work.sequence.is_background]
        assert sum(len(work.piece.token_ids) for work in read) <= 5
        if not number:
            assert sum(len(work.piece.token_ids) for work in plan.work) == 16
    loop.run()
    for sequence in idle:
        assert loop.answers[sequence] == right_answer(sequence)


def test_several_tokens_can_be_added_at_once() -> None:
    loop = Loop(num_blocks=8, block_tokens=4, max_step_tokens=3)
    loop.ask([9] * 6, max_tokens=15)
    forced = loop.ask([1, 2], max_tokens=17)
    while not forced.num_generated:
        loop.step()
    for token in range(12):
        loop.scheduler.append(forced, token)
    loop.run()
    text = forced.token_ids
    assert text[3:15] == list(range(12))
    assert text[15:] == answer(None, text[:15], 4)


def test_same_prompt_is_not_computed_again() -> None:
    loop = Loop(block_tokens=4)
    first = loop.ask(prompt_of(18))
    loop.run()
    second = loop.ask(prompt_of(18))
    loop.run()
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 16)
    assert loop.answers[first] == loop.answers[second]
    assert loop.scheduler.usage.num_hit_tokens == 16


def test_generated_tokens_can_be_shared_too() -> None:
    loop = Loop(block_tokens=4)
    first = loop.ask(prompt_of(10), max_tokens=10)
    loop.run()
    second = loop.ask([*first.token_ids, 1])
    loop.run()
    assert second.num_cached_tokens == 16  # the last generated token was never computed


def test_one_prompt_token_is_always_computed() -> None:
    loop = Loop(block_tokens=4)
    loop.ask(prompt_of(16))
    loop.run()
    second = loop.ask(prompt_of(16))
    loop.run()
    assert second.num_cached_tokens == 12
    assert loop.answers[second] == right_answer(second)


def test_adapters_and_their_generations_do_not_share_blocks() -> None:
    loop = Loop(block_tokens=4)
    keys = [None, X, Y, AdapterKey("x", "1")]
    for adapter in keys:
        request = loop.ask(prompt_of(20), adapter=adapter)
        loop.run()
        assert request.num_cached_tokens == 0


def test_prompt_whose_logits_are_wanted_is_computed_in_full() -> None:
    loop = Loop(block_tokens=4, max_step_tokens=16)
    loop.ask(prompt_of(20))
    loop.run()
    curious = loop.make(prompt_of(20), wants_prompt_logprobs=True)
    loop.add(curious)
    logits = []
    while curious in loop.alive:
        plan = loop.step()
        assert plan is not None
        logits.append(plan.work[0].piece.num_logits)
    assert curious.num_cached_tokens == 0
    assert logits == [16, 4, 1, 1]


def test_logits_of_a_prompt_come_once_although_it_is_computed_twice() -> None:
    loop = Loop(num_blocks=8, block_tokens=4, max_step_tokens=3)
    loop.ask(prompt_of(6), max_tokens=12)
    for _ in range(3):
        loop.step()
    curious = loop.make(prompt_of(20, salt=40), max_tokens=3, wants_prompt_logprobs=True)
    loop.add(curious)
    num_logits = 0
    while loop.alive:
        plan = loop.step()
        assert plan is not None
        num_logits += sum(work.piece.num_logits for work in plan.work if work.sequence is curious)
    assert curious.num_preemptions == 1
    assert num_logits == 20 + 2


@pytest.mark.parametrize("length", [1, 4, 5, 18, 20, 21])
def test_answers_to_one_prompt_compute_it_once(length: int) -> None:
    loop = Loop(block_tokens=4, max_running=3)
    group = [loop.make(prompt_of(length), max_tokens=4 + n) for n in range(5)]
    loop.add(*group)
    num_tokens = 0
    while loop.alive:
        plan = loop.step()
        assert plan is not None
        num_tokens += sum(len(work.piece.token_ids) for work in plan.work)
    assert num_tokens <= length + 4 + sum(seq.max_tokens - 1 for seq in group) + 4 * 2
    for seq in group:
        assert loop.answers[seq] == right_answer(seq)
    assert loop.scheduler.usage.num_used_blocks == 0


def test_answers_to_one_prompt_share_its_blocks() -> None:
    loop = Loop(block_tokens=4, max_running=8)
    group = [loop.make(prompt_of(30), max_tokens=4) for _ in range(4)]
    loop.add(*group)
    for _ in range(4):
        loop.step()
    assert len(loop.running()) == 4
    assert loop.scheduler.usage.num_used_blocks <= 7 + 4 * 2


def test_next_answer_takes_over_when_the_first_is_cancelled() -> None:
    loop = Loop(max_step_tokens=8)
    group = [loop.make(prompt_of(30)) for _ in range(3)]
    loop.add(*group)
    loop.step()
    loop.cancel(group[0])
    loop.run()
    assert all(loop.answers[seq] == right_answer(seq) for seq in group[1:])


def test_answer_cancelled_while_the_first_reads_the_prompt_changes_nothing_for_the_others() -> None:
    loop = Loop(max_step_tokens=16)
    group = [loop.make(prompt_of(30)) for _ in range(4)]
    loop.add(*group)
    loop.step()
    loop.cancel(group[2])
    plan = loop.step()
    assert plan is not None
    assert [work.sequence for work in plan.work] == [group[0]]
    loop.run()
    assert set(loop.answers) == {group[0], group[1], group[3]}


def test_full_queue_refuses_with_a_time_to_come_back() -> None:
    loop = Loop(max_waiting=2)
    loop.ask([1])
    loop.ask([1])
    with pytest.raises(EngineOverloadedError, match="2 requests are waiting") as refused:
        loop.ask([1])
    assert refused.value.retry_after_s is not None
    loop.step()
    loop.ask([1])
    loop.run()
    assert len(loop.answers) == 3


def test_prompt_longer_than_the_cache_is_refused() -> None:
    loop = Loop(num_blocks=4, block_tokens=4)
    loop.ask(prompt_of(16), max_tokens=1)
    with pytest.raises(ContextLengthExceededError, match=r"17 tokens; the cache holds 16\."):
        loop.ask(prompt_of(17))


def test_answer_that_outgrows_the_cache_fails_and_others_go_on() -> None:
    loop = Loop(num_blocks=4, block_tokens=4)
    long = loop.ask(prompt_of(10), max_tokens=100)
    short = loop.ask([5], max_tokens=5)
    loop.run()
    assert isinstance(loop.errors[long], ContextLengthExceededError)
    assert loop.answers[short] == right_answer(short)


def test_last_admitted_gives_way_when_blocks_run_out_and_goes_on_where_it_was() -> None:
    loop = Loop(num_blocks=8, block_tokens=4)
    old = loop.ask(prompt_of(6), max_tokens=20)
    loop.step()
    new = loop.ask(prompt_of(6, salt=50), max_tokens=20)
    loop.run()
    assert (old.num_preemptions, new.num_preemptions) == (0, 1)
    for seq in (old, new):
        assert loop.answers[seq] == right_answer(seq)


def test_preempted_answers_come_back_in_the_order_in_which_they_began() -> None:
    loop = Loop(num_blocks=8, block_tokens=4)
    first, second, third = (
        loop.ask(prompt_of(6, salt=salt), max_tokens=20, account=str(salt)) for salt in (0, 30, 60)
    )
    while loop.alive:
        loop.step()
        if third.state is SequenceState.RUNNING:
            assert second.state is not SequenceState.PREEMPTED
    assert [seq.num_preemptions > 0 for seq in (first, second, third)] == [False, True, True]
    assert list(loop.answers) == [first, second, third]


def test_prompt_waits_until_running_answers_have_room_to_grow() -> None:
    loop = Loop(num_blocks=8, block_tokens=4, max_step_tokens=5)
    old = loop.ask(prompt_of(6), max_tokens=8)
    loop.step()
    loop.step()
    new = loop.ask(prompt_of(24, salt=50), max_tokens=1)
    loop.run()
    assert (old.num_preemptions, new.num_preemptions) == (0, 0)
    assert loop.answers[new] == right_answer(new)


def test_nothing_new_starts_while_a_preempted_answer_waits() -> None:
    loop = Loop(num_blocks=8, block_tokens=4)
    loop.ask(prompt_of(6), max_tokens=20)
    loop.step()
    preempted = loop.ask(prompt_of(6, salt=50), max_tokens=20)
    while preempted.state is not SequenceState.PREEMPTED:
        loop.step()
    newcomer = loop.ask([1], account="b")
    while preempted.state is SequenceState.PREEMPTED:
        assert newcomer.state is SequenceState.WAITING
        loop.step()
    loop.run()


def test_preempted_answer_keeps_its_adapter() -> None:
    loop = Loop(num_blocks=8, block_tokens=4, num_slots=1)
    loop.ask(prompt_of(6), max_tokens=20)
    loop.step()
    preempted = loop.ask(prompt_of(6, salt=50), max_tokens=20, adapter=X)
    loop.load()
    while preempted.state is not SequenceState.PREEMPTED:
        loop.step()
    assert preempted.slot == 0
    loop.run()
    assert loop.answers[preempted] == right_answer(preempted)


def test_cancelled_request_is_in_no_later_step_and_holds_nothing() -> None:
    loop = Loop()
    request = loop.ask(prompt_of(30), max_tokens=50)
    loop.step()
    loop.cancel(request)
    assert loop.step() is None
    assert loop.scheduler.usage.num_used_blocks == 0


def test_request_cancelled_during_a_step_gets_no_token_of_it() -> None:
    loop = Loop()
    request = loop.ask([1, 2, 3])
    plan = loop.plan()
    assert plan is not None
    loop.carry_out(plan)
    loop.cancel(request)
    loop.take_tokens(plan)
    loop.scheduler.append(request, 7)
    assert request.token_ids == [1, 2, 3]


def test_dropped_plan_comes_again() -> None:
    loop = Loop(max_running=8)
    group = [loop.make(prompt_of(6), adapter=X) for _ in range(3)]
    loop.add(*group)
    loop.load()
    for _ in range(8):
        dropped, plan = loop.plan(), loop.plan()
        assert dropped is not None
        assert plan is not None
        assert dropped.step.copies == plan.step.copies
        assert dropped.slot_changes == plan.slot_changes
        loop.carry_out(plan)
        loop.take_tokens(plan)
        if not loop.alive:
            break
    assert all(loop.answers[seq] == right_answer(seq) for seq in group)


def test_requests_pass_one_whose_adapter_is_being_loaded() -> None:
    loop = Loop(max_running=1)
    waiting = loop.ask([1], adapter=X)
    others = [loop.ask([2]), loop.ask([2], adapter=None, account="b")]
    while set(others) - set(loop.answers):
        assert loop.step() is not None
    assert waiting.state is SequenceState.WAITING
    loop.load()
    loop.run()
    assert loop.answers[waiting] == right_answer(waiting)


def test_adapters_of_many_requests_are_loaded_once_and_run_in_one_step() -> None:
    loop = Loop(max_running=8, num_slots=2)
    for salt in range(3):
        loop.ask([salt], adapter=X)
        loop.ask([salt], adapter=Y, account="b")
    loop.load()
    plan = loop.step()
    assert plan is not None
    assert {work.sequence.adapter for work in plan.work} == {X, Y}
    assert sorted(loop.loads, key=lambda key: key.id) == [X, Y]


def test_failed_load_fails_who_waits_and_the_next_request_tries_again() -> None:
    loop = Loop()
    group = [loop.make([1], adapter=X) for _ in range(2)]
    loop.add(*group)
    other = loop.ask([1], adapter=Y)
    loop.step()
    loop.fail_load(X)
    assert all(isinstance(loop.errors[seq], ModelUnavailableError) for seq in group)
    again = loop.ask([1], adapter=X)
    loop.run()
    assert loop.answers[again] == right_answer(again)
    assert loop.answers[other] == right_answer(other)


def test_adapter_that_cannot_be_put_into_its_slot_fails_its_requests_alone() -> None:
    loop = Loop(max_running=4)
    broken = loop.ask([1], adapter=X)
    sound = loop.ask([1], adapter=Y, account="b")
    loop.load()
    assert loop.plan() is not None
    loop.fail_adapter(X)
    loop.run()
    assert isinstance(loop.errors[broken], ModelUnavailableError)
    assert loop.answers[sound] == right_answer(sound)


def test_adapter_larger_than_all_memory_fails_its_requests() -> None:
    loop = Loop(host_bytes=10, size_of=lambda key: 11)
    request = loop.ask([1], adapter=X)
    loop.run()
    assert isinstance(loop.errors[request], InvalidRequestError)
    assert "'x' takes 11 bytes" in loop.errors[request].message


def test_adapter_is_refused_where_there_are_no_slots() -> None:
    loop = Loop(num_slots=0)
    with pytest.raises(InvalidRequestError, match="takes no adapters, got 'x'"):
        loop.ask([1], adapter=X)


def test_forgotten_adapter_stays_until_its_last_request_ends() -> None:
    loop = Loop()
    request = loop.ask(prompt_of(9), adapter=X, max_tokens=5)
    loop.load()
    loop.step()
    loop.scheduler.forget_adapter(X)
    loop.run()
    assert loop.answers[request] == right_answer(request)
    assert loop.scheduler.places() == []
    plan = loop.step()
    assert plan is not None
    assert [(change.slot, change.key) for change in plan.slot_changes] == [(0, None)]
    assert loop.scheduler.usage.num_cached_blocks == 0
    assert loop.step() is None


def test_waiting_adapter_gets_a_slot_although_another_is_always_in_use() -> None:
    loop = Loop(num_slots=1, max_running=2, max_passes=4)
    loop.ask([1], adapter=X, max_tokens=6)
    loop.load()
    loop.step()
    loop.ask([1], adapter=X, max_tokens=6, account="b")
    starved = loop.ask([1], adapter=Y, account="c")
    loop.load()
    for salt in range(100):
        loop.ask([salt], adapter=X, max_tokens=6)
        for _ in range(3):
            loop.step()
            loop.load()
        if starved in loop.answers:
            break
    assert salt < 10
    loop.run()


def test_request_ends_although_new_accounts_come_without_end() -> None:
    loop = Loop(max_running=2, max_step_tokens=4)
    patient = loop.ask(prompt_of(40))
    for number in range(400):
        loop.ask(prompt_of(4, salt=number), account=str(number), max_tokens=1)
        loop.step()
        if patient in loop.answers:
            break
    assert patient in loop.answers


def test_short_prompt_of_one_account_does_not_wait_for_the_long_one_of_another() -> None:
    loop = Loop(max_step_tokens=8)
    loop.ask(prompt_of(200))
    loop.step()
    short = loop.ask(prompt_of(8, salt=9), account="b", max_tokens=1)
    loop.step()
    loop.step()
    assert short in loop.answers


def test_nobody_owes_anything_after_a_pause() -> None:
    loop = Loop(max_running=2)
    loop.ask([1], account="a", max_tokens=60)
    loop.step()
    loop.ask([2], account="b")
    loop.run()
    assert loop.step() is None
    requests = [
        loop.ask(prompt_of(9, salt=salt), account=account) for salt in range(4) for account in "ba"
    ]
    loop.run()
    order = [seq.account for seq in loop.answers if seq in requests]
    assert sorted(order[:4]) == ["a", "a", "b", "b"]


def test_tokens_from_the_cache_are_not_charged() -> None:
    loop = Loop(max_running=1, num_blocks=200)
    for salt in range(20):
        loop.ask(prompt_of(41), account="a", max_tokens=1)
        loop.ask(prompt_of(41, salt=salt + 1), account="b", max_tokens=1)
    loop.run()
    order = [seq.account for seq in loop.answers]
    assert order[:20].count("a") > 15


@settings(max_examples=30, deadline=None)
@given(
    weights=st.tuples(st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.sampled_from([1.0, 3.0])),
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 8)), min_size=2, max_size=6),
    max_running=st.integers(2, 6),
)
def test_two_busy_accounts_are_served_by_their_weights(
    weights: tuple[float, float], lengths: list[tuple[int, int]], max_running: int
) -> None:
    loop = Loop(max_running=max_running, max_step_tokens=12, num_blocks=200)
    sizes: Iterator[tuple[int, int]] = iter(lengths * 10_000)

    def keep_busy(account: str, weight: float) -> None:
        while (
            sum(s.state is SequenceState.WAITING for s in loop.alive if s.account == account) <= 6
        ):
            length, max_tokens = next(sizes)
            salt = loop.num_steps * 7 + len(loop.alive)
            loop.ask(prompt_of(length, salt), max_tokens=max_tokens, account=account, weight=weight)

    # One account may be ahead by what one step gives it, and by what those that run then say.
    bound = (2 * 12 + max_running * (20 + 8)) / min(weights)
    served = {"a": 0, "b": 0}
    for _ in range(150):
        for account, weight in zip("ab", weights, strict=True):
            keep_busy(account, weight)
        plan = loop.step()
        assert plan is not None
        for work in plan.work:
            served[work.sequence.account] += len(work.piece.token_ids)
        assert abs(served["a"] / weights[0] - served["b"] / weights[1]) <= bound
