import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.gateway.guard.channel import MAX_HELD_BYTES
from openworks.gateway.guard.stream import MAX_IDLE_EVENTS, StreamGuard
from openworks.ports.gateways import DlpProfile
from tests.unit.gateway.guard.support import (
    FORMS,
    anthropic,
    chat,
    chat_arguments,
    compiled,
    custom,
    event,
    redacted,
    responses,
    said,
    side,
    streamed,
    through,
    values,
)
from tests.unit.gateway.guard.test_detectors import SECRETS

TOKEN = SECRETS["github-token"]
MARK = "[REDACTED:github-token]"
TEXT = (
    f"key {TOKEN}, card 4111 1111 1111 1111 12; mail joe@example.com, +49 30 1234567 or "
    f"DE89 3704 0044 0532 0130 00 é😀 Bearer {SECRETS['openai-key']} 219-09-9998 "
    f"postgres://me:hunter22@db/x done"
)


def guard_of(*profiles: str) -> StreamGuard:
    return StreamGuard(side(compiled("REDACT", *profiles)))


@pytest.mark.parametrize("form", FORMS)
def test_a_text_cut_anywhere_is_redacted_as_the_whole(form: str) -> None:
    whole = redacted(TEXT)
    assert whole.count("[REDACTED:") >= 7
    for cut in range(len(TEXT) + 1):
        assert streamed((TEXT[:cut], TEXT[cut:]), compiled(), form) == whole, cut


@pytest.mark.parametrize("form", FORMS)
def test_a_text_that_comes_by_single_characters_is_redacted_as_the_whole(form: str) -> None:
    assert streamed(TEXT, compiled(), form) == redacted(TEXT)


@pytest.mark.parametrize("entry_id", SECRETS)
def test_no_credential_escapes_by_being_cut(entry_id: str) -> None:
    before = {
        "aws-secret-key": "AWS_SECRET_ACCESS_KEY=",
        "azure-storage-key": "AccountKey=",
        "bearer-token": "Bearer ",
        "url-password": "https://joe:",
    }.get(entry_id, "")
    text = f"It is {before}{SECRETS[entry_id]}@ ok"
    whole = redacted(text, compiled("REDACT", "credentials"))
    assert SECRETS[entry_id] not in whole
    rng = random.Random(5)
    for _ in range(12):
        cuts = sorted(rng.sample(range(len(text)), 3))
        bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
        pieces = [text[start:end] for start, end in bounds]
        assert streamed(pieces, compiled("REDACT", "credentials")) == whole


_FRAGMENTS = st.sampled_from(
    [TOKEN, "4111 1111 1111 1111", "me@example.com", "DE89 3704 0044 0532 0130 00", "536-90-4399",
     "+49 30 1234567", "ghp_", "sk-", "-----BEGIN", " ", "\n", "a", "é", "😀", "1", "@", "hello ",
     "eyJ", "://", ":", "\\n", ".", "-", "4111", SECRETS["jwt"]]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(fragments=st.lists(_FRAGMENTS, max_size=14), data=st.data())
def test_any_text_in_any_pieces_is_redacted_as_the_whole(
    fragments: list[str], data: st.DataObject
) -> None:
    text = "".join(fragments)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    bounds = list(zip([0, *cuts], [*cuts, len(text)], strict=True))
    pieces = [text[start:end] for start, end in bounds]
    assert streamed(pieces, compiled()) == redacted(text)


@settings(max_examples=60, deadline=None)
@given(
    fragments=st.lists(st.sampled_from(["ab", "abc", "cab", "x", "é", "Foo", "foo bar", " "])),
    data=st.data(),
)
def test_custom_entries_are_found_in_any_pieces(fragments: list[str], data: st.DataObject) -> None:
    policies = custom(
        DlpProfile(
            id="mine",
            patterns={"p": "(?:ab|c)+x", "lazy": "a.{1,5}?é"},
            words={"w": ("foo bar", "foo", "café")},
        )
    )
    text = "".join(fragments)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
    pieces = [text[start:end] for start, end in bounds]
    assert streamed(pieces, policies) == redacted(text, policies)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_bytes_cut_anywhere_come_to_the_same(newline: bytes) -> None:
    stream = b"".join(chat(piece) for piece in ("a ", TOKEN[:9], TOKEN[9:], " b", "é"))
    stream = (b": ping\n\n" + stream + b"data: [DONE]\n\n").replace(b"\n", newline)
    whole = through(guard_of(), [stream])
    assert said(whole) == f"a {MARK} bé"
    assert whole.startswith(b": ping" + newline)
    assert whole.endswith(b"data: [DONE]" + newline * 2)
    for cut in range(len(stream)):
        assert through(guard_of(), (stream[:cut], stream[cut:])) == whole
    assert through(guard_of(), (stream[i : i + 1] for i in range(len(stream)))) == whole


def test_what_holds_nothing_passes_at_once_and_byte_for_byte() -> None:
    guard = guard_of("credentials", "financial")
    odd = b'id: 7\nevent: x\ndata:{"choices" : [{"delta":{"content":"caf\\u00e9. "}}] }\n\n'
    for chunk in (chat("Hello there, "), odd, b": ping\n\n", chat("you. "), b"data: [DONE]\n\n"):
        assert guard.feed(chunk) == chunk
    assert guard.end() == b""
    assert guard.findings == []


def test_text_waits_only_while_it_may_become_a_match() -> None:
    guard = guard_of("credentials")
    assert guard.feed(chat(" gh")) == b""
    assert guard.feed(b": ping\n\n") == b""  # in its turn
    assert guard.feed(chat("ost. ")) == chat(" gh") + b": ping\n\n" + chat("ost. ")


def test_the_end_of_an_answer_releases_what_waits() -> None:
    guard = guard_of("credentials")
    assert guard.feed(chat("gh")) == b""
    last = chat("", finish="stop")
    assert guard.feed(last) == chat("gh") + last


def test_an_ended_block_of_anthropic_releases_what_waits() -> None:
    guard = guard_of("credentials")
    assert guard.feed(anthropic("gh")) == b""
    stop = event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    assert guard.feed(stop) == anthropic("gh") + stop


def test_another_text_of_the_same_answer_releases_what_waits() -> None:
    def thought(text: str) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"reasoning_content": text}}]})

    guard = guard_of("contact")
    assert guard.feed(thought("so")) == b""
    assert guard.feed(chat("Hi. ")) == thought("so") + chat("Hi. ")


def test_answers_side_by_side_are_texts_of_their_own() -> None:
    guard = guard_of("credentials")
    chunks = []
    for start in range(0, len(TOKEN), 5):
        chunks += [chat(TOKEN[start : start + 5], 0), chat("ok ", 1)]
    out = values(through(guard, chunks))
    texts = {0: "", 1: ""}
    for value in out:
        choice = value["choices"][0]
        texts[choice["index"]] += choice["delta"]["content"]
    assert texts == {0: MARK, 1: "ok " * (len(chunks) // 2)}


def test_events_with_several_choices_are_rewritten_where_needed() -> None:
    def both(first: str, second: str) -> bytes:
        return event(
            {"choices": [{"index": 0, "delta": {"content": first}},
                         {"index": 1, "delta": {"content": second}}]}
        )  # fmt: skip

    out = values(through(guard_of("credentials"), [both("x ", TOKEN[:7]), both("y ", TOKEN[7:])]))
    texts = ["".join(v["choices"][n]["delta"]["content"] for v in out) for n in (0, 1)]
    assert texts == ["x y ", MARK]


def test_complete_texts_in_last_events_are_redacted_too() -> None:
    done = event(
        {"type": "response.output_text.done", "output_index": 0, "text": f"a {TOKEN}"},
        "response.output_text.done",
    )
    item = {"type": "message", "content": [{"type": "output_text", "text": f"a {TOKEN}"}]}
    completed = event(
        {"type": "response.completed", "response": {"id": "r", "output": [item]}},
        "response.completed",
    )
    chunks = [responses("a " + TOKEN[:9]), responses(TOKEN[9:]), done, completed]
    out = through(guard_of(), chunks)
    assert TOKEN.encode() not in out
    assert out.count(MARK.encode()) == 3
    assert out.count(b"event: response.completed\ndata: {") == 1


def test_nested_escapes_in_tool_arguments_cut_anywhere_stay_json() -> None:
    arguments = json.dumps({"text": 'a\njoe@example.com\t"4111 1111 1111 1111"\u00e9'})
    for cut in range(len(arguments)):
        pieces = (arguments[:cut], arguments[cut:])
        out = streamed(pieces, compiled(), "chat-arguments")
        assert json.loads(out) == {"text": 'a\n[REDACTED:email]\t"[REDACTED:card]"é'}, cut


def test_surrogate_pairs_cut_between_events_arrive_whole() -> None:
    head = b'data: {"choices":[{"index":0,"delta":{"content":"'
    halves = (head + b'\\ud83d"}}]}\n\n', head + b"\\ude00 " + TOKEN.encode() + b'. "}}]}\n\n')
    guard = guard_of()
    out = through(guard, halves)
    assert out.startswith(halves[0])
    text = said(out).encode("utf-16", "surrogatepass").decode("utf-16")
    assert text == f"😀 {MARK}. "


def test_escapes_in_events_hide_nothing() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in TOKEN)
    raw = f'data: {{"choices":[{{"delta":{{"content":"{escaped} "}}}}]}}\n\n'.encode()
    assert said(through(guard_of(), [raw])) == f"{MARK} "


def test_log_probabilities_of_redacted_tokens_go_too() -> None:
    choice = {"index": 0, "delta": {"content": f"{TOKEN} "}, "logprobs": {"content": [TOKEN]}}
    out = through(guard_of(), [event({"choices": [choice]})])
    assert TOKEN.encode() not in out
    assert values(out)[0]["choices"][0]["logprobs"] is None


def test_plain_text_events_are_redacted_across_events() -> None:
    chunks = [b"event: output\ndata: key " + TOKEN[:5].encode() + b"\n\n",
              b"event: output\ndata: " + TOKEN[5:].encode() + b"\ndata: x\n\n"]  # fmt: skip
    out = through(guard_of("credentials"), chunks)
    assert out == (
        b"event: output\ndata: key [REDACTED:github-token]\n\nevent: output\ndata: \ndata: x\n\n"
    )


def test_an_answer_that_is_no_stream_is_looked_at_when_it_ends() -> None:
    body = json.dumps([{"candidates": [{"content": {"parts": [{"text": TOKEN}]}}]}]).encode()
    out = through(guard_of(), (body[i : i + 7] for i in range(0, len(body), 7)))
    assert out == body.replace(TOKEN.encode(), MARK.encode())


def test_a_blocked_stream_says_nothing_of_the_match_and_nothing_after_it() -> None:
    guard = StreamGuard(side(compiled("BLOCK")))
    out = b"".join(guard.feed(chat(piece)) for piece in ("Well, ", "it is ", TOKEN, " so", " x"))
    assert guard.blocked
    assert said(out) == "Well, it is "
    assert guard.feed(chat("more")) == b""
    assert guard.end() == b""
    verdict = guard.verdict()
    assert (verdict.action, verdict.code) == ("BLOCK", 2030)


def test_flags_alone_hold_nothing_back() -> None:
    guard = StreamGuard(side(compiled("FLAG")))
    for start in range(0, len(TEXT), 3):
        chunk = chat(TEXT[start : start + 3])[:-1]
        assert guard.feed(chunk) == chunk
        assert guard.feed(b"\n") == b"\n"
    assert guard.end() == b""
    assert guard.verdict().action == "FLAG"
    assert "github-token" in guard.verdict().labels
    assert not guard.blocked


def test_an_endless_open_match_is_held_up_to_the_bound() -> None:
    policies = custom(DlpProfile(id="mine", patterns={"p": "<<[^>]*>>"}))
    guard = StreamGuard(side(policies))
    came = passed = most = 0
    for _ in range(3000):
        came += 10
        passed += len(said(guard.feed(chat("<<abcdefgh"))))
        most = max(most, came - passed)
    assert most <= MAX_HELD_BYTES + 10
    passed += len(said(guard.end()))
    assert passed == came


def test_a_match_longer_than_the_bound_is_still_removed_once_it_is_one() -> None:
    lines = "\n".join("".join(random.Random(n).choices("ABCdef012+/", k=64)) for n in range(200))
    text = f"key: -----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY----- and more"
    pieces = re.findall(r".{1,7}", text, re.DOTALL)
    out = streamed(pieces, compiled("REDACT", "credentials"))
    assert out.startswith("key: [REDACTED:private-key]")
    assert not re.search(r"[A-Za-z0-9+/]{16}", out)
    assert out.endswith(" and more")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "1", "ghp_", "4111 ", "@", ".", "+49", "eyJ"]), max_size=400))
def test_what_is_held_back_is_bounded_and_comes_in_the_end(pieces: list[str]) -> None:
    guard = guard_of()
    came = passed = 0
    for piece in pieces:
        came += len(piece)
        passed += len(said(guard.feed(chat(piece))))
        assert came - passed <= MAX_HELD_BYTES
    said(guard.end())


def test_a_text_that_never_goes_on_does_not_hold_the_others_for_ever() -> None:
    guard = guard_of("credentials")
    assert guard.feed(chat("gh", 0)) == b""
    out = b""
    for _ in range(MAX_IDLE_EVENTS + 1):
        out = guard.feed(chat("ok. ", 1))
    assert out.startswith(chat("gh", 0))
    assert guard.feed(chat("ok. ", 1)) == chat("ok. ", 1)


def test_tool_arguments_pass_when_nothing_is_in_them() -> None:
    guard = guard_of("credentials", "financial")
    for piece in ('{"city"', ': "Oslo", ', '"days": [3, 5]}'):
        assert guard.feed(chat_arguments(piece)) == chat_arguments(piece)
