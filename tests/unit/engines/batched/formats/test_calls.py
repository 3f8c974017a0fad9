from __future__ import annotations

import json

import pytest

from openworks.engines.batched.formats.base import Format, parse
from openworks.engines.batched.formats.deltas import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Reasoning,
)
from openworks.engines.batched.formats.harmony import Harmony
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.llama import Llama
from openworks.engines.batched.formats.mistral import Mistral
from openworks.engines.batched.formats.qwen_coder import QwenCoder
from tests.unit.engines.batched.formats.examples import (
    ARGUMENTS,
    BARE,
    HEAD,
    NO_CALLS,
    ONE_CALL,
    OTHER,
    TWO_CALLS,
    new_parser,
)


@pytest.mark.parametrize(("format_", "text"), ONE_CALL)
def test_call_has_its_name_and_the_arguments_as_the_model_wrote_them(
    format_: Format, text: str
) -> None:
    assert parse(new_parser(format_), text) == [
        CallBegin(0, "weather"),
        CallArguments(0, ARGUMENTS),
        CallEnd(0),
    ]


@pytest.mark.parametrize(("format_", "text"), TWO_CALLS)
def test_parallel_calls_are_numbered(format_: Format, text: str) -> None:
    assert parse(new_parser(format_), text) == [
        CallBegin(0, "weather"),
        CallArguments(0, ARGUMENTS),
        CallEnd(0),
        CallBegin(1, "weather_map"),
        CallArguments(1, OTHER),
        CallEnd(1),
    ]


@pytest.mark.parametrize(("format_", "text"), TWO_CALLS)
def test_answer_is_done_after_the_first_call_where_only_one_is_allowed(
    format_: Format, text: str
) -> None:
    parser = new_parser(format_, parallel=False)
    assert parse(parser, text)[-1] == CallEnd(0)
    assert parser.done


@pytest.mark.parametrize(("format_", "text"), NO_CALLS)
def test_what_is_no_call_is_content_to_the_letter(format_: Format, text: str) -> None:
    assert parse(new_parser(format_), text) == [Content(text)]


@pytest.mark.parametrize(("format_", "text"), ONE_CALL)
def test_call_that_is_cut_off_has_no_end(format_: Format, text: str) -> None:
    begun = text[: text.index('"city": "Ro') + 11]
    if begun.startswith('<tool_call>{"arguments"'):
        return  # its name was still to come
    assert parse(new_parser(format_), begun) == [
        CallBegin(0, "weather"),
        CallArguments(0, '{"days": 2,  "city": "Ro'),
    ]


def test_arguments_are_given_out_as_they_come() -> None:
    parser = new_parser(Hermes())
    assert parser.feed('<tool_call>\n{"name": "weather", "arg') == []
    assert parser.feed('uments": {"da') == [CallBegin(0, "weather"), CallArguments(0, '{"da')]
    assert parser.feed('ys": 2}') == [CallArguments(0, 'ys": 2}'), CallEnd(0)]


@pytest.mark.parametrize(
    ("format_", "begun"), [(Llama(), '{"name": "wea'), (Mistral(), "[TOOL_CALLS]wea")]
)
def test_name_is_refused_at_the_first_letter_that_no_tool_has(format_: Format, begun: str) -> None:
    parser = new_parser(format_)
    assert parser.feed(begun) == []
    assert parser.feed("s") == [Content(begun + "s")]


def test_broken_arguments_end_with_the_element_and_the_answer_goes_on() -> None:
    text = '<tool_call>\n{"name": "weather", "arguments": {"days": 2</tool_call>\nDone.'
    assert parse(new_parser(Hermes()), text) == [
        CallBegin(0, "weather"),
        CallArguments(0, '{"days": 2'),
        CallEnd(0),
        Content("Done."),
    ]


def test_content_around_calls_loses_the_white_space_beside_them() -> None:
    text = 'One moment.\n\n<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>\nThere.'
    assert parse(new_parser(Hermes()), text) == [
        Content("One moment."),
        CallBegin(0, "weather"),
        CallArguments(0, "{}"),
        CallEnd(0),
        Content("There."),
    ]


def test_second_item_of_a_list_that_is_no_call_is_content() -> None:
    text = '[TOOL_CALLS][{"name": "weather", "arguments": {}}, {"name": "nobody"}]'
    assert parse(new_parser(Mistral()), text)[-1] == Content(', {"name": "nobody"}]')


def test_bare_parameters_become_json_by_the_types_of_the_schema() -> None:
    begin, arguments, end = parse(new_parser(QwenCoder()), BARE)
    assert (begin, end) == (CallBegin(0, "weather"), CallEnd(0))
    assert isinstance(arguments, CallArguments)
    assert json.loads(arguments.text) == {
        "days": 3,
        "note": ' 12 "a"\n',
        "where": {"abroad": True},
    }


def test_bare_value_that_is_not_of_its_type_is_given_as_text() -> None:
    text = "<function=weather><parameter=days>three</parameter></function>"
    assert CallArguments(0, '{"days": "three"}') in parse(new_parser(QwenCoder()), text)


def test_function_without_parameters_gets_an_empty_object() -> None:
    text = "<tool_call>\n<function=weather_map>\n</function>\n</tool_call>"
    assert CallArguments(0, "{}") in parse(new_parser(QwenCoder()), text)


def test_preamble_of_a_call_is_content_and_its_analysis_reasoning() -> None:
    text = (
        "<|channel|>analysis<|message|>Which city?<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        f"<|start|>assistant{HEAD}{ARGUMENTS}<|call|>"
    )
    assert parse(new_parser(Harmony()), text) == [
        Reasoning("Which city?"),
        Content("I look."),
        CallBegin(0, "weather"),
        CallArguments(0, ARGUMENTS),
        CallEnd(0),
    ]


def test_header_that_never_ends_is_not_held_back() -> None:
    text = "<|channel|>" + "a" * 200
    assert new_parser(Harmony()).feed(text) == [Content(text)]
