"""Secrets and personal data in what is asked and answered: flagged, redacted, blocked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.gateway_server import GatewayServer, Place, chat_body
from tests.gateway.stand_in import Reply, Tokens, chat_completion

CARD = "4111 1111 1111 1111"
IBAN = "DE89370400440532013000"
AWS_KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
TOKENS = Tokens(model="mock", prompt=10, completion=20)


def _dlp(action: str, *check: str, profiles: tuple[str, ...] = ("financial",)) -> dict[str, Any]:
    policy = {
        "id": "p1",
        "action": action,
        "check": list(check or ("REQUEST", "RESPONSE")),
        "enabled": True,
        "profiles": list(profiles),
    }
    return {"enabled": True, "policies": [policy]}


def _ask(place: Place, text: str, **more: Any) -> Any:
    body = chat_body("mock", messages=[{"role": "user", "content": text}], **more)
    return place.post("openai/chat/completions", body, gateway="gw")


def _stream_of(text: str, size: int) -> Reply:
    """A stream that says `text` in pieces of `size` characters."""
    events = []
    for at in range(0, len(text), size):
        delta = {"role": "assistant", "content": text[at : at + size]}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
        events.append(b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n")
    events.append(b"data: [DONE]\n\n")
    return Reply(headers=(("content-type", "text/event-stream"),), chunks=events)


def _said(body: str) -> str:
    text = ""
    for line in body.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:]).get("choices", ()):
                text += choice["delta"].get("content") or ""
    return text


def _findings(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.headers["cf-aig-dlp"])
    return found


def test_a_flagged_request_goes_on_unchanged_and_says_so(place: Place) -> None:
    place.make(dlp=_dlp("FLAG"))

    answer = _ask(place, f"My card is {CARD}.")

    assert answer.status_code == 200
    assert CARD in place.provider.requests[0].body.decode()
    findings = _findings(answer)
    assert findings["action"] == "FLAG"
    assert findings["findings"][0]["profile"]["profile_id"] == "financial"
    assert findings["findings"][0]["policy_ids"] == ["p1"]
    assert findings["findings"][0]["check"] == "REQUEST"
    assert CARD not in answer.headers["cf-aig-dlp"]
    assert place.record_of(answer).guard_findings


def test_a_redacted_request_reaches_the_provider_without_the_secret(place: Place) -> None:
    place.make(dlp=_dlp("REDACT", "REQUEST", profiles=("financial", "credentials")))

    answer = _ask(place, f"My card is {CARD}, the key {AWS_KEY}, thanks.")

    assert answer.status_code == 200
    sent = place.provider.requests[0].body.decode()
    assert CARD not in sent
    assert AWS_KEY not in sent
    assert "thanks." in sent


def test_a_blocked_request_is_not_sent(place: Place) -> None:
    place.make(dlp=_dlp("BLOCK"))

    answer = _ask(place, f"My account is {IBAN}.")

    assert answer.status_code == 424
    assert answer.json()["internalCode"] == 2029
    assert IBAN not in answer.text
    assert _findings(answer)["action"] == "BLOCK"
    assert not place.provider.requests
    record = place.record_of(answer)
    assert (record.status, record.error_code, record.attempts) == (424, "dlp_request", 0)


def test_numbers_that_only_look_like_cards_pass(place: Place) -> None:
    place.make(dlp=_dlp("BLOCK"))

    assert _ask(place, "Order 4111 1111 1111 1112 is late.").status_code == 200


def test_a_redacted_answer_comes_without_the_secret(place: Place) -> None:
    place.make(dlp=_dlp("REDACT", "RESPONSE"))
    place.provider.queue(chat_completion(TOKENS, f"Take {CARD} then."))

    answer = _ask(place, "Which card?")

    assert answer.status_code == 200
    content = answer.json()["choices"][0]["message"]["content"]
    assert CARD not in answer.text
    assert content.startswith("Take ")
    assert content.endswith(" then.")
    record = place.record_of(answer)
    assert record.usage.completion_tokens == 20


def test_a_blocked_answer_is_not_told_and_still_paid(place: Place) -> None:
    place.make(dlp=_dlp("BLOCK", "RESPONSE"))
    place.provider.queue(chat_completion(TOKENS, f"Take {CARD} then."))

    answer = _ask(place, "Which card?")

    assert answer.status_code == 424
    assert answer.json()["internalCode"] == 2030
    assert CARD not in answer.text
    record = place.record_of(answer)
    assert record.error_code == "dlp_response"
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (10, 20)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_a_secret_split_over_a_streams_chunks_is_redacted(place: Place, size: int) -> None:
    place.make(dlp=_dlp("REDACT", "RESPONSE"))
    place.provider.queue(_stream_of(f"Take {CARD} then, or {IBAN}, or nothing.", size))

    answer = _ask(place, "Which card?", stream=True)

    said = _said(answer.text)
    assert "4111" not in said
    assert IBAN not in said
    assert said.startswith("Take ")
    assert said.endswith(", or nothing.")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert place.record_of(answer).guard_findings


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_stream_that_must_not_go_on_ends_with_an_error(place: Place, size: int) -> None:
    place.make(dlp=_dlp("BLOCK", "RESPONSE"))
    place.provider.queue(_stream_of(f"Take {CARD} then.", size))

    answer = _ask(place, "Which card?", stream=True)

    assert "4111 1111" not in _said(answer.text)
    last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last[6:])["error"]["code"] == "dlp_response"
    record = place.record_of(answer)
    assert (record.outcome, record.error_code) == ("error", "dlp_response")


def test_a_clean_stream_passes_through_the_guard_with_the_same_text(place: Place) -> None:
    place.make(dlp=_dlp("REDACT"))
    text = "Nothing here: 1234 5678, DE12, a@b, AKIA and so on. " * 5
    place.provider.queue(_stream_of(text, 3))

    answer = _ask(place, "Say it.", stream=True)

    assert _said(answer.text) == text


def test_custom_profiles_find_words_and_patterns(place: Place) -> None:
    own = {"id": "own", "patterns": {"ticket": "TK-[0-9]{4}"}, "words": {"name": ["Bluebird"]}}
    place.make(dlp={**_dlp("REDACT", profiles=("own",)), "custom_profiles": [own]})

    _ask(place, "The bluebird ticket TK-1234 and TK-12.")

    sent = place.provider.requests[0].body.decode()
    assert "TK-1234" not in sent
    assert "bluebird" not in sent
    assert "TK-12." in sent


def test_redacted_answers_are_not_kept_for_callers_without_the_policy(place: Place) -> None:
    place.make(dlp=_dlp("REDACT", "RESPONSE"), cache_ttl=60)
    place.provider.script(lambda _: chat_completion(TOKENS, f"Take {CARD} then."))
    assert CARD not in _ask(place, "Which card?").text

    place.make(dlp=None, cache_ttl=60)
    assert CARD in _ask(place, "Which card?").text

    place.make(dlp=_dlp("BLOCK", "RESPONSE"), cache_ttl=60)
    assert _ask(place, "Which card?").status_code == 424


def test_universal_steps_are_screened_each(place: Place) -> None:
    place.make(dlp=_dlp("REDACT", "REQUEST"))
    steps = [
        {
            "provider": slug,
            "endpoint": "chat/completions",
            "query": chat_body(model, messages=[{"role": "user", "content": f"It is {CARD}."}]),
        }
        for slug, model in (("openai", "mock-x500"), ("groq", "mock"))
    ]

    answer = place.post("", steps, gateway="gw")

    assert answer.headers["cf-aig-step"] == "1"
    assert len(place.provider.requests) == 2
    assert all(CARD not in r.body.decode() for r in place.provider.requests)


def test_no_secret_is_in_our_own_logs(gateway_server: GatewayServer, place: Place) -> None:
    for action in ("REDACT", "BLOCK"):
        place.make(dlp=_dlp(action))
        place.provider.queue(chat_completion(TOKENS, f"Take {CARD} then."))
        _ask(place, f"It is {IBAN}.")
    place.provider.queue(_stream_of(f"Take {CARD} then.", 4))
    _ask(place, "Which card?", stream=True)
    place.records(3)

    folder = gateway_server.process.settings.folder
    for file in [each for each in folder.rglob("*") if each.is_file()]:
        data = file.read_bytes()
        assert IBAN.encode() not in data, file
        assert CARD.encode() not in data, file
