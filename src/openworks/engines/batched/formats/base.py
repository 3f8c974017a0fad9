"""What a family's way of writing tool calls and reasoning has to say for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openworks.core.json import JsonObject
from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.deltas import Delta, merged
from openworks.engines.batched.formats.grammar import Grammar, json_rule, spelled
from openworks.engines.batched.formats.reader import Steps
from openworks.engines.batched.formats.tools import Tool

_NO_IDS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts around reasoning."""

    open: str
    close: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(ABC):
    """How one family of models writes."""

    name: str
    call_tokens: frozenset[str] = frozenset()
    """Markers of calls that may be special tokens of the vocabulary."""
    call_triggers: tuple[str, ...] = ()
    """Texts after which a call must follow; a grammar can begin behind each of them."""
    reasoning: Markers | None = None

    @property
    def special_tokens(self) -> frozenset[str]:
        """Tokens that the detokenizer has to leave in the text, although they may be special."""
        marks = self.reasoning
        return self.call_tokens | ({marks.open, marks.close} if marks else frozenset())

    @property
    def knows_calls(self) -> bool:
        """Whether tools can be offered."""
        return True

    def parser(
        self, tools: Sequence[Tool] = (), *, parallel: bool = True, prompt: str = ""
    ) -> AnswerParser:
        """Return a parser for one answer.

        Args:
            tools: What may be called. A call of anything else is content; so are all without tools.
            parallel: Whether there may be several calls.
            prompt: What the answer continues; its end may have opened the reasoning.
        """
        return AnswerParser(self, tools, parallel=parallel, prompt=prompt)

    def begun(self, prompt: str) -> str:
        """Return the markup at the end of `prompt` that the answer continues."""
        marks = self.reasoning
        if marks is not None and prompt.rstrip().endswith(marks.open):
            return marks.open
        return ""

    def read(self, answer: Answer) -> Steps[None]:
        """Read a whole answer: reasoning first, then content with calls in it."""
        yield from self._read_reasoning(answer)
        markers = self.call_markers if answer.tools else ()
        while marker := (yield from answer.text_until(markers, answer.say)):
            yield from answer.attempt(self.read_calls(answer, marker), marker)

    @property
    def call_markers(self) -> tuple[str, ...]:
        """Texts with which calls begin."""
        return self.call_triggers

    @abstractmethod
    def read_calls(self, answer: Answer, marker: str) -> Steps[None]:
        """Read what follows a call marker.

        Once a function's name is known and the object of its arguments has begun, it is a call,
        and its arguments are given out as they come, broken or not.

        Raises:
            NotACall: Before anything was given out.
        """

    def call_grammar(
        self,
        tools: Sequence[Tool],
        *,
        parallel: bool,
        token_ids: Mapping[str, int] = _NO_IDS,
        prompt: str = "",
        after_trigger: str = "",
    ) -> str:
        """Return a Lark grammar, as llguidance reads it, of answers that call.

        Args:
            tools: What may be called; at least one.
            parallel: Whether there may be several calls.
            token_ids: The added tokens of the vocabulary; a marker that is one is written by it.
            prompt: What the answer continues. Reasoning may come first, or must be ended.
            after_trigger: One of `call_triggers` that the model has just written; the grammar
                begins right behind it, and `prompt` is of no account.
        """
        grammar = Grammar(token_ids)
        calls = self._calls(grammar, tools, parallel=parallel, after_trigger=after_trigger)
        before = "" if after_trigger else self._before_answer(grammar, prompt)
        grammar.rule("start", f"{before} {calls}")
        return grammar.text()

    def json_grammar(
        self,
        schema: JsonObject | None,
        *,
        tools: Sequence[Tool] = (),
        parallel: bool = True,
        token_ids: Mapping[str, int] = _NO_IDS,
        prompt: str = "",
    ) -> str:
        """Return a Lark grammar of answers whose content is JSON, or that call instead.

        Args:
            schema: What the content must fit; None for any object.
            tools: What may be called; none for content only.
            parallel: As for `call_grammar`, like what follows.
            token_ids: The added tokens of the vocabulary.
            prompt: What the answer continues.
        """
        grammar = Grammar(token_ids)
        json_content = grammar.rule("content", json_rule(schema or {"type": "object"}))
        choices = [self._around_content(grammar, prompt, json_content)]
        if tools:
            choices.append(self._calls_beside_json(grammar, tools, parallel=parallel))
        before = self._before_answer(grammar, prompt)
        grammar.rule("start", f"{before} ({' | '.join(choices)})")
        return grammar.text()

    @abstractmethod
    def _calls(
        self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool, after_trigger: str
    ) -> str:
        """Add the rules of calls; return the expression that stands for all of them."""

    def _calls_beside_json(self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool) -> str:
        """As `_calls`, from the beginning; JSON that is content may stand there as well."""
        return self._calls(grammar, tools, parallel=parallel, after_trigger="")

    def _before_answer(self, grammar: Grammar, prompt: str) -> str:
        """Return the expression of what may or must come before content and calls."""
        if self.reasoning is None:
            return ""
        rest = f"{grammar.text_before(self.reasoning.close)} /\\n{{0,2}}/"
        if self.begun(prompt):
            return rest
        return f"({spelled(self.reasoning.open, grammar.token_ids)} {rest})?"

    def _around_content(self, grammar: Grammar, prompt: str, content: str) -> str:
        return content

    def _read_reasoning(self, answer: Answer) -> Steps[None]:
        if (marks := self.reasoning) is None:
            return
        begin = answer.reader.at
        yield from answer.reader.skip_space()
        if not (yield from answer.reader.accept(marks.open)):
            answer.reader.back(begin)
            return
        answer.close_markup()
        yield from answer.text_until((marks.close,), answer.think)
        answer.close_markup()


class AnswerParser:
    """Takes one answer in pieces; what it gives out does not depend on where they were cut."""

    def __init__(
        self, format_: Format, tools: Sequence[Tool], *, parallel: bool, prompt: str
    ) -> None:
        self._answer = Answer(tools, parallel=parallel)
        self._steps = format_.read(self._answer)
        self.feed(format_.begun(prompt))  # what comes out of it is the prompt's

    @property
    def done(self) -> bool:
        """The only call that was allowed is complete; what follows is dropped."""
        return self._answer.done

    def feed(self, text: str) -> list[Delta]:
        """Take the next piece; return what is certain now."""
        self._answer.reader.feed(text)
        next(self._steps, None)
        return self._answer.drain()

    def finish(self) -> list[Delta]:
        """Return what was held back; the answer is over."""
        self._answer.reader.ended = True
        next(self._steps, None)
        return self._answer.drain()


def parse(parser: AnswerParser, text: str) -> list[Delta]:
    """Return what a whole answer holds."""
    return merged([*parser.feed(text), *parser.finish()])
