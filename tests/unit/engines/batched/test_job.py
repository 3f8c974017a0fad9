from __future__ import annotations

import pytest

pytest.importorskip("torch")

from openworks.core.errors import InternalError
from openworks.engines.batched.job import Job
from openworks.engines.batched.sampling import Choice
from openworks.engines.batched.sequence import Sequence
from openworks.ports.calls import Usage
from tests.unit.engines.batched.scripts import EOS, Asked, Heard, tokens, writer

WORD = tokens("a")[0]


def job(out: Heard, *, n: int = 1) -> Job:
    prompt = tokens("one two three")
    return Job(
        {
            Sequence(id=index, token_ids=list(prompt), max_tokens=20): writer(index=index)
            for index in range(n)
        },
        out,
        None,
    )


def test_prompt_is_told_once_however_many_pieces_it_is_read_in() -> None:
    made = job(out := Heard())
    made.read_prompt()
    made.read_prompt()
    assert [chunk.usage for chunk in out.chunks] == [
        Usage(prompt_tokens=len(tokens("one two three")))
    ]


def test_usage_is_the_sum_of_all_answers_and_one_prompt() -> None:
    made = job(out := Heard(), n=2)
    first, second = made.sequences
    first.num_cached_tokens, second.num_cached_tokens = 1, 2
    made.take(first, Choice(WORD))
    made.take(second, Choice(WORD))
    made.take(second, Choice(EOS))
    assert out.last.usage == Usage(
        prompt_tokens=len(tokens("one two three")), completion_tokens=3, cached_tokens=1
    )


def test_prompt_that_was_read_again_is_not_counted_as_cached_beyond_its_length() -> None:
    made = job(out := Heard())
    made.sequences[0].num_cached_tokens = 1000
    made.read_prompt()
    usage = out.last.usage
    assert usage is not None
    assert usage.cached_tokens == usage.prompt_tokens


def test_request_is_over_with_its_last_answer() -> None:
    made = job(Heard(), n=2)
    first, second = made.sequences
    assert made.take(first, Choice(EOS))
    made.close(first)
    assert made.sequences == [second]
    assert made.take(second, Choice(EOS))
    made.close(second)
    assert made.sequences == []
    made.wait()


def test_request_that_failed_says_so_to_who_waits() -> None:
    asked = Asked("one")
    error = InternalError("broken")
    asked.job.fail(error)
    asked.ended()
    assert asked.error is error
    assert asked.job.sequences == []


def test_caller_that_has_left_is_told_nothing() -> None:
    made = job(out := Heard())
    out.is_cancelled = True
    made.read_prompt()
    made.take(made.sequences[0], Choice(WORD))
    assert made.is_cancelled
    assert out.chunks == []
