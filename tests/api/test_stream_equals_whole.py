"""For any seed and any stop: a stream adds up to the whole answer, and a stop cuts it exactly."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import OpenAI

from tests.api.asks import CALLING, HELLO, NO_END, TIME, WEATHER, text_of
from tests.engine_choice import EACH_ENGINE

pytestmark = EACH_ENGINE

MAX_TOKENS = 24
SEEDS = st.integers(min_value=-(2**63), max_value=2**63 - 1)

some = settings(
    max_examples=40,
    deadline=None,  # the machine may be busy
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def whole_and_streamed(client: OpenAI, **options: Any) -> tuple[str, str]:
    """Ask twice; return the content both ways after a check that they end alike."""
    options = {
        "model": "talker",
        "messages": HELLO,
        "max_tokens": MAX_TOKENS,
        "logit_bias": NO_END,
        **options,
    }
    (whole,) = client.chat.completions.create(**options).choices
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason
    return whole.message.content or "", text_of(chunks)


@some
@given(seed=SEEDS)
def test_stream_adds_up_to_the_whole_answer(client: OpenAI, seed: int) -> None:
    whole, streamed = whole_and_streamed(client, seed=seed)

    assert streamed == whole


@some
@given(seed=SEEDS, data=st.data())
def test_stop_from_the_answer_cuts_it_before_its_first_occurrence(
    client: OpenAI, seed: int, data: st.DataObject
) -> None:
    free, _ = whole_and_streamed(client, seed=seed)
    begin = data.draw(st.integers(0, len(free) - 1))
    stop = free[begin : begin + data.draw(st.integers(1, 12))]

    whole, streamed = whole_and_streamed(client, seed=seed, stop=stop)

    assert whole == free[: free.find(stop)]
    assert streamed == whole


@some
@given(seed=SEEDS, data=st.data())
def test_stop_that_only_begins_in_the_answer_changes_nothing(
    client: OpenAI, seed: int, data: st.DataObject
) -> None:
    free, _ = whole_and_streamed(client, seed=seed)
    tail = free[-data.draw(st.integers(1, 8)) :]

    whole, streamed = whole_and_streamed(client, seed=seed, stop=[tail + "\x00never"])

    assert whole == streamed == free


@some
@given(seed=SEEDS, stop=st.text(min_size=1, max_size=5))
def test_any_text_can_be_a_stop(client: OpenAI, seed: int, stop: str) -> None:
    free, _ = whole_and_streamed(client, seed=seed)

    whole, streamed = whole_and_streamed(client, seed=seed, stop=[stop])

    assert whole == streamed == free.partition(stop)[0]


@some
@given(seed=SEEDS, data=st.data())
def test_stops_cut_plain_completions_too(client: OpenAI, seed: int, data: st.DataObject) -> None:
    options: dict[str, Any] = {
        "model": "talker",
        "prompt": "Hello",
        "max_tokens": MAX_TOKENS,
        "logit_bias": NO_END,
        "seed": seed,
    }
    free = client.completions.create(**options).choices[0].text
    begin = data.draw(st.integers(0, len(free) - 1))
    stop = free[begin : begin + data.draw(st.integers(1, 12))]

    whole = client.completions.create(**options, stop=stop).choices[0].text
    chunks = client.completions.create(**options, stop=stop, stream=True)

    assert whole == free[: free.find(stop)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole


@some
@given(seed=SEEDS, parallel=st.booleans(), max_tokens=st.integers(1, 150))
def test_streamed_calls_add_up_to_whole_ones_wherever_they_are_cut(
    client: OpenAI, seed: int, parallel: bool, max_tokens: int
) -> None:
    options: dict[str, Any] = {
        "model": "talker",
        "messages": HELLO,
        "tools": [WEATHER, TIME],
        "parallel_tool_calls": parallel,
        "logit_bias": CALLING,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    (whole,) = client.chat.completions.create(**options).choices

    calls: dict[int, list[str]] = {}
    reason, content = None, ""
    for chunk in client.chat.completions.create(**options, stream=True):
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        for delta in choice.delta.tool_calls or ():
            assert delta.function is not None
            name, arguments = calls.setdefault(delta.index, ["", ""])
            calls[delta.index] = [
                name + (delta.function.name or ""),
                arguments + (delta.function.arguments or ""),
            ]
        reason = choice.finish_reason or reason

    assert reason == whole.finish_reason
    assert content == (whole.message.content or "")
    assert [calls[index] for index in sorted(calls)] == [
        [call.function.name, call.function.arguments]
        for call in whole.message.tool_calls or ()
        if call.type == "function"
    ]
