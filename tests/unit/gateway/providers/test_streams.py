from __future__ import annotations

import binascii
import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.providers.base import Provider
from openworks.gateway.providers.registry import Providers, custom_provider
from openworks.gateway.providers.streams import StreamReader, stream_reader
from openworks.ports.calls import Usage
from tests.unit.gateway.providers.answers import STREAMS, Sample

PROVIDERS = Providers()
MESSAGE = "The provider closed the connection."


def provider(slug: str) -> Provider:
    found = PROVIDERS.get(slug)
    assert found is not None
    return found


def reader_of(sample: Sample) -> StreamReader:
    return stream_reader(provider(sample.provider), sample.endpoint)


@pytest.mark.parametrize("name", STREAMS)
def test_a_whole_stream_tells_its_usage_and_its_end(name: str) -> None:
    sample = STREAMS[name]
    reader = reader_of(sample)
    reader.feed(sample.body)
    assert (reader.usage, reader.is_finished) == (sample.usage, True)
    assert reader.has_content
    assert reader.final_usage(1000) == (sample.usage, False)
    assert reader.unfinished_bytes == 0


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_in_two_anywhere_tells_the_same(name: str) -> None:
    sample = STREAMS[name]
    for at in range(len(sample.body) + 1):
        reader = reader_of(sample)
        for part in (sample.body[:at], sample.body[at:]):
            if part:
                reader.feed(part)
        assert (reader.usage, reader.is_finished) == (sample.usage, True), at


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_comes_byte_by_byte_tells_the_same(name: str) -> None:
    sample = STREAMS[name]
    reader = reader_of(sample)
    for at in range(len(sample.body)):
        reader.feed(sample.body[at : at + 1])
    assert (reader.usage, reader.is_finished) == (sample.usage, True)


@given(
    name=st.sampled_from(sorted(set(STREAMS) - {"google array"})),
    cuts=st.lists(st.integers(min_value=0, max_value=4000), max_size=12),
)
def test_cuts_never_change_what_is_read(name: str, cuts: list[int]) -> None:
    sample = STREAMS[name]
    at_once = reader_of(sample)
    at_once.feed(sample.body)
    reader = reader_of(sample)
    edges = [0, *sorted(min(cut, len(sample.body)) for cut in cuts), len(sample.body)]
    for start, end in pairwise(edges):
        if start < end:
            reader.feed(sample.body[start:end])
    assert reader.usage == at_once.usage
    assert reader.is_finished
    assert reader.estimated_completion_tokens == at_once.estimated_completion_tokens


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_breaks_before_its_last_event_is_not_finished(name: str) -> None:
    sample = STREAMS[name]
    marks = (b"\n\ndata: ", b"\n\nevent: ", b"\n\r\n", b"\n{", b',\n  {\n    "candidates"')
    last = max(sample.body.rstrip().rfind(mark) for mark in marks)
    if "bedrock" in name:
        last = sample.body.index(b"messageStop" if "converse" in name else b"chunk") + 20
    reader = reader_of(sample)
    reader.feed(sample.body[: last + 1])
    assert not reader.is_finished


@pytest.mark.parametrize("name", ["openai chat", "anthropic", "cohere v1 lines", "workers-ai"])
def test_a_last_line_need_not_end_in_a_break(name: str) -> None:
    sample = STREAMS[name]
    reader = reader_of(sample)
    reader.feed(sample.body.rstrip())
    assert (reader.usage, reader.is_finished) == (sample.usage, True)


def test_markers_in_the_text_of_an_answer_mean_nothing() -> None:
    reader = stream_reader(provider("openai"), "chat/completions")
    text = 'data: [DONE]\n"usage":{"prompt_tokens":1,"completion_tokens":1}'
    reader.feed(b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode())
    reader.feed(b"\n\n")
    assert reader.usage is None
    assert not reader.is_finished
    assert reader.has_content


def test_a_stream_without_usage_is_estimated_from_its_text() -> None:
    reader = stream_reader(provider("openai"), "chat/completions")
    for text in ("", "Hel", "lo", ' \\"quoted\\" and a rather long rest of it'):
        reader.feed(f'data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n'.encode())
    assert reader.estimated_completion_tokens == 12
    assert reader.final_usage(400) == (Usage(prompt_tokens=100, completion_tokens=12), True)


def test_tool_calls_and_reasoning_count_as_content() -> None:
    for member in ('"arguments":"{}"', '"reasoning_content":"hm"', '"content": "spaced"'):
        reader = stream_reader(provider("openai"), "chat/completions")
        reader.feed(f'data: {{"choices":[{{"delta":{{{member}}}}}]}}\n\n'.encode())
        assert reader.has_content, member


def test_an_event_that_only_opens_the_answer_is_no_content() -> None:
    reader = stream_reader(provider("openai"), "chat/completions")
    reader.feed(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
    reader.feed(b": keep-alive\n\n")
    assert not reader.has_content
    assert reader.estimated_completion_tokens == 0


def test_a_broken_anthropic_stream_keeps_the_prompt_tokens_of_its_start() -> None:
    sample = STREAMS["anthropic"]
    reader = reader_of(sample)
    reader.feed(sample.body[: sample.body.index(b"event: content_block_stop")])
    usage, is_estimated = reader.final_usage(9999)
    assert reader.usage is None
    assert is_estimated
    assert (usage.prompt_tokens, usage.cached_tokens) == (100, 75)
    assert usage.completion_tokens == 7


def test_a_custom_provider_may_end_with_or_without_the_mark() -> None:
    custom = custom_provider("acme", "https://llm.example.com")
    for end in (
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ):
        reader = stream_reader(custom, "v1/chat/completions")
        reader.feed(b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}\n\n')
        assert not reader.is_finished
        reader.feed(end)
        assert reader.is_finished


def test_an_endless_line_is_given_up_and_the_next_one_is_read() -> None:
    reader = stream_reader(provider("openai"), "chat/completions")
    for _ in range(10):
        reader.feed(b"x" * (1 << 20))
    assert reader.unfinished_bytes == 0
    reader.feed(b'\ndata: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n')
    assert reader.usage == Usage(prompt_tokens=1, completion_tokens=2)


def test_broken_json_and_negative_counts_are_passed_by() -> None:
    reader = stream_reader(provider("openai"), "chat/completions")
    reader.feed(b'data: {"usage":{"prompt_tok\n\n')
    reader.feed(b'data: {"usage":{"prompt_tokens":-5,"completion_tokens":2}}\n\n')
    reader.feed(b'data: {"usage":"none"}\n\n')
    assert reader.usage is None


@pytest.mark.parametrize(
    ("slug", "endpoint", "event", "path"),
    [
        ("openai", "chat/completions", "", ("error", "message")),
        ("openai", "responses", "error", ("message",)),
        ("anthropic", "v1/messages", "error", ("error", "message")),
        ("google-ai-studio", "v1beta/models/g:streamGenerateContent", "", ("error", "message")),
        ("cohere", "v2/chat", "message-end", ("delta", "error")),
        ("workers-ai", "@cf/meta/llama", "", ("error", "message")),
    ],
)
def test_the_error_event_is_the_dialects_own(
    slug: str, endpoint: str, event: str, path: tuple[str, ...]
) -> None:
    text = stream_reader(provider(slug), endpoint).error_event(MESSAGE, "reset").decode()
    lines = dict(line.split(": ", 1) for line in text.strip().splitlines())
    found = json.loads(lines["data"])
    for step in path:
        found = found[step]
    assert found == MESSAGE
    assert lines.get("event", "") == event
    assert text.endswith("\n\n")


@pytest.mark.parametrize(
    ("stopped", "start"),
    [
        (b"", b"data: "),
        (b"data: {}\n\n", b"data: "),
        (b"data: {}\r\n\r\n", b"data: "),
        (b"data: {}\n", b"\ndata: "),
        (b'data: {"cho', b"\n\ndata: "),
    ],
)
def test_the_error_event_stands_alone_wherever_the_stream_stopped(
    stopped: bytes, start: bytes
) -> None:
    reader = stream_reader(provider("openai"), "chat/completions")
    for at in range(len(stopped)):
        reader.feed(stopped[at : at + 1])
    assert reader.error_event(MESSAGE, "reset").startswith(start)


def test_a_broken_array_is_still_json_with_its_error() -> None:
    sample = STREAMS["google array"]
    reader = reader_of(sample)
    part = sample.body[: sample.body.index(b',\n  {\n    "candidates"')]
    reader.feed(part)
    answer = json.loads(part + reader.error_event(MESSAGE, "reset"))
    assert answer[-1]["error"]["message"] == MESSAGE


def test_the_error_frame_of_bedrock_has_right_checksums() -> None:
    sample = STREAMS["bedrock converse"]
    reader = reader_of(sample)
    reader.feed(sample.body)
    error = reader.error_event(MESSAGE, "reset")
    total, headers, prelude_crc = struct.unpack_from(">III", error)
    assert total == len(error)
    assert prelude_crc == binascii.crc32(error[:8])
    assert struct.unpack(">I", error[-4:])[0] == binascii.crc32(error[:-4])
    assert json.loads(error[12 + headers : -4])["message"] == MESSAGE


def test_nothing_is_added_inside_of_a_frame() -> None:
    sample = STREAMS["bedrock converse"]
    reader = reader_of(sample)
    reader.feed(sample.body[:30])
    assert reader.error_event(MESSAGE, "reset") == b""


def test_a_frame_of_impossible_length_is_not_waited_for() -> None:
    reader = reader_of(STREAMS["bedrock converse"])
    reader.feed(b"\xff" * 64)
    reader.feed(b"x" * 1000)
    assert reader.unfinished_bytes == 0
    assert reader.usage is None


def test_a_long_line_in_small_pieces_is_read_without_copying_it_each_time() -> None:
    reader = stream_reader(provider("openai"), "responses")
    output = json.dumps("x" * 4_000_000).encode()
    usage = b'"usage":{"input_tokens":1,"output_tokens":2}'
    line = b'data: {"type":"response.completed","response":{"output":%b,%b}}\n\n' % (output, usage)
    for at in range(0, len(line), 64):  # quadratic copying would take minutes here
        reader.feed(line[at : at + 64])
    assert reader.usage == Usage(prompt_tokens=1, completion_tokens=2)
    assert reader.is_finished
