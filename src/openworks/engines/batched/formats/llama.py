"""Llama 3.1 and later: a bare JSON object as the whole answer, or after `<|python_tag|>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.base import Format
from openworks.engines.batched.formats.grammar import Grammar, spelled
from openworks.engines.batched.formats.json_calls import call_head, read_json_call
from openworks.engines.batched.formats.reader import Steps
from openworks.engines.batched.formats.tools import Tool

PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama(Format):
    """Calls stand first, parted by semicolons or lines; an object later on is content."""

    name: str = "llama"
    call_tokens: frozenset[str] = frozenset({PYTHON_TAG})
    call_triggers: tuple[str, ...] = (PYTHON_TAG,)

    def read(self, answer: Answer) -> Steps[None]:
        yield from self._read_reasoning(answer)
        if not answer.tools:
            yield from answer.text_until((), answer.say)
            return
        yield from self._read_more(answer)
        while marker := (yield from answer.text_until(self.call_markers, answer.say)):
            if (yield from answer.attempt(self.read_calls(answer, marker), marker)):
                yield from self._read_more(answer)

    def read_calls(self, answer: Answer, marker: str) -> Steps[None]:
        yield from answer.reader.skip_space()
        yield from read_json_call(answer, stops=(PYTHON_TAG,))

    def _read_more(self, answer: Answer) -> Steps[None]:
        """Read calls without a marker, as many as there are."""
        while (yield from answer.attempt(self._read_bare(answer))):
            pass

    def _read_bare(self, answer: Answer) -> Steps[None]:
        yield from answer.reader.skip_space()
        yield from answer.reader.accept(";")
        yield from self.read_calls(answer, "")

    def _calls(
        self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool, after_trigger: str
    ) -> str:
        call = grammar.one_of(tools, lambda name: call_head(name, "parameters"), tail="}")
        tag = "" if after_trigger else f"{spelled(PYTHON_TAG, grammar.token_ids)}?"
        return f'{tag} {call} ("; " {call})*' if parallel else f"{tag} {call}"

    def _calls_beside_json(self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool) -> str:
        # Two kinds of JSON cannot be told apart at the first brace: the marker has to be written.
        tag = spelled(PYTHON_TAG, grammar.token_ids)
        return f"{tag} {self._calls(grammar, tools, parallel=parallel, after_trigger=PYTHON_TAG)}"
