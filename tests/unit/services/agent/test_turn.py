from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.ports.calls import Usage
from openworks.ports.text import TextChunk, TokenLogprob, ToolCallDelta
from openworks.services.agent.turn import Answer, Said, ToolCall, TurnMaker
from tests.unit.services.agent.listener import Notes

NOTHING = Said()
TEXTS = st.text(max_size=12)
SAYINGS = st.builds(
    lambda text, reasoning, calls: Said(
        text=text,
        reasoning=reasoning,
        tool_calls=tuple(
            ToolCall(id=f"call-{index}", name=name, arguments=arguments)
            for index, (name, arguments) in enumerate(calls)
        ),
    ),
    TEXTS,
    TEXTS,
    st.lists(st.tuples(st.sampled_from(["add", "look_up"]), TEXTS), max_size=3),
)


async def make(
    chunks: Sequence[TextChunk], *, told: Said = NOTHING, notes: Notes | None = None
) -> Answer:
    maker = TurnMaker(told=told, listener=notes or Notes(told))
    for chunk in chunks:
        await maker.add(chunk)
    return maker.answer()


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """Cut a text anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    places = [0, *cuts, len(text)]
    return [text[begin:end] for begin, end in pairwise(places)]


@st.composite
def chunks_of(draw: st.DrawFn, said: Said) -> list[TextChunk]:
    """Say it in pieces."""
    chunks = [TextChunk(reasoning=piece) for piece in draw(pieces(said.reasoning))]
    chunks += [TextChunk(content=piece) for piece in draw(pieces(said.text))]
    for index, call in enumerate(said.tool_calls):
        first, *rest = draw(pieces(call.arguments))
        begin = ToolCallDelta(index=index, id=call.id, name=call.name, arguments=first)
        deltas = [begin, *(ToolCallDelta(index=index, arguments=piece) for piece in rest)]
        chunks += [TextChunk(tool_calls=(delta,)) for delta in deltas]
    if draw(st.booleans()):  # the calls in one chunk
        calls = tuple(delta for chunk in chunks for delta in chunk.tool_calls)
        chunks = [*(chunk for chunk in chunks if not chunk.tool_calls), TextChunk(tool_calls=calls)]
    return chunks


@st.composite
def beginnings(draw: st.DrawFn, said: Said) -> Said:
    """Break off anywhere."""
    num_calls = draw(st.integers(0, len(said.tool_calls)))
    calls = list(said.tool_calls[:num_calls])
    if calls:
        length = draw(st.integers(0, len(calls[-1].arguments)))
        calls[-1] = replace(calls[-1], arguments=calls[-1].arguments[:length])
    return Said(
        reasoning=said.reasoning[: draw(st.integers(0, len(said.reasoning)))],
        text=said.text[: draw(st.integers(0, len(said.text)))],
        tool_calls=tuple(calls),
    )


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_turn_made_anew_tells_exactly_what_was_not_heard(data: st.DataObject) -> None:
    said = data.draw(SAYINGS)
    told = data.draw(beginnings(said))
    notes = Notes(told)

    answer = asyncio.run(make(data.draw(chunks_of(said)), told=told, notes=notes))

    assert answer.said == said
    assert notes.all == said
    assert "" not in notes.pieces


async def test_call_that_was_announced_keeps_its_id() -> None:
    told = Said(tool_calls=(ToolCall(id="call-old", name="add", arguments='{"a'),))
    begin = ToolCallDelta(index=0, id="call-new", name="add", arguments='{"a":1}')
    notes = Notes(told)

    answer = await make([TextChunk(tool_calls=(begin,))], told=told, notes=notes)

    expected = (ToolCall(id="call-old", name="add", arguments='{"a":1}'),)
    assert answer.said.tool_calls == expected
    assert notes.all.tool_calls == expected
    assert notes.pieces == ['":1}']


async def test_answer_that_differs_from_what_was_heard_is_the_one_that_counts() -> None:
    told = Said(text="I think not, ", tool_calls=(ToolCall(id="c-1", name="add", arguments=""),))
    notes = Notes(told)

    answer = await make([TextChunk(content="No.")], told=told, notes=notes)

    assert answer.said == Said(text="No.")
    assert notes.pieces == []


async def test_answer_has_the_last_usage_the_reason_and_all_logprobs() -> None:
    tokens = [TokenLogprob(token=text, bytes=(), logprob=-1.0) for text in ("a", "b")]
    notes = Notes()

    answer = await make(
        [
            TextChunk(content="a", logprobs=(tokens[0],), usage=Usage(completion_tokens=1)),
            TextChunk(content="b", logprobs=(tokens[1],), usage=Usage(completion_tokens=2)),
            TextChunk(finish_reason="length"),
        ],
        notes=notes,
    )

    assert answer == Answer(
        said=Said(text="ab"),
        finish_reason="length",
        usage=Usage(completion_tokens=2),
        logprobs=tuple(tokens),
    )
    assert notes.logprobs == tokens
