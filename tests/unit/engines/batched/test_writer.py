from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

pytest.importorskip("torch")
pytest.importorskip("llguidance")

from hypothesis import given
from hypothesis import strategies as st

from openworks.engines.batched.detokenizer import Detokenizer
from openworks.engines.batched.formats.base import Format, Markers
from openworks.engines.batched.formats.harmony import Harmony
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.plain import Plain
from openworks.engines.batched.formats.tools import Tool
from openworks.engines.batched.grammar import GrammarCompiler
from openworks.engines.batched.sampling import Choice, SamplingRules
from openworks.engines.batched.writer import AnswerPlan, AnswerWriter, Constraints
from openworks.ports.text import TextChunk
from tests.fakes import CountingIds
from tests.unit.engines.batched.scripts import EOS, TINY, tokens

HERMES = Hermes(reasoning=Markers("<think>", "</think>"))
HARMONY = Harmony()
TOOL = Tool(
    name="look_up",
    parameters={
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
    },
)
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"word": "so"}}\n</tool_call>'
GRAMMARS = GrammarCompiler(TINY)


class Answer:
    """One answer, written token by token."""

    def __init__(
        self,
        format_: Format | None = None,
        *,
        max_tokens: int = 500,
        stops: Sequence[str] = (),
        must_call: bool = False,
        parallel: bool = True,
        logprobs: bool = True,
        constraints: Constraints | None = None,
        prompt: str = "",
    ) -> None:
        self.chunks: list[TextChunk] = []
        self.num_allowed = 0
        parser = None
        if format_ is not None:
            parser = format_.parser([TOOL] if format_.knows_calls else [], parallel=parallel)
            if prompt:
                parser = format_.parser([TOOL], parallel=parallel, prompt=prompt)
        if constraints is None and format_ is not None and format_.knows_calls:
            constraints = Constraints(
                after={
                    trigger: GRAMMARS.lark(
                        format_.call_grammar(
                            [TOOL],
                            parallel=parallel,
                            token_ids=TINY.added_ids,
                            after_trigger=trigger,
                        ),
                        param="tools",
                    )
                    for trigger in format_.call_triggers
                }
            )
        self.writer = AnswerWriter(
            AnswerPlan(
                index=0,
                rules=SamplingRules(top_logprobs=0 if logprobs else None),
                seed=1,
                max_tokens=max_tokens,
                stops=stops,
                must_call=must_call,
            ),
            tokenizer=TINY,
            detokenizer=Detokenizer(TINY),
            parser=parser,
            constraints=constraints or Constraints(),
            counts=None,
            new_id=CountingIds(),
        )

    def write(self, said: str | Sequence[int], *, ends: bool = True) -> Answer:
        """Take what the model says, and its end, as far as the answer goes."""
        ids = tokens(said) if isinstance(said, str) else said
        for token in [*ids, EOS] if ends else ids:
            if self.writer.finish_reason is not None:
                break
            if self.writer.draw().allowed is not None:
                self.num_allowed += 1
            chunk = self.writer.take(Choice(token, -1.0))
            if chunk is not None:
                self.chunks.append(chunk)
        return self

    @property
    def content(self) -> str:
        return "".join(chunk.content for chunk in self.chunks)

    @property
    def reasoning(self) -> str:
        return "".join(chunk.reasoning for chunk in self.chunks)

    @property
    def arguments(self) -> list[str]:
        calls = [call for chunk in self.chunks for call in chunk.tool_calls]
        return [
            "".join(call.arguments for call in calls if call.index == index)
            for index in sorted({call.index for call in calls})
        ]

    @property
    def spoken(self) -> str:
        """What the tokens with log probabilities spell."""
        found = [token for chunk in self.chunks for token in chunk.logprobs]
        return b"".join(bytes(token.bytes) for token in found).decode(errors="replace")

    @property
    def finish_reason(self) -> str | None:
        reasons = [chunk.finish_reason for chunk in self.chunks if chunk.finish_reason]
        assert len(reasons) <= 1
        return reasons[0] if reasons else None


def test_end_ends_an_answer_and_is_no_part_of_it() -> None:
    answer = Answer().write("Hello there")
    assert (answer.content, answer.spoken) == ("Hello there", "Hello there")
    assert answer.finish_reason == "stop"
    assert answer.writer.num_tokens == len(tokens("Hello there")) + 1


def test_end_as_the_first_token_is_an_empty_answer() -> None:
    answer = Answer(HERMES).write("")
    assert (answer.content, answer.spoken, answer.finish_reason) == ("", "", "stop")
    assert answer.writer.num_tokens == 1


def test_answer_that_is_long_enough_ends_by_its_length() -> None:
    answer = Answer(max_tokens=3).write("one two three four five six")
    assert answer.finish_reason == "length"
    assert tokens(answer.content) == tokens("one two three four five six")[:3]


def test_end_as_the_last_token_that_may_come_is_an_end() -> None:
    said = "one two"
    answer = Answer(max_tokens=len(tokens(said)) + 1).write(said)
    assert answer.finish_reason == "stop"


def test_stop_in_the_last_token_that_may_come_is_a_stop() -> None:
    said = "one two three"
    answer = Answer(max_tokens=len(tokens(said)), stops=["ee"]).write(said)
    assert (answer.content, answer.finish_reason) == ("one two thr", "stop")


def test_what_might_have_become_a_stop_is_given_out_at_the_end() -> None:
    said = "one two thr"
    answer = Answer(max_tokens=len(tokens(said)), stops=["three"]).write(said)
    assert (answer.content, answer.spoken) == (said, said)
    assert answer.finish_reason == "length"


def test_character_that_never_became_whole_is_given_out_at_the_end() -> None:
    half = next(token for token in range(TINY.num_tokens) if TINY.token_bytes(token) == b"\xc3")
    answer = Answer(HERMES, max_tokens=2).write([*tokens("a"), half])
    assert (answer.content, answer.finish_reason) == ("a\N{REPLACEMENT CHARACTER}", "length")
    assert answer.spoken == answer.content


def test_stop_in_reasoning_or_in_a_call_ends_nothing() -> None:
    answer = Answer(HERMES, stops=["so"]).write(f"<think>so</think>{CALL}")
    assert (answer.reasoning, answer.arguments) == ("so", ['{"word": "so"}'])
    assert answer.finish_reason == "tool_calls"


def test_stop_in_content_keeps_a_later_call_from_being_made() -> None:
    answer = Answer(HERMES, stops=["END"]).write(f"Well END{CALL}")
    assert (answer.content, answer.arguments) == ("Well ", [])
    assert answer.finish_reason == "stop"


def test_complete_grammar_ends_the_answer_without_an_end() -> None:
    matcher = GRAMMARS.json_schema({"enum": ["a"]})
    answer = Answer(Plain(), constraints=Constraints(matcher=matcher)).write('"a"', ends=False)
    assert (answer.content, answer.finish_reason) == ('"a"', "stop")


def test_complete_grammar_at_the_last_token_that_may_come_is_an_end() -> None:
    matcher = GRAMMARS.json_schema({"enum": ["a"]})
    constraints = Constraints(matcher=matcher)
    answer = Answer(Plain(), constraints=constraints, max_tokens=len(tokens('"a"')))
    assert answer.write('"a"').finish_reason == "stop"


def test_only_call_that_is_allowed_ends_the_answer() -> None:
    answer = Answer(HERMES, parallel=False).write(CALL + CALL)
    assert answer.arguments == ['{"word": "so"}']
    assert answer.finish_reason == "tool_calls"


def test_only_call_that_is_complete_with_the_last_token_that_may_come_is_whole() -> None:
    for num_tokens in range(1, len(tokens(CALL))):
        answer = Answer(HERMES, parallel=False, max_tokens=num_tokens).write(CALL)
        is_whole = answer.arguments == ['{"word": "so"}']
        assert answer.finish_reason == ("tool_calls" if is_whole else "length")


def test_call_that_is_cut_off_says_that_it_was_too_long() -> None:
    answer = Answer(HERMES, must_call=True, max_tokens=len(tokens(CALL)) - 12).write(CALL)
    assert len(answer.arguments) == 1
    assert answer.finish_reason == "length"
    assert answer.content == ""


def test_call_that_must_be_made_is_never_content_however_early_it_is_cut_off() -> None:
    for num_tokens in range(1, len(tokens(CALL))):
        answer = Answer(HERMES, must_call=True, max_tokens=num_tokens).write(CALL)
        assert (answer.content, answer.spoken) == ("", "")


def test_each_call_has_an_id_and_a_name_once() -> None:
    answer = Answer(HERMES).write(f"{CALL}\n{CALL}")
    begun = [(c.id, c.name) for chunk in answer.chunks for c in chunk.tool_calls if c.id]
    assert begun == [("call_1", "look_up"), ("call_2", "look_up")]
    assert [json.loads(each) for each in answer.arguments] == [{"word": "so"}] * 2


def test_call_is_bound_to_its_grammar_from_its_trigger_on() -> None:
    answer = Answer(HERMES).write(CALL)
    assert answer.num_allowed > 5


def test_trigger_that_comes_in_pieces_binds_as_well() -> None:
    pieces = [token for letter in "<tool_call>" for token in tokens(letter)]
    assert len(pieces) == len("<tool_call>")
    answer = Answer(HERMES).write([*pieces, *tokens(CALL.removeprefix("<tool_call>"))])
    assert answer.arguments == ['{"word": "so"}']
    assert answer.num_allowed > 5


@pytest.mark.parametrize("opening", ["<think>", ""])
def test_trigger_inside_reasoning_binds_nothing(opening: str) -> None:
    thought = "I could write <tool_call> here, or not."
    answer = Answer(HERMES, prompt="" if opening else "<think>")
    answer.write(f"{opening}{thought}</think>Hello")
    assert (answer.reasoning, answer.content) == (thought, "Hello")
    assert answer.num_allowed == 0


def test_trigger_in_pieces_inside_reasoning_binds_nothing() -> None:
    thought = "why <tool_call> "
    answer = Answer(HERMES).write([t for x in f"<think>{thought}.</think>Hi" for t in tokens(x)])
    assert (answer.reasoning, answer.content) == (f"{thought}.", "Hi")
    assert answer.num_allowed == 0


def test_call_after_a_trigger_inside_reasoning_is_bound() -> None:
    answer = Answer(HERMES).write(f"<think><tool_call></think>{CALL}")
    assert (answer.reasoning, answer.arguments) == ("<tool_call>", ['{"word": "so"}'])
    assert answer.num_allowed > 5


def test_trigger_inside_content_of_harmony_binds_nothing() -> None:
    said = "Write to=functions.look_up yourself"
    answer = Answer(HARMONY).write(f"<|channel|>final<|message|>{said}")
    assert answer.content == said
    assert answer.num_allowed == 0


def test_call_of_harmony_is_bound() -> None:
    head = "<|channel|>commentary to=functions."
    answer = Answer(HARMONY).write(f'{head}look_up <|constrain|>json<|message|>{{"word": "so"}}')
    assert answer.arguments == ['{"word": "so"}']
    assert answer.num_allowed > 5


def test_log_probabilities_are_those_of_the_content() -> None:
    answer = Answer(HERMES).write("<think>\nWell, so\n</think>\n\nHello there <b> you")
    assert answer.content == "Hello there <b> you"
    assert answer.spoken == answer.content


def test_empty_reasoning_has_no_log_probabilities() -> None:
    answer = Answer(HERMES).write("<think>\n\n</think>\n\nHello")
    assert (answer.content, answer.spoken) == ("Hello", "Hello")


def test_torn_character_at_the_end_has_its_own_log_probability_alone() -> None:
    half = next(token for token in range(TINY.num_tokens) if TINY.token_bytes(token) == b"\xc3")
    said = [*tokens("<think>\n</think>"), half]
    answer = Answer(HERMES, max_tokens=len(said)).write(said)
    assert answer.content == answer.spoken == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("parallel", [True, False])
def test_calls_have_no_log_probabilities(*, parallel: bool) -> None:
    answer = Answer(HERMES, parallel=parallel).write(f"Well.\n{CALL}")
    assert (answer.content, answer.spoken) == ("Well.", "Well.")
    assert answer.arguments == ['{"word": "so"}']


def test_log_probabilities_end_with_the_token_that_holds_the_stop() -> None:
    answer = Answer(HERMES, stops=["there"]).write("Hello <over there you")
    assert answer.content == "Hello <over "
    assert answer.spoken.startswith(answer.content)
    assert len(answer.spoken) <= len("Hello <over there")


@given(
    st.text("ab<>é🙂 \n", max_size=30),
    st.sampled_from(["", "<think>hm <\n</think>\n"]),
    st.sampled_from([(), ("ab",), ("🙂 ",)]),
)
def test_log_probabilities_spell_the_content_whatever_is_held_back(
    said: str, thought: str, stops: tuple[str, ...]
) -> None:
    answer = Answer(HERMES, stops=stops).write(thought + said)
    if answer.finish_reason == "stop" and not any(stop in said for stop in stops):
        assert answer.spoken.strip() == answer.content.strip()
    assert answer.spoken.strip().startswith(answer.content.strip())


@given(st.text("ab<>é🙂 \n", min_size=1, max_size=30))
def test_tokens_of_reasoning_are_all_counted(thought: str) -> None:
    answer = Answer(HERMES).write(f"<think>x{thought}x</think>Hello")
    assert answer.writer.num_reasoning_tokens >= len(tokens(f"x{thought}x"))
    assert answer.writer.num_reasoning_tokens < answer.writer.num_tokens - len(tokens("Hello"))


def test_answer_without_reasoning_counts_none() -> None:
    assert Answer(HERMES).write(f"Well.\n{CALL}").writer.num_reasoning_tokens == 0
