from __future__ import annotations

from dataclasses import dataclass, field

from openworks.engines.llamacpp.sinks import LaterRound, UntilCall
from openworks.engines.sinks import AfterEcho
from openworks.ports.calls import Usage
from openworks.ports.text import TextChunk, ToolCallDelta


@dataclass
class Kept:
    chunks: list[TextChunk] = field(default_factory=list)
    is_cancelled: bool = False

    def still_working(self) -> None:
        pass

    def put(self, chunk: TextChunk) -> None:
        self.chunks.append(chunk)


def test_rounds_add_up_and_their_prompt_counts_once_as_the_first_found_it() -> None:
    kept = Kept()
    rounds = LaterRound(kept)
    first = Usage(prompt_tokens=23, cached_tokens=0, completion_tokens=5, reasoning_tokens=4)
    rounds.put(TextChunk(content="a", usage=first))
    rounds.next_round(1)
    later = Usage(prompt_tokens=23, cached_tokens=22, completion_tokens=6, reasoning_tokens=4)
    rounds.put(TextChunk(content="b"))
    rounds.put(TextChunk(content="c", usage=later))
    assert [chunk.index for chunk in kept.chunks] == [0, 1, 1]
    assert kept.chunks[-1].usage == Usage(
        prompt_tokens=23, cached_tokens=0, completion_tokens=11, reasoning_tokens=8
    )


def test_echo_waits_until_the_engine_has_taken_the_request() -> None:
    kept = Kept()
    echo = AfterEcho(kept, "prompt", 2)
    assert kept.chunks == []
    echo.put(TextChunk(usage=Usage(prompt_tokens=1)))
    echo.put(TextChunk(content="x"))
    assert [(chunk.index, chunk.content) for chunk in kept.chunks] == [
        (0, "prompt"),
        (1, "prompt"),
        (0, ""),
        (0, "x"),
    ]


def test_first_try_that_never_calls_is_not_heard() -> None:
    kept = Kept()
    until = UntilCall(kept)
    until.put(TextChunk(usage=Usage(prompt_tokens=1)))
    until.put(TextChunk(reasoning="hm"))
    until.put(TextChunk(content="I would rather talk", finish_reason="stop"))
    assert [chunk.usage for chunk in kept.chunks] == [Usage(prompt_tokens=1)]


def test_first_try_that_calls_is_heard_from_its_beginning() -> None:
    kept = Kept()
    until = UntilCall(kept)
    until.put(TextChunk(reasoning="hm"))
    until.put(TextChunk(tool_calls=(ToolCallDelta(index=0, name="f"),)))
    until.put(TextChunk(finish_reason="tool_calls"))
    assert [chunk.reasoning for chunk in kept.chunks] == ["hm", "", ""]
    assert kept.chunks[-1].finish_reason == "tool_calls"
