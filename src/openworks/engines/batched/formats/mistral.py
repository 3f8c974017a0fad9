"""Mistral: `[TOOL_CALLS]` before a list of JSON objects or, newer, before each name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.base import Format
from openworks.engines.batched.formats.grammar import Grammar, spelled
from openworks.engines.batched.formats.json_calls import (
    call_head,
    read_arguments,
    read_json_call,
)
from openworks.engines.batched.formats.reader import Steps
from openworks.engines.batched.formats.tools import Tool

CALLS, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistral(Format):
    """Both ways are read; `names_first` says which one the model was taught."""

    name: str = "mistral"
    call_tokens: frozenset[str] = frozenset({CALLS, ARGUMENTS, CALL_ID})
    call_triggers: tuple[str, ...] = (CALLS,)
    names_first: bool = False
    """`[TOOL_CALLS]name[ARGS]{...}` for each call, instead of one list for all."""

    def read_calls(self, answer: Answer, marker: str) -> Steps[None]:
        reader = answer.reader
        yield from reader.skip_space()
        if not (yield from reader.accept("[")):
            yield from self._read_named(answer)
            return
        yield from reader.skip_space()
        yield from read_json_call(answer)
        while (yield from answer.attempt(self._read_next(answer))):
            pass
        yield from answer.attempt(self._read_close(answer))

    def _read_named(self, answer: Answer) -> Steps[None]:
        reader = answer.reader
        name = yield from reader.word(answer.tools, ends="[{ \n")
        if (yield from reader.accept(CALL_ID)):
            while (letter := (yield from reader.peek())) and letter.isalnum():
                reader.skip(1)
        yield from reader.accept(ARGUMENTS)
        yield from reader.skip_space()
        yield from read_arguments(answer, name, stops=(CALLS,))

    def _read_next(self, answer: Answer) -> Steps[None]:
        yield from answer.reader.skip_space()
        yield from answer.reader.expect(",")
        yield from answer.reader.skip_space()
        yield from read_json_call(answer)

    def _read_close(self, answer: Answer) -> Steps[None]:
        yield from answer.reader.skip_space()
        yield from answer.reader.expect("]")

    def _calls(
        self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool, after_trigger: str
    ) -> str:
        opening = spelled(CALLS, grammar.token_ids)
        before = "" if after_trigger else opening
        if self.names_first:
            call = grammar.one_of(tools, lambda name: name + ARGUMENTS)
            return f"{before} {call} ({opening} {call})*" if parallel else f"{before} {call}"
        call = grammar.one_of(tools, lambda name: call_head(name, "arguments"), tail="}")
        more = f'(", " {call})*' if parallel else ""
        return f'{before} " "? "[" {call} {more} "]"'
