"""Hermes and Qwen: a JSON object between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.base import Format
from openworks.engines.batched.formats.grammar import Grammar, spelled
from openworks.engines.batched.formats.json_calls import call_head, read_json_call
from openworks.engines.batched.formats.reader import Steps
from openworks.engines.batched.formats.tools import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hermes(Format):
    """One element for each call."""

    name: str = "hermes"
    call_tokens: frozenset[str] = frozenset({OPEN, CLOSE})
    call_triggers: tuple[str, ...] = (OPEN,)

    def read_calls(self, answer: Answer, marker: str) -> Steps[None]:
        reader = answer.reader
        yield from reader.skip_space()
        yield from read_json_call(answer, stops=(CLOSE,))
        yield from reader.skip_space()
        yield from reader.accept(CLOSE)

    def _calls(
        self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool, after_trigger: str
    ) -> str:
        body = grammar.one_of(tools, lambda name: "\n" + call_head(name, "arguments"))
        end = spelled(f"}}\n{CLOSE}", grammar.token_ids)
        call = grammar.rule("call", f"{spelled(OPEN, grammar.token_ids)} {body} {end}")
        first = f"{body} {end}" if after_trigger else call
        return f"{first} (/\\n?/ {call})*" if parallel else first
