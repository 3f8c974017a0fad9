"""A client that leaves takes its work with it: within a step, whatever it had asked for."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.api.asks import HELLO, NO_END
from tests.api.raw import post, request_bytes, reset
from tests.api.weights import TestModels
from tests.conftest import ClientFor, open_client
from tests.engine_choice import EACH_ENGINE
from tests.server import SETTLE_S, ServerProcess, wait_until

pytestmark = EACH_ENGINE

LONG: dict[str, Any] = {
    "model": "slow",
    "messages": HELLO,
    "max_tokens": 3000,
    "logit_bias": NO_END,
}
FEW = 25
"""Tokens that may be made while the news travels; an answer would have three thousand."""


@pytest.fixture(scope="module")
def slow(models: TestModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves a slow model, one request at a time: a leaked one would block the next."""
    process = ServerProcess(
        {"models": [str(models.slow)], "catalog.parallel": 1}, tmp_path_factory.mktemp("slow")
    )
    with open_client(process.url) as client:
        client.chat.completions.create(**{**LONG, "max_tokens": 1})
    process.settled_records(1)
    yield process
    assert process.stop() == 0


def cpu_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_idle(server: ServerProcess) -> None:
    """Return once no request is in flight and the engine does nothing any more."""
    wait_until(lambda: server.in_flight() == 0, what="no request in flight")
    (pid,) = server.engine_pids()

    def is_idle() -> bool:
        before = cpu_s(pid)
        time.sleep(0.2)
        return cpu_s(pid) - before < 0.02

    wait_until(is_idle, what="an idle engine")


def hang_up_during(server: ServerProcess, path: str, body: dict[str, Any], after_s: float) -> None:
    """Send a request, let the engine work on it for a while, and leave without an answer."""
    with socket.create_connection(server.address, timeout=SETTLE_S) as connection:
        connection.sendall(request_bytes(path, body))
        wait_until(lambda: server.in_flight() == 1, what="the request in the engine")
        time.sleep(after_s)


def test_a_closed_stream_stops_its_answer_within_a_step(
    slow: ServerProcess, client_for: ClientFor
) -> None:
    count = len(slow.records())
    with client_for(slow).chat.completions.create(**LONG, stream=True) as stream:
        for _, _ in zip(range(10), stream, strict=False):
            pass

    record = slow.settled_records(count + 1)[0]

    assert (record.outcome, record.status) == ("client_closed", 499)
    assert 5 <= record.usage.completion_tokens <= 10 + FEW
    assert record.usage.prompt_tokens > 0
    wait_until_idle(slow)


def test_a_closed_stream_of_a_completion_stops_too(
    slow: ServerProcess, client_for: ClientFor
) -> None:
    count = len(slow.records())
    body = {name: value for name, value in LONG.items() if name != "messages"}
    stream = client_for(slow).completions.create(**body, prompt=["Hello", "Bye"], stream=True)
    with stream:
        for _, _ in zip(range(10), stream, strict=False):
            pass

    records = slow.settled_records(count + 2)[:2]  # one for each prompt

    assert {record.outcome for record in records} == {"client_closed"}
    assert sum(record.usage.completion_tokens for record in records) <= 10 + FEW
    wait_until_idle(slow)


def test_leaving_before_a_whole_answer_stops_it(slow: ServerProcess) -> None:
    count = len(slow.records())

    hang_up_during(slow, "/v1/chat/completions", LONG, after_s=0.3)

    record = slow.settled_records(count + 1)[0]
    assert (record.outcome, record.stream) == ("client_closed", False)
    assert 0 < record.usage.completion_tokens < 500
    wait_until_idle(slow)


def test_leaving_while_a_long_prompt_is_read_stops_that(slow: ServerProcess) -> None:
    count = len(slow.records())
    prompt = "".join(chr(97 + number % 26) for number in range(3900))
    body = {**LONG, "messages": [{"role": "user", "content": prompt}], "max_tokens": 50}

    hang_up_during(slow, "/v1/chat/completions", body, after_s=0.2)

    record = slow.settled_records(count + 1)[0]
    assert (record.outcome, record.usage.completion_tokens) == ("client_closed", 0)
    assert record.first_token_ms is None
    wait_until_idle(slow)


def test_leaving_the_queue_leaves_no_trace_in_the_engine(slow: ServerProcess) -> None:
    count = len(slow.records())
    with open_client(slow.url) as client:
        running = client.chat.completions.create(**LONG, stream=True)
        for _, _ in zip(range(3), running, strict=False):
            pass
        waiting = [socket.create_connection(slow.address, timeout=SETTLE_S) for _ in range(20)]
        for connection in waiting:
            connection.sendall(request_bytes("/v1/chat/completions", LONG))
        wait_until(lambda: slow.in_flight() == 21, what="twenty requests in the queue")
        for connection in waiting:
            reset(connection)
        wait_until(lambda: slow.in_flight() == 1, what="an empty queue")
        running.close()

    records = slow.settled_records(count + 21)[:21]
    assert {record.outcome for record in records} == {"client_closed"}
    assert sum(record.usage.completion_tokens == 0 for record in records) == 20
    wait_until_idle(slow)


def test_a_slot_that_a_client_left_is_free_for_the_next(slow: ServerProcess) -> None:
    for _ in range(3):
        hang_up_during(slow, "/v1/chat/completions", {**LONG, "stream": True}, after_s=0.1)

    reply = post(slow, "/v1/chat/completions", {**LONG, "max_tokens": 2})

    assert reply.json()["usage"]["completion_tokens"] == 2


async def test_500_clients_that_hang_up_leave_nothing_behind(
    start_server: Any, models: TestModels
) -> None:
    server: ServerProcess = start_server({"models": [str(models.talker)], "engines.max_queue": 600})
    assert post(server, "/v1/chat/completions", {**LONG, "model": "talker", "max_tokens": 1})
    request = request_bytes("/v1/chat/completions", {**LONG, "model": "talker", "stream": True})

    async def begin_and_leave(number: int) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request)
        begun = await reader.read(100)
        if number % 2:
            writer.transport.abort()  # as a client does that crashes
        else:
            writer.close()
        return begun

    async with asyncio.timeout(100):
        begun = await asyncio.gather(*(begin_and_leave(number) for number in range(500)))

    assert {answer.split(b"\r\n")[0] for answer in begun} == {b"HTTP/1.1 200 OK"}
    await asyncio.to_thread(wait_until_idle, server)
    assert post(server, "/v1/chat/completions", {**LONG, "model": "talker", "max_tokens": 1})
    records = await asyncio.to_thread(server.settled_records, 502)
    assert len(records) == 502
    left = [record for record in records if record.outcome == "client_closed"]
    assert len(left) > 450  # the tiny model may have ended before the news reached it
    assert len(server.engine_pids()) == 1


def test_stopping_the_server_ends_its_streams(
    start_server: Any, models: TestModels, client_for: ClientFor
) -> None:
    server: ServerProcess = start_server(
        {"models": [str(models.slow)], "server.shutdown_grace_s": 1.0}
    )
    client: OpenAI = client_for(server)
    stream = iter(client.chat.completions.create(**LONG, stream=True))
    next(stream)
    engines = server.engine_pids()

    assert server.stop() == 0

    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)
    (record,) = server.records()
    assert record.outcome == "client_closed"
