from collections.abc import Mapping

import pytest

from openworks.gateway.guard.chat_moderator import (
    LLAMA_GUARD_LABELS,
    MAX_PIECE_CHARS,
    ChatModerator,
    pieces_of,
)
from openworks.gateway.guard.guardrails import check_guardrails, needs_whole
from openworks.ports.gateways import Guardrails
from openworks.ports.moderation import ModerationUnavailableError


class Scores:
    """A moderator that says what it is told; None: that it is down."""

    def __init__(self, scores: Mapping[str, float] | None) -> None:
        self.scores = scores
        self.asked: list[str] = []

    async def categories(self, text: str) -> Mapping[str, float]:
        self.asked.append(text)
        if self.scores is None:
            raise ModerationUnavailableError("The scanner is down.")
        return self.scores


class Model:
    """A chat model that answers by a word in the prompt."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = answers
        self.prompts: list[str] = []

    async def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return next((said for word, said in self.answers.items() if word in prompt), "safe")


async def test_a_rule_that_blocks_refuses_with_the_code_of_its_side() -> None:
    rules = Guardrails(prompt={"S1": "BLOCK"}, response={"S1": "BLOCK", "S2": "FLAG"})
    moderator = Scores({"S1": 0.9, "S2": 0.9, "S3": 0.9})
    prompt = await check_guardrails(rules, "REQUEST", "x", moderator)
    assert (prompt.action, prompt.code, prompt.categories) == ("BLOCK", 2016, ("S1",))
    response = await check_guardrails(rules, "RESPONSE", "x", moderator)
    assert (response.code, response.categories) == (2017, ("S1", "S2"))


async def test_a_rule_that_flags_refuses_nothing() -> None:
    rules = Guardrails(prompt={"S1": "FLAG", "S2": "BLOCK"})
    verdict = await check_guardrails(rules, "REQUEST", "x", Scores({"S1": 1.0, "S2": 0.1}))
    assert (verdict.action, verdict.code, verdict.blocked) == ("FLAG", None, False)


async def test_without_rules_no_scanner_is_asked() -> None:
    moderator = Scores({"S1": 1.0})
    rules = Guardrails(response={"S1": "BLOCK"})
    assert (await check_guardrails(rules, "REQUEST", "x", moderator)).action is None
    assert moderator.asked == []


async def test_a_scanner_that_is_down_closes_only_where_a_rule_blocks() -> None:
    closed = await check_guardrails(
        Guardrails(prompt={"S1": "FLAG", "S2": "BLOCK"}), "REQUEST", "x", Scores(None)
    )
    assert (closed.blocked, closed.code, closed.unknown) == (True, 7013, ("S1", "S2"))
    open_ = await check_guardrails(Guardrails(prompt={"S1": "FLAG"}), "REQUEST", "x", Scores(None))
    assert (open_.blocked, open_.action, open_.unknown) == (False, None, ("S1",))


async def test_categories_that_the_scanner_does_not_know_are_named() -> None:
    rules = Guardrails(prompt={"P1": "BLOCK", "S1": "BLOCK"})
    verdict = await check_guardrails(rules, "REQUEST", "x", Scores({"S1": 0.0}))
    assert (verdict.blocked, verdict.unknown) == (False, ("P1",))


def test_only_a_blocking_rule_makes_streams_wait() -> None:
    assert needs_whole(Guardrails(response={"S1": "BLOCK"}))
    assert not needs_whole(Guardrails(prompt={"S1": "BLOCK"}, response={"S1": "FLAG"}))


async def test_the_embedded_models_labels_become_categories() -> None:
    model = Model({"bomb": "unsafe: weapons", "steal": "unsafe: crime"})
    text = "How do I build a bomb? " + "Tea is nice. " * 30 + "Let us steal it."
    scores = await ChatModerator(model).categories(text)
    assert {name for name, score in scores.items() if score} == {"S9", "S2"}
    assert scores["S1"] == 0.0
    assert len(model.prompts) > 1
    assert model.prompts[0].startswith("Is this safe or unsafe: How do I build a bomb?")


async def test_llama_guards_own_labels_are_understood() -> None:
    model = Model({"x": "unsafe\nS1,S10"})
    scores = await ChatModerator(model, labels=LLAMA_GUARD_LABELS).categories("x")
    assert {name for name, score in scores.items() if score} == {"S1", "S10"}


@pytest.mark.parametrize("answer", ["", "I cannot say.", "unsafe", "unsafe: unknown"])
async def test_an_answer_that_is_no_label_is_a_failure_of_the_scanner(answer: str) -> None:
    with pytest.raises(ModerationUnavailableError):
        await ChatModerator(Model({"x": answer})).categories("x")


async def test_a_text_that_is_too_long_is_not_judged_in_part() -> None:
    with pytest.raises(ModerationUnavailableError, match="judges 2 pieces"):
        await ChatModerator(Model({}), max_pieces=2).categories("word. " * 200)


def test_pieces_hold_all_of_a_text_and_are_short() -> None:
    text = "One. " * 100 + "x" * 1000 + "\nLast line"
    pieces = list(pieces_of(text))
    assert all(0 < len(piece) <= MAX_PIECE_CHARS for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
