"""GPT-OSS: messages with a channel each, of which one is thought and one may address a function.

The tokens are those of OpenAI's harmony response format:
https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.engines.batched.formats.answer import Answer
from openworks.engines.batched.formats.base import Format
from openworks.engines.batched.formats.grammar import Grammar, spelled
from openworks.engines.batched.formats.json_calls import read_arguments
from openworks.engines.batched.formats.reader import NotACall, Steps
from openworks.engines.batched.formats.tools import Tool

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN, END, CALL, RETURN = "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"
_ROLE = "assistant"
_OPENING = (START, CHANNEL)
_CLOSING = (END, CALL, RETURN)
_ADDRESS = "to=functions."
_MAX_WORD = 128


@dataclass(frozen=True, slots=True)
class _Header:
    channel: str
    recipient: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmony(Format):
    """`analysis` is reasoning, a message to `functions.<name>` is a call, the rest is content.

    An answer makes one call at most: its end is an end of the whole answer.
    """

    name: str = "harmony"
    call_tokens: frozenset[str] = frozenset({*_OPENING, MESSAGE, CONSTRAIN, *_CLOSING})
    call_triggers: tuple[str, ...] = (_ADDRESS,)

    def begun(self, prompt: str) -> str:
        at = prompt.rfind(START)
        return prompt[at:] if at >= 0 and not any(end in prompt[at:] for end in _CLOSING) else ""

    def read(self, answer: Answer) -> Steps[None]:
        if prompted := answer.reader.unread():
            answer.reader.skip(len(START))
            try:
                yield from self.read_calls(answer, START)
            except NotACall:
                answer.reader.back(len(prompted))  # the model did not say what the prompt says
        while marker := (yield from answer.text_until(_OPENING, answer.say)):
            yield from answer.attempt(self.read_calls(answer, marker), marker)

    def read_calls(self, answer: Answer, marker: str) -> Steps[None]:
        header = yield from _read_header(answer, marker)
        if header.recipient:
            yield from _read_call(answer, header.recipient.removeprefix("functions."))
            return
        answer.close_markup()
        put = answer.think if header.channel == "analysis" else answer.say
        end = yield from answer.text_until((*_CLOSING, *_OPENING), put)
        if end in _OPENING:
            answer.reader.back(answer.reader.at - len(end))
        answer.close_markup()

    def _calls(
        self, grammar: Grammar, tools: Sequence[Tool], *, parallel: bool, after_trigger: str
    ) -> str:
        kind = f" {CONSTRAIN}json{MESSAGE}"
        call = grammar.one_of(tools, lambda name: name + kind)
        end = f"{spelled(CALL, grammar.token_ids)}?"
        if not after_trigger:
            opening = spelled(f"{CHANNEL}commentary {_ADDRESS}", grammar.token_ids)
            return f"{opening} {call} {end}"
        other = grammar.one_of(tools, lambda name: f"{name}{CHANNEL}commentary{kind}")
        return f"({call} | {other}) {end}"

    def _before_answer(self, grammar: Grammar, prompt: str) -> str:
        opening = spelled(f"{CHANNEL}analysis{MESSAGE}", grammar.token_ids)
        closing = spelled(f"{START}{_ROLE}", grammar.token_ids)
        return f"({opening} {grammar.text_before(END)} {closing})?"

    def _around_content(self, grammar: Grammar, prompt: str, content: str) -> str:
        return f"{spelled(f'{CHANNEL}final{MESSAGE}', grammar.token_ids)} {content}"


def _read_header(answer: Answer, opening: str) -> Steps[_Header]:
    """Read up to the message: role, channel, recipient and type, in the orders that models use."""
    reader = answer.reader
    channel = recipient = kind = ""
    if opening == START:
        yield from reader.accept(_ROLE)
    else:
        channel = yield from _word(answer)
    while True:
        yield from reader.skip_space()
        if (yield from reader.accept(MESSAGE)):
            return _Header(channel, recipient)
        if not channel and (yield from reader.accept(CHANNEL)):
            channel = yield from _word(answer)
        elif not recipient and (yield from reader.accept("to=")):
            recipient = yield from _word(answer)
        elif channel and not kind:
            yield from reader.accept(CONSTRAIN)
            kind = yield from _word(answer)
        else:
            raise NotACall


def _read_call(answer: Answer, name: str) -> Steps[None]:
    if name not in answer.tools:
        raise NotACall
    yield from answer.reader.skip_space()
    yield from read_arguments(answer, name, stops=(*_CLOSING, *_OPENING))
    yield from answer.reader.skip_space()
    for closing in _CLOSING:
        if (yield from answer.reader.accept(closing)):
            return


def _word(answer: Answer) -> Steps[str]:
    reader = answer.reader
    begin = reader.at
    while (letter := (yield from reader.peek())).isalnum() or letter in {"_", ".", "-"}:
        reader.skip(1)
        if reader.at - begin > _MAX_WORD:
            raise NotACall
    if reader.at == begin:
        raise NotACall
    return reader.since(begin)
