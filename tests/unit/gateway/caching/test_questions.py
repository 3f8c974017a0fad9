from __future__ import annotations

from typing import Any

import pytest

from openworks.gateway.caching.questions import question_of, question_scope

CHAT = b"/v1/chat/completions"


def chat(text: Any, **changes: Any) -> dict[str, Any]:
    return {
        "model": "gpt-5",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": text},
        ],
        **changes,
    }


def rest(body: Any, target: bytes = CHAT) -> bytes:
    question = question_of(target, body)
    assert question is not None
    return question.rest


def test_only_the_last_user_text_may_differ() -> None:
    assert rest(chat("What is a cat?")) == rest(chat("Tell me what a cat is."))
    assert rest(chat("Hi")) != rest(chat("Hi", temperature=1))
    assert rest(chat("Hi")) != rest(chat("Hi", tools=[{"type": "function"}]))
    assert rest(chat("Hi")) != rest(chat("Hi", stream=True))
    other = chat("Hi")
    other["messages"][0]["content"] = "Be long."
    assert rest(chat("Hi")) != rest(other)


def test_the_order_of_keys_does_not_matter() -> None:
    body = chat("Hi")
    assert rest(body) == rest(dict(reversed(body.items())))


def test_numbers_must_be_the_same() -> None:
    assert rest(chat("What is 2 + 2?")) != rest(chat("What is 2 + 3?"))
    assert rest(chat("Where is order 17-4?")) == rest(chat("My order 17-4, where is it?"))


@pytest.mark.parametrize(
    ("target", "body", "text"),
    [
        (CHAT, chat([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "a\nb"),
        (b"/v1/messages", chat(" Hi "), "Hi"),
        (
            b"/v1beta/models/g:generateContent",
            {"contents": [{"parts": [{"text": "Hi"}]}]},
            "Hi",
        ),
        (b"/v1/responses", {"model": "m", "input": "Hi"}, "Hi"),
        (b"/v1/responses?x=1", {"input": [{"role": "user", "content": "Hi"}]}, "Hi"),
    ],
)
def test_the_shapes_of_chats_are_read(target: bytes, body: Any, text: str) -> None:
    question = question_of(target, body)
    assert question is not None
    assert question.text == text


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (b"/v1/embeddings", {"input": "Hi"}),
        (b"/v1/moderations", {"input": "Hi"}),
        (CHAT, [1]),
        (CHAT, {"messages": []}),
        (CHAT, {"messages": "Hi", "model": None, "x": 1} | {"messages": [7]}),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}),
        (CHAT, chat([{"type": "image_url", "image_url": {"url": "data:"}}])),
        (CHAT, chat([{"type": "text", "text": "Hi", "cache_control": {}}])),
        (CHAT, chat("")),
        (CHAT, chat("x" * 10_000)),
    ],
)
def test_what_is_no_plain_question_is_left_to_the_exact_cache(target: bytes, body: Any) -> None:
    assert question_of(target, body) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"account": "b"},
        {"gateway": "h"},
        {"epoch": 1},
        {"provider": "groq"},
        {"target": b"/v1/messages"},
        {"credential": b"d"},
    ],
)
def test_scopes_keep_accounts_gateways_and_credentials_apart(changes: dict[str, Any]) -> None:
    question = question_of(CHAT, chat("Hi"))
    assert question is not None
    base: dict[str, Any] = {
        "account": "a",
        "gateway": "g",
        "epoch": 0,
        "provider": "openai",
        "target": CHAT,
        "credential": b"c",
    }
    assert question_scope(question, **base) != question_scope(question, **{**base, **changes})
