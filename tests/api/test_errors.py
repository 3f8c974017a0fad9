"""What is wrong with a request is told by name, in OpenAI's shape and the SDK's classes."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import suppress
from shutil import which
from typing import Any
from urllib.parse import urlencode

import openai
import pytest
from openai import OpenAI

from tests.api.asks import HELLO
from tests.api.raw import ask, post
from tests.server import ServerProcess

CHAT: dict[str, Any] = {"model": "talker", "messages": HELLO, "max_tokens": 2}
IMAGE = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\x00",
        b'{"model": "x",}',
        b"{'model': 1}",
        b'"\xff"',
        b'{"a": NaN}',
        b"[" * 9999,
    ],
    ids=["open", "empty", "zero", "comma", "quotes", "utf-8", "nan", "deep"],
)
def test_a_body_that_is_not_json_is_told_as_such(
    server: ServerProcess, path: str, body: bytes
) -> None:
    reply = post(server, path, body)

    assert (reply.status, reply.error()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true"])
def test_a_body_that_is_not_an_object_is_refused(server: ServerProcess, body: bytes) -> None:
    reply = post(server, "/v1/chat/completions", body)

    assert reply.status == 400
    assert "must be a JSON object" in reply.error()["message"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", None),
        ({"model": 7}, "model", "invalid_type"),
        ({"messages": None}, "messages", None),
        ({"messages": "Hello"}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": "x", "colour": "red"}]},
            "messages[0].colour",
            "unknown_parameter",
        ),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value"),
        ({"presence_penalty": -3}, "presence_penalty", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop", "invalid_value"),
        ({"stop": 3}, "stop", "invalid_type"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", None),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "magic"}]}, "tools[0].type", "invalid_value"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort", "invalid_value"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs", "invalid_type"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    server: ServerProcess, fields: dict[str, Any], param: str, code: str | None
) -> None:
    error = (reply := post(server, "/v1/chat/completions", {**CHAT, **fields})).error()

    assert (reply.status, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param
    assert code in (None, error["code"])
    assert param.rsplit(".", 1)[-1].split("[")[0] in error["message"] or error["code"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"audio": {"format": "mp3", "voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"verbosity": "high"}, "verbosity"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        (
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
                ]
            },
            "messages[1].function_call",
        ),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages[0].audio"),
    ],
)
def test_what_no_model_here_can_do_is_refused_by_name(
    server: ServerProcess, fields: dict[str, Any], param: str
) -> None:
    error = (reply := post(server, "/v1/chat/completions", {**CHAT, **fields})).error()

    assert (reply.status, error["param"]) == (400, param)
    assert error["code"] in {"unsupported_parameter", "unsupported_value"}


def test_values_that_ask_for_nothing_special_are_accepted(server: ServerProcess) -> None:
    harmless = {"service_tier": "auto", "modalities": ["text"], "verbosity": "medium", "user": "u"}

    assert post(server, "/v1/chat/completions", {**CHAT, **harmless}).status == 200


@pytest.mark.parametrize(
    ("path", "body", "name", "hint"),
    [
        ("/v1/chat/completions", CHAT, "max_token", "max_tokens"),
        ("/v1/chat/completions", CHAT, "temprature", "temperature"),
        ("/v1/completions", {"model": "talker", "prompt": "x"}, "stops", "stop"),
        ("/v1/embeddings", {"model": "encoder", "input": "x"}, "dimension", "dimensions"),
    ],
)
def test_an_unknown_parameter_is_named_with_its_neighbour(
    server: ServerProcess, path: str, body: dict[str, Any], name: str, hint: str
) -> None:
    error = (reply := post(server, path, {**body, name: 1})).error()

    assert (reply.status, error["code"], error["param"]) == (400, "unknown_parameter", name)
    assert f"Did you mean '{hint}'?" in error["message"]


def test_an_unknown_model_is_a_404_with_a_hint(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean 'talker'") as caught:
        client.chat.completions.create(model="talkr", messages=HELLO)

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_known_model_whose_weights_are_elsewhere_is_told_how_to_get_them(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="openworks models pull"):
        client.chat.completions.create(model="@cf/meta/llama-3.2-1b-instruct", messages=HELLO)


def test_an_embedding_model_does_not_chat(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="text-embeddings") as caught:
        client.chat.completions.create(model="encoder", messages=HELLO)

    assert caught.value.code == "wrong_task"


@pytest.mark.parametrize("stream", [False, True])
def test_an_over_long_prompt_is_refused_with_both_counts(client: OpenAI, stream: bool) -> None:
    long = "a" * 5000
    with pytest.raises(openai.BadRequestError, match=r"4096 tokens.*\b5019 tokens") as caught:
        client.chat.completions.create(
            model="talker", messages=[{"role": "user", "content": long}], stream=stream
        )

    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": IMAGE}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ],
    ids=["image", "image elsewhere", "audio", "file"],
)
def test_content_that_the_model_does_not_take_is_refused_by_its_place(
    server: ServerProcess, part: dict[str, Any]
) -> None:
    content = [{"type": "text", "text": "What is this?"}, part]

    reply = post(
        server,
        "/v1/chat/completions",
        {**CHAT, "messages": [*HELLO, {"role": "user", "content": content}]},
    )

    assert (reply.status, reply.error()["code"]) == (400, "unsupported_parameter")
    assert reply.error()["param"].startswith("messages[1].content[1]")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/embeddings", "POST"),
        ("PUT", "/v1/chat/completions", "GET, POST"),
        ("POST", "/v1/models", "GET"),
        ("PATCH", "/v1/models/talker", "DELETE, GET"),
        ("POST", "/health", "GET"),
    ],
)
def test_another_method_is_a_405_that_names_the_right_ones(
    server: ServerProcess, method: str, path: str, allowed: str
) -> None:
    reply = ask(server, method, path)

    assert (reply.status, reply.error()["code"]) == (405, "method_not_allowed")
    assert f"allowed: {allowed}." in reply.error()["message"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v2/models", "/v1/nothing", "/favicon.ico"])
def test_a_path_that_no_api_has_is_a_404(server: ServerProcess, path: str) -> None:
    reply = ask(server, "GET", path)

    assert (reply.status, reply.error()["code"]) == (404, "unknown_url")
    assert f"GET {path}" in reply.error()["message"]


def test_messages_of_errors_are_not_as_long_as_the_request(server: ServerProcess) -> None:
    huge = "x" * 100_000

    for body in (
        {**CHAT, "model": huge},
        {**CHAT, huge: 1},
        {**CHAT, "response_format": {"type": huge}},
        {**CHAT, "service_tier": huge},
        {**CHAT, "metadata": {huge: "x"}},
        {**CHAT, "tools": [{"type": "function", "function": {"name": huge}}]},
    ):
        assert len(post(server, "/v1/chat/completions", body).body) < 2000


def test_the_sdk_hears_of_an_unreachable_server() -> None:
    with (
        OpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", max_retries=0) as nowhere,
        pytest.raises(openai.APIConnectionError),
    ):
        nowhere.models.list()


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_curl_reads_a_stream(server: ServerProcess) -> None:
    curl = ["curl", "--silent", "--no-buffer", f"{server.url}/v1/chat/completions"]
    body = json.dumps({**CHAT, "stream": True})

    done = subprocess.run(
        [*curl, "--header", "Content-Type: application/json", "--data", body],
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.startswith(b"data: {")
    assert done.stdout.endswith(b"data: [DONE]\n\n")


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_curl_uploads_a_large_body_that_waits_for_a_go_ahead(server: ServerProcess) -> None:
    content = "a" * 2_000_000
    done = subprocess.run(
        [
            *("curl", "--silent", "--header", "Expect: 100-continue", "--data-binary", "@-"),
            f"{server.url}/v1/embeddings",
        ],
        input=b'{"model": "encoder", "input": "%s"}' % content.encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert b"context_length_exceeded" in done.stdout


def test_headers_without_end_are_cut_off_while_others_are_served(
    server: ServerProcess, client: OpenAI
) -> None:
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n")
        with suppress(ConnectionError):
            for number in range(2000):
                connection.sendall(b"X-Filler-%d: %s\r\n" % (number, b"x" * 1000))
        with suppress(ConnectionError):
            assert connection.recv(100)[:13] in {b"HTTP/1.1 431 ", b""}
    assert client.models.list().data


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": 2**32 + 1}, "max_tokens"),
        ({"logit_bias": {"9" * 30: 1}}, "logit_bias"),
        ({"top_k": 2**31}, "top_k"),
        (
            {"chat_template_kwargs": {"a": json.loads("[" * 400 + "]" * 400)}},
            "chat_template_kwargs",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_value_that_an_engine_cannot_hold_is_refused_by_name(
    server: ServerProcess, changes: dict[str, Any], param: str, stream: bool
) -> None:
    reply = post(server, "/v1/chat/completions", {**CHAT, **changes, "stream": stream})
    assert reply.status == 400
    assert reply.error()["param"] == param


@pytest.mark.parametrize("prompt", [[2**32 + 5], [2**31]])
def test_token_beyond_every_vocabulary_is_refused(server: ServerProcess, prompt: list[int]) -> None:
    reply = post(server, "/v1/completions", {"model": "talker", "prompt": prompt})
    assert (reply.status, reply.error()["param"]) == (400, "prompt")


@pytest.mark.parametrize("limit", ["\u00b2", "--5", "9" * 5000, "1.5", "x"])
def test_limit_that_is_no_number_is_refused(server: ServerProcess, limit: str) -> None:
    reply = ask(server, "GET", f"/v1/chat/completions?{urlencode({'limit': limit})}")
    assert (reply.status, reply.error()["param"]) == (400, "limit")


def test_long_prompt_is_refused_with_a_status_also_when_it_would_be_echoed(
    server: ServerProcess,
) -> None:
    body = {"model": "talker", "prompt": "x" * 9000, "echo": True, "stream": True}
    reply = post(server, "/v1/completions", body)
    assert (reply.status, reply.error()["code"]) == (400, "context_length_exceeded")
