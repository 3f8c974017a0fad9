from __future__ import annotations

from typing import Any

import pytest

from openworks.core.errors import ContextLengthExceededError, InternalError, InvalidRequestError
from openworks.engines.llamacpp.chunks import ChunkReader, error_of
from openworks.ports.calls import Usage
from tests.fakes import CountingIds


def reader(top_logprobs: int | None = None) -> ChunkReader:
    return ChunkReader(new_id=CountingIds(), top_logprobs=top_logprobs)


def event(
    index: int = 0, finish: str | None = None, predicted: int | None = None, **delta: Any
) -> dict[str, Any]:
    made: dict[str, Any] = {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}
    if predicted is not None:
        made["timings"] = {"predicted_n": predicted}
    return made


def progress(total: int, cache: int) -> dict[str, Any]:
    return {
        **event(),
        "timings": {"predicted_n": 0},
        "prompt_progress": {"total": total, "cache": cache, "processed": cache},
    }


def test_prompt_is_counted_before_the_first_token() -> None:
    (chunk,) = reader().read(progress(30, 10))
    assert chunk.usage == Usage(prompt_tokens=30, cached_tokens=10)
    assert not chunk.content


def test_answers_of_one_request_are_added_up() -> None:
    events = reader()
    list(events.read(progress(30, 0)))
    list(events.read(event(0, predicted=2, content="a")))
    (chunk,) = events.read(event(1, predicted=3, content="b"))
    assert chunk.usage == Usage(prompt_tokens=30, completion_tokens=5)


def test_final_count_of_an_answer_replaces_its_running_count() -> None:
    events = reader()
    list(events.read(event(1, predicted=3, content="b")))
    list(events.read(event(1, finish="stop")))
    final = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    (chunk,) = events.read(final)
    assert chunk.usage == Usage(prompt_tokens=9, completion_tokens=4)


def test_finish_reason_follows_from_an_emitted_tool_call() -> None:
    events = reader()
    call = {"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}
    (first,) = events.read(event(tool_calls=[call]))
    (more,) = events.read(event(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]))
    (last,) = events.read(event(finish="stop"))
    assert first.tool_calls[0].id == "call_1"
    assert more.tool_calls[0].id is None
    assert last.finish_reason == "tool_calls"


def test_reasoning_tokens_are_those_that_came_while_it_reasoned() -> None:
    events = reader()
    list(events.read(event(predicted=4, reasoning_content="Let me see.")))
    (chunk,) = events.read(event(predicted=6, content="Yes."))
    assert chunk.usage == Usage(completion_tokens=6, reasoning_tokens=4)


def test_role_event_makes_no_chunk() -> None:
    assert list(reader().read(event(role="assistant", content=None))) == []


def test_rivals_are_cut_to_what_was_asked_for() -> None:
    token = {"token": "a", "bytes": [97], "logprob": -0.5}
    made = event(content="a")
    made["choices"][0]["logprobs"] = {"content": [{**token, "top_logprobs": [token, token]}]}
    (chunk,) = reader(top_logprobs=0).read(made)
    assert chunk.logprobs[0].top == ()
    (chunk,) = reader(top_logprobs=1).read(made)
    assert len(chunk.logprobs[0].top) == 1
    (chunk,) = reader(top_logprobs=None).read(made)
    assert chunk.logprobs == ()


def test_long_prompt_is_told_with_both_counts() -> None:
    error = error_of({"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096})
    assert isinstance(error, ContextLengthExceededError)
    assert "4096" in error.message
    assert "5000" in error.message


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("invalid_request_error", InvalidRequestError), ("server_error", InternalError)],
)
def test_error_event_becomes_a_typed_error(kind: str, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="because"):
        list(reader().read({"error": {"type": kind, "message": "because"}}))
