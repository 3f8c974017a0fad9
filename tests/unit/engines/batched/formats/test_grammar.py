from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from random import Random

import pytest
from jsonschema import Draft202012Validator

from openworks.core.json import JsonObject
from openworks.engines.batched.formats.base import Format, Markers, parse
from openworks.engines.batched.formats.deltas import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Delta,
)
from openworks.engines.batched.formats.harmony import Harmony
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.llama import Llama
from openworks.engines.batched.formats.mistral import Mistral
from openworks.engines.batched.formats.plain import Plain
from openworks.engines.batched.formats.qwen_coder import QwenCoder
from openworks.engines.batched.formats.tools import Tool, read_tools
from tests.unit.engines.batched.formats.examples import PROMPTS, THINK, TOOLS, new_parser

pytest.importorskip("llguidance")

from tests.unit.engines.batched.formats.vocabulary import Vocabulary

BOUNDED: JsonObject = {
    "type": "object",
    "properties": {"note": {"enum": ["yes", "no"]}, "days": {"type": "integer", "maximum": 99}},
    "required": ["note", "days"],
}
"""Without free text: a writer at random would hardly ever write what ends it."""

CASES: list[tuple[Format, str]] = [
    (Hermes(), ""),
    (Hermes(), "<tool_call>"),
    (Llama(), ""),
    (Llama(), "<|python_tag|>"),
    (Mistral(), ""),
    (Mistral(), "[TOOL_CALLS]"),
    (Mistral(names_first=True), ""),
    (Mistral(names_first=True), "[TOOL_CALLS]"),
    (Harmony(), ""),
    (Harmony(), "to=functions."),
    (QwenCoder(), ""),
    (QwenCoder(), "<tool_call>"),
]


@cache
def vocabulary(added: frozenset[str]) -> Vocabulary:
    return Vocabulary(added)


def tools_for(format_: Format) -> tuple[Tool, ...]:
    if format_.name != "qwen_coder":
        return TOOLS
    return (replace(TOOLS[0], parameters=BOUNDED), TOOLS[1])


def check_calls(deltas: list[Delta], tools: tuple[Tool, ...]) -> int:
    """Every delta is part of a complete call with valid arguments; return how many there are."""
    names = [delta.name for delta in deltas if isinstance(delta, CallBegin)]
    arguments = [delta.text for delta in deltas if isinstance(delta, CallArguments)]
    ends = [delta for delta in deltas if isinstance(delta, CallEnd)]
    assert len(names) == len(arguments) == len(ends) == len(deltas) / 3
    schemas = {tool.name: tool.parameters for tool in tools}
    for name, text in zip(names, arguments, strict=True):
        Draft202012Validator(schemas[name]).validate(json.loads(text))
    return len(ends)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(("format_", "trigger"), CASES)
def test_all_that_the_grammar_allows_is_parsed_as_valid_calls(
    format_: Format, trigger: str, added: bool, parallel: bool
) -> None:
    words = vocabulary(format_.special_tokens if added else frozenset())
    tools = tools_for(format_)
    grammar = format_.call_grammar(
        tools,
        parallel=parallel,
        token_ids=words.token_ids,
        prompt=PROMPTS.get(format_.name, ""),
        after_trigger=trigger,
    )
    harmony = format_.name == "harmony"
    begin = "<|channel|>commentary" if harmony and not trigger else ""  # and no endless thought
    counts = set()
    for seed in range(12):
        text = words.write(grammar, Random(seed), begin)
        before = "<|channel|>commentary " if harmony and "commentary" not in text else " "
        text = f"{before}{trigger}{text}" if trigger else text
        counts.add(check_calls(parse(new_parser(format_), text), tools))
    assert counts == {1} if harmony or not parallel else len(counts) > 1


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(
    ("format_", "prompt", "thought"),
    [
        (Hermes(reasoning=THINK), "", "<think>\nHm, a <b>.\n</think>\n\n"),
        (Hermes(reasoning=THINK), "<think>\n", "Hm, a <b>.\n</think>\n\n"),
        (QwenCoder(reasoning=THINK), "<think>", "Hm.</think>"),
        (
            Mistral(names_first=True, reasoning=Markers("[THINK]", "[/THINK]")),
            "",
            "[THINK]Hm, [a].[/THINK]",
        ),
        (
            Harmony(),
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Hm, a <b>.<|end|><|start|>assistant",
        ),
    ],
)
def test_thought_may_come_before_a_call_that_must_be_made(
    format_: Format, prompt: str, thought: str, added: bool
) -> None:
    words = vocabulary(format_.special_tokens if added else frozenset())
    tools = tools_for(format_)
    grammar = format_.call_grammar(tools, parallel=False, token_ids=words.token_ids, prompt=prompt)
    text = words.write(grammar, Random(1), thought)
    _, *call = parse(format_.parser(tools, prompt=prompt), text)
    assert check_calls(call, tools) == 1


def test_free_text_of_a_bare_parameter_may_hold_anything_but_its_end() -> None:
    grammar = QwenCoder().call_grammar(TOOLS[:1], parallel=False)
    text = (
        "<tool_call>\n<function=weather>\n<parameter=days>\n3\n</parameter>\n"
        "<parameter=city>\nRome\n</parameter>\n"
        '<parameter=note>\n"</param\n\n</parameter>\n</function>\n</tool_call>'
    )
    assert vocabulary(frozenset()).allows(grammar, text)
    _, arguments, _ = parse(new_parser(QwenCoder()), text)
    assert isinstance(arguments, CallArguments)
    assert json.loads(arguments.text)["note"] == '"</param\n'


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"days": 1}}\n</tool_call>',
        '<tool_call>\n{"name": "weather_map", "arguments": {"made": "up"}}\n</tool_call>',
        "I would rather not.",
    ],
)
def test_no_other_call_and_no_other_arguments_are_allowed(text: str) -> None:
    grammar = Hermes().call_grammar(TOOLS, parallel=True)
    assert not vocabulary(frozenset()).allows(grammar, text)


def test_function_without_parameters_takes_none() -> None:
    tools = read_tools([{"type": "function", "function": {"name": "now"}}])
    grammar = Llama().call_grammar(tools, parallel=False)
    assert vocabulary(frozenset()).allows(grammar, '{"name": "now", "parameters": {}}')
    assert not vocabulary(frozenset()).allows(grammar, '{"name": "now", "parameters": {"a": 1}}')


def test_unknown_keywords_are_passed_over_unless_the_tool_is_strict() -> None:
    function: JsonObject = {
        "name": "f",
        "parameters": {"type": "object", "not": {"required": ["a"]}},
    }
    (tool,) = read_tools([{"type": "function", "function": function}])
    words = vocabulary(frozenset())
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert words.allows(Hermes().call_grammar([tool], parallel=False), text)
    with pytest.raises(AssertionError, match="not"):
        words.allows(Hermes().call_grammar([replace(tool, strict=True)], parallel=False), text)


@pytest.mark.parametrize(
    ("format_", "prompt", "text"),
    [
        (Plain(), "", '{"note": "no", "days": 4}'),
        (Plain(reasoning=THINK), "", '<think>Hm.</think>\n{"note": "no","days":4}'),
        (Plain(reasoning=THINK), "<think>\n", 'Hm.</think>{"note": "no", "days": 4}'),
        (Harmony(), "<|start|>assistant", '<|channel|>final<|message|>{"note":"no","days":4}'),
    ],
)
def test_json_content_has_the_schema_behind_the_markup_of_its_format(
    format_: Format, prompt: str, text: str
) -> None:
    words = vocabulary(format_.special_tokens)
    grammar = format_.json_grammar(BOUNDED, token_ids=words.token_ids, prompt=prompt)
    assert words.allows(grammar, text)
    assert not words.allows(grammar, text.replace("4", '"4"'))
    content = parse(format_.parser(prompt=prompt), text)[-1]
    assert isinstance(content, Content)
    assert json.loads(content.text) == {"note": "no", "days": 4}


@pytest.mark.parametrize("schema", [None, BOUNDED])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(
    ("format_", "call"),
    [
        (Hermes(), '<tool_call>\n{"name": "weather_map", "arguments": {}}\n</tool_call>'),
        (Llama(), '<|python_tag|>{"name": "weather_map", "parameters": {}}'),
        (Mistral(), '[TOOL_CALLS][{"name": "weather_map", "arguments": {}}]'),
        (Mistral(names_first=True), "[TOOL_CALLS]weather_map[ARGS]{}"),
        (QwenCoder(), "<tool_call>\n<function=weather_map>\n</function>\n</tool_call>"),
        (
            Harmony(),
            "<|channel|>commentary to=functions.weather_map <|constrain|>json<|message|>{}<|call|>",
        ),
    ],
)
def test_answer_is_json_or_a_call_where_there_are_tools(
    format_: Format, call: str, added: bool, schema: JsonObject | None
) -> None:
    words = vocabulary(format_.special_tokens if added else frozenset())
    grammar = format_.json_grammar(
        schema, tools=TOOLS, token_ids=words.token_ids, prompt=PROMPTS.get(format_.name, "")
    )
    opening = "<|channel|>final<|message|>" if format_.name == "harmony" else ""
    assert words.allows(grammar, opening + '{"note": "no", "days": 4}')
    assert words.allows(grammar, call)
    assert not words.allows(grammar, "Well.")


def test_any_object_is_allowed_without_a_schema() -> None:
    grammar = Plain().json_grammar(None)
    assert vocabulary(frozenset()).allows(grammar, '{"a": [1, {"b": null}]}')
    assert not vocabulary(frozenset()).allows(grammar, "[1]")
