"""Qwen3-Coder: elements for a function and its parameters, whose values stand bare between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from openworks.core.json import JsonObject
from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.base import Format
from openworks.engines.batched.formats.grammar import Grammar, json_rule, spelled
from openworks.engines.batched.formats.hermes import CLOSE, OPEN
from openworks.engines.batched.formats.reader import NotACall, Steps, decoded
from openworks.engines.batched.formats.tools import Tool

_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_COMBINED = frozenset({"anyOf", "oneOf", "allOf", "$ref", "const"})


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenCoder(Format):
    """The arguments are given out as JSON that we write, typed by the function's schema."""

    name: str = "qwen_coder"
    call_tokens: frozenset[str] = frozenset({OPEN, CLOSE})
    call_triggers: tuple[str, ...] = (OPEN,)

    @property
    def call_markers(self) -> tuple[str, ...]:
        return (OPEN, _FUNCTION)  # these models forget the outer element at times

    def read_calls(self, answer: Answer, marker: str) -> Steps[None]:
        reader = answer.reader
        if marker == OPEN:
            yield from reader.skip_space()
            yield from reader.expect(_FUNCTION)
        name = yield from reader.word(answer.tools, ends=">")
        yield from reader.expect(">")
        answer.begin_call(name)
        yield from _read_parameters(answer, answer.tools[name])
        yield from reader.skip_space()
        yield from reader.accept(CLOSE)

    def _calls(
        self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool, after_trigger: str
    ) -> str:
        functions = " | ".join(
            f"{spelled(f'{chr(10)}{_FUNCTION}{tool.name}>{chr(10)}', {})} "
            f"{_parameter_rules(grammar, tool)}"
            for tool in tools
        )
        function = grammar.rule("function", functions)
        end = spelled(f"{_FUNCTION_END}\n{CLOSE}", grammar.token_ids)
        call = grammar.rule("call", f"{spelled(OPEN, grammar.token_ids)} {function} {end}")
        first = f"{function} {end}" if after_trigger else call
        return f'{first} ("\\n" {call})*' if parallel else first


def _read_parameters(answer: Answer, tool: Tool) -> Steps[None]:
    reader = answer.reader
    separator = "{"
    while True:
        yield from reader.skip_space()
        if not (yield from reader.accept(_PARAMETER)):
            break
        name = yield from _read_name(answer)
        answer.argue(f"{separator}{json.dumps(name, ensure_ascii=False)}: ")
        separator = ", "
        yield from reader.accept("\n")
        if not (yield from _read_value(answer, as_text=_is_text(_schema_of(tool, name)))):
            return
    ended = yield from reader.accept(_FUNCTION_END)
    if ended or (yield from reader.peek()):
        answer.argue("{}" if separator == "{" else "}")
        answer.end_call()


def _read_name(answer: Answer) -> Steps[str]:
    reader = answer.reader
    begin = reader.at
    while (letter := (yield from reader.peek())) and letter not in ">\n":
        reader.skip(1)
    name = reader.since(begin)
    yield from reader.accept(">")
    return name


def _read_value(answer: Answer, *, as_text: bool) -> Steps[bool]:
    """Give out a parameter's value; False where the end of the answer cut it off."""
    ends = (f"\n{_PARAMETER_END}", _PARAMETER_END)
    if as_text:
        answer.argue('"')
        end = yield from answer.text_until(ends, partial(_argue_escaped, answer), trim=False)
        answer.argue('"' if end else "")
        return bool(end)
    pieces: list[str] = []
    end = yield from answer.text_until(ends, pieces.append, trim=False)
    text = "".join(pieces)
    answer.argue(_as_json(text.strip()) if end else text)
    return bool(end)


def _as_json(text: str) -> str:
    try:
        decoded(text)
    except NotACall:
        return json.dumps(text, ensure_ascii=False)
    return text


def _argue_escaped(answer: Answer, text: str) -> None:
    answer.argue(json.dumps(text, ensure_ascii=False)[1:-1])


def _schema_of(tool: Tool, name: str) -> JsonObject:
    properties = tool.parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, dict) else None
    return schema if isinstance(schema, dict) else {}


def _is_text(schema: JsonObject) -> bool:
    """Whether a value stands for itself; a schema that says nothing means text."""
    kind, choices = schema.get("type"), schema.get("enum")
    if isinstance(kind, list):
        return "string" in kind
    if kind is None and isinstance(choices, list):
        return all(isinstance(choice, str) for choice in choices)
    if kind is None:
        return not _COMBINED & schema.keys()
    return kind == "string"


def _parameter_rules(grammar: Grammar, tool: Tool) -> str:
    """Return the expression of all parameters, in the order of the schema."""
    properties, required = tool.parameters.get("properties"), tool.parameters.get("required")
    if not isinstance(properties, dict):
        return ""
    needed = required if isinstance(required, list) else []
    parts = []
    for name in properties:
        schema = _schema_of(tool, name)
        value = _value_rule(grammar, tool, schema)
        part = f"{spelled(f'{_PARAMETER}{name}>{chr(10)}', {})} {value}"
        parts.append(part if name in needed else f"({part})?")
    return " ".join(parts)


def _value_rule(grammar: Grammar, tool: Tool, schema: JsonObject) -> str:
    end = f"\n{_PARAMETER_END}\n"
    choices = schema.get("enum")
    if _is_text(schema):
        if isinstance(choices, list):
            texts = [spelled(f"{choice}{end}", {}) for choice in choices]
            return f"({' | '.join(texts)})"
        return grammar.text_before(end)
    definitions = {
        key: tool.parameters[key] for key in {"$defs", "definitions"} & tool.parameters.keys()
    }
    value = grammar.rule(
        f"value_{grammar.size}", json_rule({**schema, **definitions}, lenient=not tool.strict)
    )
    return f"{value} {spelled(end, {})}"
