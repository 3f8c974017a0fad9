from __future__ import annotations

import pytest

from openworks.engines.batched.formats.base import Format, parse
from openworks.engines.batched.formats.deltas import CallBegin, Content, Reasoning
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.plain import Plain
from tests.unit.engines.batched.formats.examples import THINK, THOUGHTS, TOOLS


@pytest.mark.parametrize(("format_", "prompt", "text"), THOUGHTS)
def test_thought_is_parted_from_the_answer(format_: Format, prompt: str, text: str) -> None:
    assert parse(format_.parser(prompt=prompt), text) == [Reasoning("Hm, well."), Content("Yes.")]


def test_thought_that_the_prompt_has_closed_already_is_over() -> None:
    parser = Hermes(reasoning=THINK).parser(prompt="assistant\n<think>\n\n</think>\n\n")
    assert parse(parser, "Yes.") == [Content("Yes.")]


def test_thought_that_never_ends_is_all_reasoning() -> None:
    assert parse(Plain(reasoning=THINK).parser(), "<think>Hm </thi") == [Reasoning("Hm </thi")]


def test_marker_of_thought_later_on_is_content() -> None:
    assert parse(Plain(reasoning=THINK).parser(), "A <think> tag.") == [Content("A <think> tag.")]


def test_white_space_before_an_answer_without_thought_is_content() -> None:
    assert parse(Plain(reasoning=THINK).parser(), "\n <b>") == [Content("\n <b>")]


def test_model_that_does_not_reason_may_write_the_markers() -> None:
    assert parse(Plain().parser(), "<think>a</think>") == [Content("<think>a</think>")]


def test_call_inside_a_thought_is_only_thought_of() -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    deltas = parse(Hermes(reasoning=THINK).parser(TOOLS), f"<think>{call}</think>\n{call}")
    assert deltas[:2] == [Reasoning(call), CallBegin(0, "weather")]
