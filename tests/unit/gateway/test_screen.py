from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from openworks.core.errors import BlockedError, ModelUnavailableError
from openworks.gateway.options import Options
from openworks.gateway.providers.peek import Peek
from openworks.gateway.providers.registry import Providers
from openworks.gateway.screen import Screen, Screened, make_screen
from openworks.gateway.steps import Step
from openworks.ports.gateways import DlpPolicy, Guardrails
from openworks.ports.moderation import ModerationUnavailableError, Moderator
from tests.unit.gateway.exchange_world import snapshot

CARD = "4242 4242 4242 4242"


class Labels:
    def __init__(self, **categories: float) -> None:
        self.found = categories
        self.texts: list[str] = []

    async def categories(self, text: str) -> Mapping[str, float]:
        self.texts.append(text)
        return self.found


class Down:
    async def categories(self, text: str) -> Mapping[str, float]:
        raise ModerationUnavailableError("It is down.")


def screen_of(moderator: Moderator | None = None, **fields: Any) -> Screen:
    made = make_screen(snapshot(**fields).gateway, moderator)
    assert made is not None
    return made


def dlp(action: Any) -> dict[str, Any]:
    return {"dlp": (DlpPolicy(id="p1", action=action, profiles=("financial",)),)}


def guard(prompt: Any = None, response: Any = None) -> dict[str, Any]:
    return {"guardrails": Guardrails(prompt=prompt or {}, response=response or {})}


def step_of(text: str) -> Step:
    provider = Providers().get("openai")
    assert provider is not None
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    return Step(
        provider=provider,
        endpoint="chat/completions",
        query=b"",
        method=b"POST",
        headers=[],
        body=body,
        peek=Peek("m", False, None, len(body)),
        options=Options(),
    )


def answer_of(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def test_gateway_without_guards_has_no_screen() -> None:
    assert make_screen(snapshot().gateway, None) is None


@pytest.mark.parametrize(("action", "is_kept"), [("FLAG", True), ("REDACT", False)])
async def test_finding_in_a_prompt_is_noted_and_redacted_where_it_must_be(
    action: str, is_kept: bool
) -> None:
    step, screened = step_of(f"pay {CARD} now"), Screened()
    await screen_of(**dlp(action)).prompt(step, screened)
    assert (CARD.encode() in step.body) == is_kept
    assert screened.logged == step.body
    assert screened.findings
    assert screened.headers[0][0] == b"cf-aig-dlp"
    assert CARD not in repr((screened.findings, screened.headers))


async def test_blocked_prompt_is_refused_and_logged_without_the_finding() -> None:
    step, screened = step_of(CARD), Screened()
    with pytest.raises(BlockedError) as caught:
        await screen_of(**dlp("BLOCK")).prompt(step, screened)
    assert caught.value.code == "dlp_request"
    assert CARD not in caught.value.message
    assert CARD.encode() not in screened.logged


async def test_harmless_prompt_passes_byte_for_byte() -> None:
    step, screened = step_of("hello"), Screened()
    body = step.body
    await screen_of(**dlp("BLOCK")).prompt(step, screened)
    assert step.body is body
    assert screened.headers == []


async def test_answer_is_redacted_or_refused() -> None:
    body = answer_of(f"your card is {CARD}")
    redacted = await screen_of(**dlp("REDACT")).answer(body, Screened())
    assert CARD.encode() not in redacted
    with pytest.raises(BlockedError) as caught:
        await screen_of(**dlp("BLOCK")).answer(body, Screened())
    assert caught.value.code == "dlp_response"


async def test_harmless_answer_is_the_same_object() -> None:
    body = answer_of("hello")
    assert await screen_of(**dlp("REDACT")).answer(body, Screened()) is body


async def test_category_blocks_or_flags_by_side() -> None:
    labels = Labels(S1=0.9)
    with pytest.raises(BlockedError) as caught:
        await screen_of(labels, **guard(prompt={"S1": "BLOCK"})).prompt(step_of("x"), Screened())
    assert caught.value.code == "guardrails_prompt"
    with pytest.raises(BlockedError) as caught:
        await screen_of(labels, **guard(response={"S1": "BLOCK"})).answer(
            answer_of("x"), Screened()
        )
    assert caught.value.code == "guardrails_response"
    screened = Screened()
    await screen_of(labels, **guard(prompt={"S1": "FLAG"})).prompt(step_of("x"), screened)
    assert screened.findings == ("S1",)


@pytest.mark.parametrize("moderator", [Down(), None])
async def test_scanner_that_cannot_tell_closes_only_where_a_rule_blocks(
    moderator: Moderator | None,
) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        await screen_of(moderator, **guard(prompt={"S1": "BLOCK"})).prompt(step_of("x"), Screened())
    assert caught.value.code == "scanner_unavailable"
    await screen_of(moderator, **guard(prompt={"S1": "FLAG"})).prompt(step_of("x"), Screened())


async def test_stream_is_judged_by_its_texts_put_together() -> None:
    labels = Labels(S1=0.0)
    events = b"".join(
        b'data: {"choices":[{"index":%d,"delta":{"content":"%b"}}]}\n\n' % (index, text)
        for index, text in ((0, b"he"), (1, b"A"), (0, b"llo"), (1, b"B"))
    )
    body = events + b": comment\ndata: not json\n\ndata: [DONE]\n\n"
    await screen_of(labels, **guard(response={"S1": "BLOCK"})).judge_stream(body, Screened())
    assert labels.texts == ["hello\nAB"]


def test_stream_is_held_only_where_a_rule_may_block_it() -> None:
    assert screen_of(None, **guard(response={"S1": "BLOCK"})).holds_streams
    flagging = screen_of(None, **guard(response={"S1": "FLAG"}))
    assert flagging.judges_streams
    assert not flagging.holds_streams


def test_secret_split_over_chunks_of_a_stream_blocks_it() -> None:
    screen, screened = screen_of(**dlp("BLOCK")), Screened()
    (passing,) = screen.filters(screened)

    def feed(piece: str) -> bytes:
        event = {"choices": [{"index": 0, "delta": {"content": piece}}]}
        return passing.feed(b"data: " + json.dumps(event).encode() + b"\n\n")

    sent = feed("4242 42") + feed("42 4242")
    with pytest.raises(BlockedError):
        feed(" 4242 is it") + feed(" and more")
    assert b"4242 4242" not in sent
    assert screened.findings


async def test_text_that_is_too_long_to_be_judged_is_refused_where_a_rule_blocks() -> None:
    """Padding must not carry the end of a prompt past the scanner."""
    labels, step = Labels(S1=0.0), step_of(" " * 300_000 + "the end")
    with pytest.raises(ModelUnavailableError):
        await screen_of(labels, **guard(prompt={"S1": "BLOCK"})).prompt(step, Screened())
    await screen_of(labels, **guard(prompt={"S1": "FLAG"})).prompt(step, Screened())
    assert labels.texts == []
