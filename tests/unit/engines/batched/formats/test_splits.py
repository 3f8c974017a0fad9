from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.engines.batched.formats.base import Format, parse
from openworks.engines.batched.formats.deltas import (
    CallArguments,
    Content,
    Delta,
    Reasoning,
    merged,
)
from openworks.engines.batched.formats.qwen_coder import QwenCoder
from tests.unit.engines.batched.formats.examples import (
    BARE,
    FORMATS,
    NO_CALLS,
    ONE_CALL,
    PROMPTS,
    THOUGHTS,
    TOOLS,
    TWO_CALLS,
    cut,
    new_parser,
    streamed,
)

_WORDS = [
    *("<think>", "</think>", "[THINK]", "[/THINK]", "<tool_call>", "</tool_call>"),
    *("<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]x1", "[", "]", ", ", "; ", "\n", " "),
    *("<|start|>assistant", "<|channel|>", "analysis", "commentary", "final", "<|message|>"),
    *("<|constrain|>json", "<|end|>", "<|call|>", "<|return|>", " to=functions.weather"),
    *('{"name": "weather", "arguments": ', '{"name": "weather", "parameters": ', '{"days": 1}'),
    *('{"arguments": {"a": "}"}, "name": "weather_map"}', '{"name": "nobody"', "weather", "}"),
    *("<function=weather>", "</function>", "<parameter=days>", "<parameter=note>", "</parameter>"),
    *('"', "\\", "<", "12", "né", "Hello"),
]
_EXAMPLES = [*ONE_CALL, *TWO_CALLS, *NO_CALLS, (QwenCoder(), BARE)]
_CASES = [(format_, PROMPTS.get(format_.name, ""), text) for format_, text in _EXAMPLES] + THOUGHTS

soups = st.lists(
    st.one_of(st.sampled_from(_WORDS), st.text('<t{"\n:}[', max_size=3)), max_size=14
).map("".join)
formats = st.sampled_from(FORMATS)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Format, str]:
    """An answer in a format: whole calls and thoughts, cut-off ones, and noise between them."""
    format_ = draw(formats)
    own = [text for other, _, text in _CASES if other.name == format_.name]
    parts = draw(st.lists(st.one_of(st.sampled_from(own or [""]), soups), max_size=4))
    text = "".join(parts)
    return format_, text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


def visible(deltas: list[Delta]) -> str:
    return "".join(
        delta.text for delta in deltas if isinstance(delta, Content | Reasoning | CallArguments)
    )


@pytest.mark.parametrize(("format_", "prompt", "text"), _CASES)
def test_known_answer_may_be_cut_anywhere(format_: Format, prompt: str, text: str) -> None:
    whole = parse(format_.parser(TOOLS, prompt=prompt), text)
    assert streamed(format_.parser(TOOLS, prompt=prompt), text) == whole
    for place in range(1, len(text)):
        assert streamed(format_.parser(TOOLS, prompt=prompt), cut(text, [place])) == whole


@given(answers(), st.lists(st.integers(0, 1000), max_size=12), st.booleans())
def test_streamed_equals_unstreamed_wherever_the_text_is_cut(
    answer: tuple[Format, str], places: list[int], parallel: bool
) -> None:
    format_, text = answer
    whole = parse(new_parser(format_, parallel=parallel), text)
    assert streamed(new_parser(format_, parallel=parallel), cut(text, places)) == whole
    assert streamed(new_parser(format_, parallel=parallel), text) == whole


@given(answers(), soups)
def test_what_was_given_out_is_never_taken_back(answer: tuple[Format, str], more: str) -> None:
    format_, text = answer
    said = merged(new_parser(format_).feed(text))
    whole = parse(new_parser(format_), text + more)
    assert said[:-1] == whole[: max(len(said) - 1, 0)]
    for last, then in zip(said[-1:], whole[len(said) - 1 :], strict=False):
        assert type(last) is type(then)
        assert visible([then]).startswith(visible([last]))


@given(formats, st.text(st.characters(exclude_characters="<[{\r\n\t \x0b"), max_size=30))
def test_text_without_markup_is_given_out_at_once(format_: Format, text: str) -> None:
    if format_.name == "harmony":
        text = "<|channel|>final<|message|>" + text
    parser = new_parser(format_)
    assert visible(parser.feed(text)) == text.removeprefix("<|channel|>final<|message|>")


@given(answers())
def test_without_tools_nothing_is_a_call(answer: tuple[Format, str]) -> None:
    format_, text = answer
    deltas = parse(format_.parser((), prompt=""), text)
    assert all(isinstance(delta, Content | Reasoning) for delta in deltas)


@given(answers())
def test_only_white_space_and_markup_are_left_out(answer: tuple[Format, str]) -> None:
    """Every letter of what was given out stands in the answer, in the same order."""
    format_, text = answer
    rest = iter(text)
    wrote = visible(parse(new_parser(format_), text))
    assert format_.name == "qwen_coder" or all(letter in rest for letter in wrote)
