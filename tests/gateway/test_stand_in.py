from __future__ import annotations

import asyncio
import json
import socket
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.gateway.stand_in import Reply, StandIn, stand_in_on_thread


async def exchange(
    provider: StandIn, sent: bytes, *, context: ssl.SSLContext | None = None
) -> bytes:
    """Everything that comes back until the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port, ssl=context)
    writer.write(sent)
    try:
        return await reader.read()
    finally:
        writer.close()


def post(path: str, **body: Any) -> bytes:
    dumped = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(dumped)}\r\n\r\n"
    return head.encode() + dumped


async def test_whole_chat_counts_the_tokens_it_says() -> None:
    async with StandIn() as provider:
        sent = post("/v1/chat/completions", model="mock-t7-p3")
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
        answer = json.loads(await reader.readexactly(length))
        writer.close()
    assert answer["usage"]["completion_tokens"] == 7
    assert provider.counters.served == 1
    assert provider.counters.aborted == 0
    assert provider.counters.prompt_tokens == {"mock-t7-p3": 3}
    assert provider.counters.completion_tokens == {"mock-t7-p3": 7}
    assert provider.requests[0].model == "mock-t7-p3"


@pytest.mark.parametrize(
    ("path", "last", "events"),
    [
        ("/v1/chat/completions", b"data: [DONE]\n\n", 7),
        ("/v1/messages", b'"message_stop"}\n\n', 11),
    ],
)
async def test_stream_ends_as_its_provider_does(path: str, last: bytes, events: int) -> None:
    async with StandIn() as provider:
        body = {"model": "mock-t5", "stream": True, "stream_options": {"include_usage": True}}
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(post(path, **body))
        answer = await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
    assert last in answer
    assert answer.count(b"data: ") == events
    assert provider.counters.completion_tokens == {"mock-t5": 5}
    assert not +provider.counters.unsaid_tokens


async def test_caller_that_leaves_is_counted_as_aborted() -> None:
    async with StandIn() as provider:
        _, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(post("/v1/chat/completions", model="mock-c5", stream=True))
        await provider.until(lambda: provider.counters.bytes_written > 1000)
        writer.close()
        await provider.until(lambda: provider.counters.aborted == 1)
        assert provider.counters.open == 0
    assert provider.counters.served == 0
    assert not provider.counters.completion_tokens
    assert 0 < provider.counters.unsaid_tokens["mock-c5"] < 64


async def test_cut_by_the_model_name_is_a_reset() -> None:
    async with StandIn() as provider:
        with pytest.raises(ConnectionResetError):
            await exchange(provider, post("/chat/completions", model="mock-c5-k3", stream=True))
        assert provider.counters.cut == 1
        assert provider.counters.aborted == 0
        assert provider.counters.unsaid_tokens == {"mock-c5-k3": 3}


async def test_answer_is_cut_at_the_byte_asked_for() -> None:
    async with StandIn() as provider:
        provider.queue(Reply(body=b"hello", cut_after_bytes=20))
        assert await exchange(provider, post("/x")) == b"HTTP/1.1 200 Said\r\nc"


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with StandIn() as provider:
        provider.queue(Reply(body=b"one", delay_s=0.05), Reply(body=b"two", keep_alive=False))
        answer = await exchange(provider, post("/a") + post("/b"))
    assert answer.index(b"one") < answer.index(b"two")
    assert [request.target for request in provider.requests] == ["/a", "/b"]


async def test_tls_shows_a_certificate_that_its_file_proves() -> None:
    async with StandIn(tls=True) as provider:
        provider.queue(Reply(body=b"safe", keep_alive=False))
        context = ssl.create_default_context(cafile=provider.ca_file)
        assert (await exchange(provider, post("/"), context=context)).endswith(b"safe")
        with pytest.raises(ssl.SSLCertVerificationError):
            await exchange(provider, post("/"), context=ssl.create_default_context())


def test_stand_in_on_a_thread_serves_callers_that_block() -> None:
    with stand_in_on_thread(StandIn()) as provider:
        request = urllib.request.Request(
            provider.url + "/v1/chat/completions", b'{"model":"mock-x429"}', method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 429
        assert refused.value.headers["retry-after"] == "1"
        refused.value.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", provider.port))
