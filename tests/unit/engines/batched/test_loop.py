from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import pytest

pytest.importorskip("torch")
pytest.importorskip("llguidance")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from openworks.core.errors import (
    ContextLengthExceededError,
    EngineOverloadedError,
    InternalError,
    InvalidRequestError,
    ModelUnavailableError,
)
from openworks.engines.batched.grammar import GrammarCompiler, Matcher
from openworks.engines.batched.step import Step
from openworks.engines.batched.writer import Constraints
from openworks.ports.text import TextChunk
from tests.unit.engines.batched.scripts import (
    LONG_S,
    TINY,
    Asked,
    Engine,
    Heard,
    Script,
    adapter,
    tokens,
    writer,
)

ANSWERS = {"One": " is the first number", "Two": " is the second number", "Three": " comes next"}


class BrokenMatcher(Matcher):
    """A grammar that comes to a dead end at once."""

    def __init__(self) -> None:
        pass

    def mask(self) -> NDArray[np.int32]:
        raise InvalidRequestError("nothing fits it")


class Deaf(Heard):
    """Cannot take what it is given, from a certain chunk on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def put(self, chunk: TextChunk) -> None:
        if len(self.chunks) == self._after:
            raise OSError("the socket is closed")
        super().put(chunk)


def on_step(number: int, script: Script, what: threading.Event) -> threading.Event:
    """Stop the loop before a step until the second event; the first says that it stands."""
    goes_on, steps = threading.Event(), iter(range(1, 1000))

    def before(step: Step) -> None:
        if next(steps) == number:
            what.set()
            assert goes_on.wait(LONG_S)

    script.before_step = before
    return goes_on


def test_requests_together_get_their_own_answers() -> None:
    asked = {prompt: Asked(prompt) for prompt in ANSWERS}
    Engine(Script(ANSWERS)).answer(*asked.values())
    assert {prompt: each.out.text() for prompt, each in asked.items()} == ANSWERS
    assert {each.out.last.finish_reason for each in asked.values()} == {"stop"}


def test_answers_to_one_prompt_count_it_once_and_their_tokens_together() -> None:
    asked = Asked("One", *(writer(index=index) for index in range(3)))
    Engine(Script(ANSWERS), max_running=2).answer(asked)
    assert [asked.out.text(index) for index in range(3)] == [ANSWERS["One"]] * 3
    usage = asked.out.last.usage
    assert usage is not None
    assert usage.prompt_tokens == len(tokens("One"))
    assert usage.completion_tokens == 3 * (len(tokens(ANSWERS["One"])) + 1)
    assert usage.cached_tokens == 0


def test_prompt_is_told_before_its_first_token() -> None:
    asked = Asked("One")
    Engine(Script(ANSWERS)).answer(asked)
    usage = asked.out.chunks[0].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(tokens("One")), 0)
    assert asked.out.chunks[0].content == ""


def test_prompt_that_was_computed_before_is_counted_as_cached() -> None:
    prompt = "One two three four five six seven"
    engine = Engine(Script({prompt: " eight"}))
    first, second = Asked(prompt), Asked(prompt)
    engine.answer(first)
    engine.answer(second)
    usage = second.out.last.usage
    assert usage is not None
    assert usage.cached_tokens == (len(tokens(prompt)) - 1) // 4 * 4 > 0
    engine.until(lambda report: report.cached_tokens == usage.cached_tokens)


def test_answers_that_gave_way_are_whole_and_counted_once() -> None:
    engine = Engine(Script(ANSWERS, num_blocks=5))
    asked = {prompt: Asked(prompt) for prompt in ANSWERS}
    engine.answer(*asked.values())
    assert {prompt: each.out.text() for prompt, each in asked.items()} == ANSWERS
    for prompt, each in asked.items():
        usage = each.out.last.usage
        assert usage is not None
        assert usage.completion_tokens == len(tokens(ANSWERS[prompt])) + 1
    engine.until(lambda report: report.preemptions > 0)


def test_caller_that_leaves_hears_nothing_more_and_its_blocks_are_free() -> None:
    script = Script(ANSWERS)
    stands = threading.Event()
    goes_on = on_step(3, script, stands)
    engine, asked = Engine(script), Asked("One")
    engine.ask(asked)
    assert stands.wait(LONG_S)
    asked.out.is_cancelled = True
    heard = len(asked.out.chunks)
    goes_on.set()
    engine.answer(other := Asked("Two"))
    asked.ended()
    assert len(asked.out.chunks) == heard
    assert other.out.text() == ANSWERS["Two"]
    engine.until(lambda report: report.blocks_used == 0)


def test_step_that_fails_fails_those_in_it_and_nobody_later() -> None:
    script, fails = Script(ANSWERS), iter([False, False, True])

    def fail(step: Step) -> None:
        if next(fails, False):
            raise RuntimeError("out of memory")

    script.before_step = fail
    engine = Engine(script)
    first = [Asked("One", *(writer(index=index) for index in range(3))), Asked("Two")]
    engine.answer(*first)
    assert {type(each.error) for each in first} == {InternalError}
    later = Asked("One")
    engine.answer(later)
    assert later.out.text() == ANSWERS["One"]
    engine.until(lambda report: (report.running, report.waiting, report.blocks_used) == (0, 0, 0))


def test_grammar_at_a_dead_end_fails_its_own_request_alone() -> None:
    engine = Engine(Script(ANSWERS))
    broken = Asked("One", writer(constraints=Constraints(matcher=BrokenMatcher())))
    others = [Asked("Two"), Asked("Three")]
    engine.answer(others[0], broken, others[1])
    assert isinstance(broken.error, InvalidRequestError)
    assert [each.out.text() for each in others] == [ANSWERS["Two"], ANSWERS["Three"]]


def test_one_answer_at_a_dead_end_ends_the_others_of_its_request() -> None:
    engine = Engine(Script(ANSWERS))
    dead_end = writer(index=1, constraints=Constraints(matcher=BrokenMatcher()))
    broken, other = Asked("One", writer(), dead_end, writer(index=2)), Asked("Two")
    engine.answer(broken, other)
    assert isinstance(broken.error, InvalidRequestError)
    assert other.out.text() == ANSWERS["Two"]
    engine.until(lambda report: report.blocks_used == 0)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_caller_who_cannot_be_told_fails_alone(after: int) -> None:
    engine = Engine(Script(ANSWERS))
    broken, other = Asked("One", out=Deaf(after)), Asked("Two")
    engine.answer(broken, other)
    assert isinstance(broken.error, InternalError)
    assert other.out.text() == ANSWERS["Two"]


def test_logits_that_are_no_numbers_fail_their_own_row_alone() -> None:
    class Poisoned(Script):
        def logits(self, text: Sequence[int]) -> Tensor:
            logits = super().logits(text)
            return logits * float("nan") if text[: len(tokens("One"))] == tokens("One") else logits

    engine = Engine(Poisoned(ANSWERS))
    broken, other = Asked("One"), Asked("Two")
    engine.answer(broken, other)
    assert isinstance(broken.error, InternalError)
    assert other.out.text() == ANSWERS["Two"]


def test_text_that_outgrows_the_cache_fails_with_its_siblings_alone() -> None:
    engine = Engine(Script(ANSWERS, num_blocks=2))
    engine.answer(broken := Asked("One", *(writer(index=i, max_tokens=60) for i in range(2))))
    engine.answer(other := Asked("Two", max_tokens=3))
    assert isinstance(broken.error, ContextLengthExceededError)
    assert other.out.last.finish_reason == "length"


def test_request_that_the_queue_has_no_place_for_is_told() -> None:
    script = Script(ANSWERS)
    stands = threading.Event()
    goes_on = on_step(1, script, stands)
    engine = Engine(script, max_running=1, max_waiting=1)
    first, second, third = Asked("One"), Asked("Two"), Asked("Three")
    engine.ask(first)
    assert stands.wait(LONG_S)
    engine.ask(second, third)
    goes_on.set()
    assert first.ended().text() == ANSWERS["One"]
    assert second.ended().text() == ANSWERS["Two"]
    third.ended()
    assert isinstance(third.error, EngineOverloadedError)


def test_request_that_cannot_be_taken_in_does_not_wait_for_ever() -> None:
    broken, other = Asked("One"), Asked("Two")
    for sequence in broken.sequences:
        sequence.token_ids = None  # type: ignore[assignment] # what no check has foreseen
    Engine(Script(ANSWERS)).answer(broken, other)
    assert isinstance(broken.error, InternalError)
    assert other.out.text() == ANSWERS["Two"]


def test_engine_that_fails_again_and_again_says_so_instead_of_going_on() -> None:
    script = Script(ANSWERS)

    def fail(step: Step) -> NoReturn:
        raise RuntimeError("the device is lost")

    script.before_step = fail
    engine = Engine(script)
    asked = [Asked("One") for _ in range(20)]
    for each in asked:
        engine.ask(each)
        each.ended()
        if not engine.thread.is_alive():
            break
    engine.thread.join(LONG_S)
    assert not engine.thread.is_alive()
    assert isinstance(engine.error, RuntimeError)


def test_requests_with_an_adapter_wait_for_it_and_others_do_not() -> None:
    script = Script(ANSWERS)
    engine = Engine(script)
    tuned, plain = Asked("One", adapter=adapter("a")), Asked("Two")
    engine.ask(tuned)
    engine.answer(plain)
    assert plain.out.text() == ANSWERS["Two"]
    assert not tuned.out.chunks
    engine.loader.finish()
    assert tuned.ended().text() == ANSWERS["One"]
    (place,) = engine.until(lambda report: not report.running and report.steps > 1).adapters
    assert (place.name, place.tier, place.in_use) == ("a", "batch", 0)


def test_caller_that_leaves_while_its_adapter_is_read_does_not_hang() -> None:
    engine = Engine(Script(ANSWERS))
    asked = Asked("One", adapter=adapter("a"))
    engine.ask(asked)
    assert engine.loader.asked.acquire(timeout=LONG_S)
    asked.out.is_cancelled = True
    asked.ended()
    assert not asked.out.chunks
    engine.loader.asked.release()
    engine.loader.finish()
    later = Asked("One", adapter=adapter("a"))
    engine.answer(later)
    assert later.out.text() == ANSWERS["One"]
    assert len(engine.loader.loads) == 1


def test_adapter_that_cannot_be_read_fails_who_waits_and_is_read_again_for_the_next() -> None:
    engine = Engine(Script(ANSWERS))
    for _ in range(2):
        asked = [Asked("One", adapter=adapter("a")), Asked("Two", adapter=adapter("a"))]
        engine.ask(*asked)
        engine.loader.fail(ModelUnavailableError("broken"))
        for each in asked:
            each.ended()
            assert isinstance(each.error, ModelUnavailableError)
    asked = [Asked("One", adapter=adapter("a"))]
    engine.ask(*asked)
    engine.loader.finish()
    assert asked[0].ended().text() == ANSWERS["One"]
    assert len(engine.loader.loads) == 3


@pytest.mark.parametrize("error", [InvalidRequestError("its shapes"), RuntimeError("no memory")])
def test_adapter_that_does_not_go_into_its_slot_fails_its_own_requests_alone(
    error: Exception,
) -> None:
    script = Script(ANSWERS)
    refusals = iter([error])

    def refuse(slot: int) -> None:
        if (refusal := next(refusals, None)) is not None:
            raise refusal

    script.before_put = refuse
    engine = Engine(script)
    broken, other = Asked("One", adapter=adapter("a")), Asked("Two")
    engine.ask(broken)
    engine.loader.finish()
    engine.answer(other)
    broken.ended()
    assert broken.error is not None
    assert other.out.text() == ANSWERS["Two"]
    again = Asked("One", adapter=adapter("a"))
    engine.ask(again)
    engine.loader.finish()
    assert again.ended().text() == ANSWERS["One"]


def test_adapter_that_never_fits_its_slot_does_not_stop_the_others() -> None:
    script = Script(ANSWERS)

    def refuse(slot: int) -> NoReturn:
        raise RuntimeError("no memory")

    script.before_put = refuse
    engine = Engine(script)
    for _ in range(3):
        broken = Asked("One", adapter=adapter("a"))
        engine.ask(broken)
        engine.loader.finish()
        broken.ended()
        other = Asked("Two")
        engine.answer(other)
        assert other.out.text() == ANSWERS["Two"]


def blocks_cached(engine: Engine) -> int:
    """How many there are once nothing is under way."""
    return engine.until(lambda report: report.running == 0).blocks_cached


def test_deleted_adapter_leaves_its_slot_and_what_it_computed() -> None:
    prompt = "One two three four five six seven"
    script = Script({prompt: " eight", **ANSWERS})
    engine = Engine(script)
    asked = Asked(prompt, adapter=adapter("a"))
    engine.ask(asked)
    engine.loader.finish()
    asked.ended()
    before = blocks_cached(engine)
    engine.loop.forget(adapter("a").generation)
    engine.until(lambda report: report.adapters == () and report.blocks_cached < before)
    assert script.slots == {}


def test_deleted_adapter_that_was_evicted_leaves_nothing_in_the_prefix_cache() -> None:
    prompt = "One two three four five six seven"
    engine = Engine(Script({prompt: " eight", **ANSWERS}, num_slots=1), host_bytes=1)
    for name in ("a", "b"):
        asked = Asked(prompt, adapter=adapter(name))
        engine.ask(asked)
        engine.loader.finish()
        asked.ended()
    before = blocks_cached(engine)
    report = engine.loop.report()
    assert [place.name for place in report.adapters] == ["b"]
    engine.loop.forget(adapter("a").generation)
    engine.until(lambda report: report.blocks_cached < before)
    assert [place.name for place in engine.loop.report().adapters] == ["b"]


def test_adapter_deleted_while_it_is_read_still_answers_who_waits() -> None:
    engine = Engine(Script(ANSWERS))
    asked = Asked("One", adapter=adapter("a"))
    engine.ask(asked)
    assert engine.loader.asked.acquire(timeout=LONG_S)
    engine.loop.forget(adapter("a").generation)
    engine.loader.asked.release()
    engine.loader.finish()
    assert asked.ended().text() == ANSWERS["One"]
    engine.until(lambda report: report.steps > 0 and report.adapters == ())


def test_adapter_deleted_while_it_answers_ends_its_text_first() -> None:
    script = Script(ANSWERS)
    stands = threading.Event()
    goes_on = on_step(2, script, stands)
    engine = Engine(script)
    asked = Asked("One", adapter=adapter("a"))
    engine.ask(asked)
    engine.loader.finish()
    assert stands.wait(LONG_S)
    engine.loop.forget(adapter("a").generation)
    goes_on.set()
    assert asked.ended().text() == ANSWERS["One"]
    engine.answer(Asked("Three"))
    assert script.slots == {}


def test_same_weights_under_two_ids_are_two_adapters() -> None:
    script = Script(ANSWERS)
    engine = Engine(script)
    mine, theirs = adapter("a", generation="g"), adapter("b", generation="g")
    asked = [Asked("One", adapter=mine), Asked("One", adapter=theirs)]
    engine.ask(*asked)
    engine.loader.finish()
    engine.loader.finish()
    assert [each.ended().text() for each in asked] == [ANSWERS["One"]] * 2
    assert len(script.slots) == 2
    usage = asked[1].out.last.usage
    assert usage is not None
    assert usage.cached_tokens == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_request_ends_once_whatever_goes_wrong(data: st.DataObject) -> None:
    script = Script(ANSWERS, num_blocks=data.draw(st.integers(6, 20)), num_slots=2)
    faults = data.draw(st.sets(st.integers(1, 40), max_size=4), label="steps that fail")
    leaves = data.draw(st.sets(st.integers(1, 40), max_size=4), label="steps in which one leaves")
    asked: list[Asked] = []

    def before(step: Step) -> None:
        if script.num_steps + len(met) in leaves and asked:
            asked[script.num_steps % len(asked)].out.is_cancelled = True
        if (number := script.num_steps + len(met)) in faults:
            met.append(number)
            raise RuntimeError("out of memory")

    met: list[int] = []
    script.before_step = before
    engine = Engine(script, max_running=3, host_bytes=2)
    for prompt in data.draw(st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=8)):
        n, name = data.draw(st.integers(1, 3)), data.draw(st.sampled_from(["", "a", "b", "c"]))
        dead_end = data.draw(st.booleans()) and data.draw(st.booleans())
        bound = Constraints(matcher=BrokenMatcher()) if dead_end else None
        writers = [writer(index=i, constraints=bound if i == n - 1 else None) for i in range(n)]
        asked.append(Asked(prompt, *writers, adapter=adapter(name) if name else None))
    engine.loader.answers_at_once = data.draw(
        st.lists(st.booleans(), min_size=1, max_size=5), label="loads that end well"
    )
    engine.ask(*asked)
    for each in asked:
        each.ended()
        reasons = [chunk.finish_reason for chunk in each.out.chunks if chunk.finish_reason]
        if each.error is None and not each.out.is_cancelled:
            assert reasons == ["stop"] * len(each.sequences)
    last = Asked("One")
    script.before_step = lambda step: None
    engine.answer(last)
    assert last.out.text() == ANSWERS["One"]
    engine.until(lambda report: (report.running, report.waiting, report.blocks_used) == (0, 0, 0))


def test_constrained_and_free_answers_share_a_step() -> None:
    matcher = GrammarCompiler(TINY).json_schema({"enum": ["is", "was"]})
    bound = Asked("One", writer(constraints=Constraints(matcher=matcher)))
    free = Asked("Two")
    Engine(Script({**ANSWERS, "One": '"was"'})).answer(bound, free)
    assert bound.out.text() == '"was"'
    assert free.out.text() == ANSWERS["Two"]


def test_adapters_that_came_and_went_leave_no_object_behind() -> None:
    engine = Engine(Script(ANSWERS))
    engine.loader.answers_at_once = (True,)

    def num_objects_after(names: range) -> int:
        for name in names:
            it = adapter(str(name))
            engine.answer(Asked("One", adapter=it, max_tokens=1))
            engine.loop.forget(it.generation)
            engine.loader.loads.clear()
        engine.until(lambda report: not report.adapters)
        gc.collect()
        return sys.getallocatedblocks()

    before = num_objects_after(range(100))
    assert num_objects_after(range(100, 300)) - before < 100
