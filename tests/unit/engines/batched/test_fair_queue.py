from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import EngineOverloadedError
from openworks.engines.batched.fair_queue import FairQueue
from openworks.engines.batched.sequence import AdapterKey, Sequence

X, Y = AdapterKey("x"), AdapterKey("y")


def waiting(
    account: str, *, adapter: AdapterKey | None = None, weight: float = 1.0, size: int = 10
) -> Sequence:
    return Sequence(
        id=0,
        token_ids=[0] * size,
        max_tokens=1,
        account=account,
        adapter=adapter,
        weight=weight,
    )


def serve(queue: FairQueue) -> Sequence:
    """Take the next sequence, and charge its prompt."""
    head = queue.head()
    assert head is not None
    queue.remove(head)
    queue.charge(head, head.num_prompt)
    return head


def serve_all(queue: FairQueue) -> str:
    return "".join(serve(queue).account for _ in range(len(queue)))


def test_accounts_take_turns_whatever_the_lengths_of_their_queues() -> None:
    queue = FairQueue(100)
    for account in "aaaaabbb":
        queue.push(waiting(account))
    assert Counter(serve_all(queue)[:6]) == {"a": 3, "b": 3}


def test_account_is_served_by_its_weight() -> None:
    queue = FairQueue(100)
    for _ in range(30):
        queue.push(waiting("a", weight=2.0))
        queue.push(waiting("b"))
    assert Counter(serve_all(queue)[:30])["a"] == pytest.approx(20, abs=1)


def test_account_with_long_prompts_gets_fewer_of_them() -> None:
    queue = FairQueue(100)
    for _ in range(30):
        queue.push(waiting("a", size=50))
        queue.push(waiting("b"))
    assert Counter(serve_all(queue)[:18])["a"] == pytest.approx(3, abs=1)


def test_one_account_and_adapter_is_first_in_first_out() -> None:
    queue = FairQueue(100)
    sequences = [waiting("a", size=size) for size in (9, 1, 5)]
    for sequence in sequences:
        queue.push(sequence)
    assert [serve(queue) for _ in sequences] == sequences


def test_adapters_of_one_account_take_turns() -> None:
    queue = FairQueue(100)
    for adapter in (X, X, X, X, Y, Y):
        queue.push(waiting("a", adapter=adapter))
    order = [serve(queue).adapter for _ in range(4)]
    assert Counter(order) == {X: 2, Y: 2}


def test_many_adapters_do_not_give_an_account_more() -> None:
    queue = FairQueue(100)
    for _ in range(10):
        for adapter in (X, Y, None):
            queue.push(waiting("a", adapter=adapter))
        queue.push(waiting("b"))
    assert Counter(serve_all(queue)[:20])["b"] == pytest.approx(10, abs=1)


def test_time_away_earns_nothing() -> None:
    queue = FairQueue(1000)
    queue.push(waiting("b"))
    for _ in range(200):
        queue.push(waiting("a"))
    for _ in range(101):
        serve(queue)
    for _ in range(50):
        queue.push(waiting("b"))
    assert Counter(serve_all(queue)[:40])["a"] == pytest.approx(20, abs=2)


def test_service_is_remembered_while_away() -> None:
    queue = FairQueue(1000)
    greedy = waiting("a")
    for _ in range(100):
        queue.push(waiting("b"))
    queue.push(greedy)
    while serve(queue) is not greedy:
        pass
    queue.charge(greedy, 200)  # generated tokens
    for _ in range(50):
        queue.push(waiting("a"))
    assert serve_all(queue)[:19] == "b" * 19


def test_alone_account_owes_nothing_to_newcomers() -> None:
    queue = FairQueue(1000)
    for _ in range(50):
        queue.push(waiting("a"))
    for _ in range(40):
        serve(queue)
    for account in "bc" * 10:
        queue.push(waiting(account))
    assert Counter(serve_all(queue)[:12])["a"] == pytest.approx(4, abs=1)


def test_full_queue_refuses() -> None:
    queue = FairQueue(2)
    queue.push(waiting("a"))
    first = queue.head()
    queue.push(waiting("b"))
    with pytest.raises(EngineOverloadedError):
        queue.push(waiting("c"))
    assert first is not None
    queue.remove(first)
    queue.push(waiting("c"))
    assert len(queue) == 2


def test_sequence_put_in_front_is_next_of_its_kind() -> None:
    queue = FairQueue(1)
    last, first = waiting("a"), waiting("a")
    queue.push(last)
    queue.push_front(first)
    assert [serve(queue), serve(queue)] == [first, last]


def test_removed_sequence_is_not_served() -> None:
    queue = FairQueue(10)
    sequences = [waiting("a") for _ in range(3)]
    for sequence in sequences:
        queue.push(sequence)
    queue.remove(sequences[1])
    assert [serve(queue), serve(queue)] == [sequences[0], sequences[2]]
    assert queue.head() is None


def test_lane_set_aside_is_passed_and_comes_back() -> None:
    queue = FairQueue(10)
    absent = waiting("a", adapter=X)
    queue.push(absent)
    for account in "ab":
        queue.push(waiting(account))
    queue.set_aside(absent)
    passers = [serve(queue).account]
    queue.recall(X)
    assert passers == ["a"] or passers == ["b"]
    assert absent in [serve(queue), serve(queue)]


def test_lane_set_aside_stays_so_when_it_grows() -> None:
    queue = FairQueue(10)
    absent = waiting("a", adapter=X)
    queue.push(absent)
    queue.set_aside(absent)
    queue.push(waiting("a", adapter=X))
    assert queue.head() is None
    assert len(queue.waiting_for(X)) == 2


def test_lane_that_was_emptied_while_aside_starts_anew() -> None:
    queue = FairQueue(10)
    absent = waiting("a", adapter=X)
    queue.push(absent)
    queue.set_aside(absent)
    queue.remove(absent)
    again = waiting("a", adapter=X)
    queue.push(again)
    assert queue.head() is again


def test_idle_accounts_are_forgotten() -> None:
    queue = FairQueue(10)
    for number in range(5000):
        queue.push(waiting(str(number)))
        serve(queue)
    assert queue.num_accounts < 200


def test_new_accounts_without_end_do_not_hold_up_an_old_one() -> None:
    queue = FairQueue(1000)
    patient = [waiting("a", size=30), waiting("a")]
    for sequence in patient:
        queue.push(sequence)
    queue.push(waiting("first"))
    served = [serve(queue)]
    assert served == [patient[0]]
    for number in range(100):
        queue.push(waiting(str(number)))
        served.append(serve(queue))
        if served[-1] is patient[1]:
            break
    assert patient[1] in served


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=60, max_size=120),
    weights=st.tuples(st.sampled_from([0.25, 1.0, 3.0]), st.sampled_from([1.0, 2.0])),
)
def test_difference_between_two_busy_accounts_is_bounded(
    sizes: list[int], weights: tuple[float, float]
) -> None:
    queue = FairQueue(1000)
    weight_of = dict(zip("ab", weights, strict=True))
    for size in sizes:
        for account, weight in weight_of.items():
            queue.push(waiting(account, weight=weight, size=size))
    served = {"a": 0.0, "b": 0.0}
    left = {"a": len(sizes), "b": len(sizes)}
    while all(left.values()):
        sequence = serve(queue)
        left[sequence.account] -= 1
        served[sequence.account] += sequence.num_prompt / sequence.weight
        bound = max(sizes) / weights[0] + max(sizes) / weights[1] + 2
        assert abs(served["a"] - served["b"]) <= bound


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_every_sequence_is_served_or_removed_once(data: st.DataObject) -> None:
    queue = FairQueue(1000)
    inside: list[Sequence] = []
    adapters = st.sampled_from([None, X, Y])
    for action in data.draw(st.lists(st.sampled_from("pppfrsaac"), max_size=60)):
        head = queue.head()
        if action in "pf":
            sequence = waiting(
                data.draw(st.sampled_from("abc")),
                adapter=data.draw(adapters),
                size=data.draw(st.integers(1, 9)),
            )
            inside.append(sequence)
            (queue.push if action == "p" else queue.push_front)(sequence)
        elif action == "r" and inside:
            queue.remove(inside.pop(data.draw(st.integers(0, len(inside) - 1))))
        elif action == "s" and head is not None:
            inside.remove(serve(queue))
        elif action == "a" and head is not None:
            queue.set_aside(head)
        elif action == "c":
            queue.recall(data.draw(adapters))
        assert len(queue) == len(inside)
        for adapter in (None, X, Y):
            expected = {each for each in inside if each.adapter == adapter}
            assert set(queue.waiting_for(adapter)) == expected
    for adapter in (None, X, Y):
        queue.recall(adapter)
    assert {serve(queue) for _ in list(inside)} == set(inside)
    assert queue.head() is None
