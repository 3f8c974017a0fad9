from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count

import pytest

pytest.importorskip("torch")
pytest.importorskip("llguidance")

from openworks.core.errors import (
    AppError,
    ContextLengthExceededError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from openworks.core.json import JsonObject
from openworks.engines.batched.formats.base import Format
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.plain import Plain
from openworks.engines.batched.grammar import GrammarCompiler
from openworks.engines.batched.prompts import Prompt, Prompter
from openworks.engines.batched.sampling import Choice, SamplingRules
from openworks.engines.batched.template import load_template
from openworks.engines.batched.writer import AnswerWriter
from openworks.ports.text import ChatRequest, CompletionRequest, JsonFormat, Sampling, TextChunk
from tests.fakes import CountingIds, FakeClock
from tests.unit.engines.batched.scripts import TINY, tokens
from tests.unit.engines.batched.templates import TOOL
from tests.unit.engines.batched.vocabularies import TINY_CHAT

CONTEXT = 200
GRAMMARS = GrammarCompiler(TINY)
USER: JsonObject = {"role": "user", "content": "What is naïve?"}
OTHER: JsonObject = {**TOOL, "function": {"name": "sing", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"word": "so"}}\n</tool_call>'


def prompter(
    *, format_: Format | None = None, context_tokens: int = CONTEXT, has_template: bool = True
) -> Prompter:
    return Prompter(
        tokenizer=TINY,
        template=load_template(TINY_CHAT, clock=FakeClock()) if has_template else None,
        format_=format_ or Hermes(),
        grammars=GRAMMARS,
        defaults=SamplingRules(temperature=0.0),
        context_tokens=context_tokens,
        new_id=CountingIds(),
        new_seed=count(100).__next__,
    )


def asked(**fields: object) -> ChatRequest:
    return ChatRequest(messages=[USER], **fields)  # type: ignore[arg-type] # of many types


def completed(prompt: str | list[int], sampling: Sampling | None = None) -> CompletionRequest:
    return CompletionRequest(prompt=prompt, sampling=sampling or Sampling())


def allows(writer: AnswerWriter, token: int) -> bool:
    allowed = writer.draw().allowed
    return allowed is None or bool(allowed[token // 32] >> (token % 32) & 1)


def follows(writer: AnswerWriter, text: str) -> bool:
    """Whether an answer may begin so; as far as it may, it does."""
    for token in tokens(text):
        if not allows(writer, token):
            return False
        writer.take(Choice(token))
    return True


def said(writer: AnswerWriter, ids: Iterable[int]) -> list[TextChunk]:
    return [chunk for token in ids if (chunk := writer.take(Choice(token))) is not None]


def chat_writers(request: ChatRequest) -> list[AnswerWriter]:
    maker = prompter()
    return maker.writers(maker.chat(request), request.sampling, request.n)


def room(prompt: Prompt, max_tokens: int | None, maker: Prompter) -> int:
    (writer,) = maker.writers(prompt, Sampling(max_tokens=max_tokens), 1)
    return writer.max_tokens


@pytest.mark.parametrize(
    ("max_tokens", "expected"), [(None, 7), (5, 5), (7, 7), (8, 7), (10**9, 7)]
)
def test_answer_has_what_the_context_leaves_it(max_tokens: int | None, expected: int) -> None:
    maker = prompter(context_tokens=10)
    prompt = maker.complete(completed([50, 51, 52]))
    assert room(prompt, max_tokens, maker) == expected


def test_prompt_one_token_short_of_the_context_has_room_for_one() -> None:
    maker = prompter(context_tokens=10)
    assert room(maker.complete(completed([50] * 9)), None, maker) == 1


@pytest.mark.parametrize("num_tokens", [10, 11])
def test_prompt_that_fills_the_context_is_refused_with_both_counts(num_tokens: int) -> None:
    with pytest.raises(
        ContextLengthExceededError, match=f"10 tokens.*{num_tokens} tokens"
    ) as error:
        prompter(context_tokens=10).complete(completed([50] * num_tokens))
    assert error.value.param == "prompt"


def test_conversation_that_fills_the_context_is_refused_by_its_own_name() -> None:
    with pytest.raises(ContextLengthExceededError) as error:
        prompter(context_tokens=10).chat(asked())
    assert error.value.param == "messages"


@pytest.mark.parametrize("prompt", ["", []])
def test_prompt_without_tokens_is_refused(prompt: str | list[int]) -> None:
    with pytest.raises(InvalidRequestError, match="no tokens") as error:
        prompter().complete(completed(prompt))
    assert error.value.param == "prompt"


@pytest.mark.parametrize("token", [-1, TINY.num_tokens])
def test_token_that_the_model_does_not_have_is_refused(token: int) -> None:
    with pytest.raises(InvalidRequestError, match=str(token)):
        prompter().complete(completed([50, token]))


def test_prompt_of_tokens_is_taken_as_it_is_and_echoed_as_text() -> None:
    maker, ids = prompter(), tokens("naïve 🙂 text")
    assert list(maker.complete(completed(ids)).token_ids) == ids
    assert maker.text_of(completed(ids)) == "naïve 🙂 text"


def test_echo_of_a_torn_character_says_that_it_is_torn() -> None:
    ids = tokens("🙂")
    assert len(ids) > 1
    assert prompter().text_of(completed(ids[:-1])) == "\N{REPLACEMENT CHARACTER}"


def test_model_without_tokens_for_it_fills_in_no_text() -> None:
    request = CompletionRequest(prompt="a", suffix="b")
    with pytest.raises(UnsupportedParameterError) as error:
        prompter().complete(request)
    assert error.value.param == "suffix"


def test_model_without_a_template_does_not_chat() -> None:
    with pytest.raises(UnsupportedParameterError):
        prompter(has_template=False).chat(asked())


def test_tools_of_a_model_whose_calls_are_unknown_are_refused() -> None:
    with pytest.raises(UnsupportedParameterError) as error:
        prompter(format_=Plain()).chat(asked(tools=[TOOL]))
    assert error.value.param == "tools"


def test_tools_that_may_not_be_called_bind_nothing() -> None:
    (writer,) = chat_writers(asked(tools=[TOOL], tool_choice="none"))
    chunks = said(writer, tokens(CALL))
    assert "".join(chunk.content for chunk in chunks) == CALL
    assert writer.draw().allowed is None


@pytest.mark.parametrize("choice", ["required", "look_up"])
def test_call_that_must_be_made_cannot_be_talked_around(choice: str) -> None:
    (writer,) = chat_writers(asked(tools=[TOOL], tool_choice=choice))
    assert not allows(writer, tokens("Hello")[0])
    assert follows(writer, CALL)


def test_function_that_was_not_chosen_cannot_be_called() -> None:
    request = asked(tools=[OTHER, TOOL], tool_choice="look_up")
    (writer,) = chat_writers(request)
    assert not follows(writer, '<tool_call>\n{"name": "sing"')


def test_answers_are_free_until_they_call() -> None:
    (writer,) = chat_writers(asked(tools=[TOOL]))
    assert follows(writer, "Hello <b>")
    assert writer.draw().allowed is None
    assert follows(writer, '<tool_call>\n{"name": "')
    assert not follows(writer, "sing")


@pytest.mark.parametrize("tools", [(), (TOOL,)])
def test_json_that_is_wanted_is_all_that_can_be_said_but_for_calls(
    tools: tuple[JsonObject, ...],
) -> None:
    wanted = JsonFormat(schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    request = asked(tools=tools, response_format=wanted, n=3)
    json_writer, call_writer, talker = chat_writers(request)
    assert follows(json_writer, '{"n": 1}')
    assert follows(call_writer, CALL) == bool(tools)
    assert not follows(talker, "Hello")


def test_each_answer_has_a_grammar_a_parser_and_counts_of_its_own() -> None:
    sampling = Sampling(frequency_penalty=1.0)
    first, second = chat_writers(
        asked(tools=[TOOL], tool_choice="required", n=2, sampling=sampling)
    )
    one = said(first, tokens(CALL))
    two = said(second, tokens(CALL))
    for chunks in (one, two):
        arguments = "".join(call.arguments for chunk in chunks for call in chunk.tool_calls)
        assert json.loads(arguments) == {"word": "so"}
    ids = [call.id for chunk in one + two for call in chunk.tool_calls if call.id]
    assert len(set(ids)) == 2
    assert first.draw().seen is not second.draw().seen
    assert {chunk.index for chunk in two} == {1}


def test_answers_share_a_seed_and_differ_by_their_number() -> None:
    first, second = (writer.draw() for writer in chat_writers(asked(n=2)))
    assert first.seed == second.seed
    assert (first.answer, second.answer) == (0, 1)


def test_seed_that_was_asked_for_is_taken() -> None:
    (writer,) = chat_writers(asked(sampling=Sampling(seed=7)))
    assert writer.draw().seed == 7


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (asked(tools=[TOOL], tool_choice="sing"), "tool_choice"),
        (asked(reasoning_effort="low"), "reasoning_effort"),
        (asked(response_format=JsonFormat(schema={"type": "no such"})), "response_format"),
        (asked(sampling=Sampling(logit_bias={TINY.num_tokens: 1.0})), "logit_bias"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(request_: ChatRequest, param: str) -> None:
    with pytest.raises(AppError) as error:
        chat_writers(request_)
    assert error.value.status == 400
    assert (error.value.param or "").startswith(param)
