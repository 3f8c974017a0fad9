from __future__ import annotations

from itertools import combinations_with_replacement, pairwise
from typing import Any

import pytest

from openworks.gateway.caching.keys import cache_key, told_by

CALL: dict[str, Any] = {
    "account": "acc",
    "gateway": "default",
    "epoch": 0,
    "provider": "openai",
    "target": b"/v1/chat/completions",
    "credential": b"c" * 32,
    "headers": [(b"content-type", b"application/json")],
    "body": b'{"model":"gpt-5"}',
}


def key(**changes: Any) -> bytes:
    call = {**CALL, **changes}
    return cache_key(told=told_by(call.pop("headers")), **call)


@pytest.mark.parametrize(
    "changes",
    [
        {"account": "other"},
        {"gateway": "other"},
        {"epoch": 1},
        {"provider": "groq"},
        {"target": b"/v1/chat/completions?a=1"},
        {"credential": b"d" * 32},
        {"credential": b""},
        {"body": b'{"model":"gpt-5" }'},
        {"headers": [(b"accept", b"text/event-stream")]},
        {"headers": [*CALL["headers"], (b"anthropic-version", b"2023-06-01")]},
        {"headers": [*CALL["headers"], (b"anthropic-beta", b"x")]},
        {"headers": [*CALL["headers"], (b"openai-organization", b"org")]},
        {"headers": [*CALL["headers"], (b"openai-project", b"p")]},
        {"headers": [*CALL["headers"], (b"x-something-new", b"1")]},
        {"custom_key": b"mine"},
        {"custom_key": b'{"model":"gpt-5"}'},
    ],
)
def test_whatever_can_change_the_answer_changes_the_key(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_headers_that_say_who_asks_do_not_change_the_key() -> None:
    told = [
        (b"authorization", b"Bearer k"),
        (b"user-agent", b"curl"),
        (b"x-stainless-retry-count", b"2"),
        (b"traceparent", b"00-aa-bb-01"),
    ]
    assert key(headers=[*told, *CALL["headers"]]) == key()


def test_a_custom_key_stands_for_target_headers_and_body_and_nothing_else() -> None:
    mine = key(custom_key=b"mine")
    assert key(custom_key=b"mine", body=b"other", target=b"/x", headers=[]) == mine
    for changes in (
        {"account": "other"},
        {"gateway": "other"},
        {"provider": "groq"},
        {"credential": b""},
        {"epoch": 1},
        {"stream": True},
        {"custom_key": b"mine2"},
    ):
        assert key(**{"custom_key": b"mine", **changes}) != mine


NAMES = ("account", "gateway", "provider", "credential", "target", "body")


@pytest.mark.parametrize("is_custom", [False, True])
def test_parts_never_run_into_each_other(is_custom: bool) -> None:
    """Cut one text in every way: no two cuts share a key."""
    keys: dict[bytes, dict[str, Any]] = {}
    for cuts in combinations_with_replacement(range(7), 5):
        pieces = ["aaaaaa"[start:end] for start, end in pairwise([0, *cuts, 6])]
        parts: dict[str, Any] = dict(zip(NAMES, pieces, strict=True))
        for name in ("credential", "target", "body"):
            parts[name] = parts[name].encode()
        if is_custom:
            parts["custom_key"] = parts.pop("target") + parts.pop("body")
        assert keys.setdefault(key(headers=[], **parts), parts) == parts
    assert len(keys) == (210 if is_custom else 462)


def test_a_digit_moved_between_neighbours_changes_the_key() -> None:
    assert key(account="a", gateway="bc") != key(account="ab", gateway="c")
    assert key(target=b"/a", credential=b"b") != key(target=b"/", credential=b"ab")
    assert key(headers=[(b"a", b"b")], body=b"c") != key(headers=[], body=b"a:bc")
