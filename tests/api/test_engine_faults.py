"""Engines that die, load, or cannot: typed errors, and then answers again."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.api.asks import HELLO, NO_END
from tests.api.raw import ask, post
from tests.api.weights import TestModels
from tests.conftest import ClientFor, StartServer
from tests.server import ServerProcess, wait_until

LONG: dict[str, Any] = {
    "model": "slow",
    "messages": HELLO,
    "max_tokens": 3000,
    "logit_bias": NO_END,
}
SHORT = {**LONG, "max_tokens": 2}


@pytest.fixture
def slow(start_server: StartServer, models: TestModels) -> ServerProcess:
    """Serves a slow model that is loaded already."""
    server = start_server({"models": [str(models.slow)], "engines.restart.backoff_s": 0.1})
    assert post(server, "/v1/chat/completions", SHORT).status == 200
    return server


def kill_engine(server: ServerProcess) -> None:
    """Do to the engine what the kernel does when memory runs out."""
    (pid,) = server.engine_pids()
    os.kill(pid, signal.SIGKILL)


def test_a_stream_whose_engine_dies_ends_with_a_typed_error(
    slow: ServerProcess, client_for: ClientFor
) -> None:
    stream = client_for(slow).chat.completions.create(**LONG, stream=True)

    def read() -> None:
        for number, _ in enumerate(stream):
            if number == 3:
                kill_engine(slow)

    with pytest.raises(openai.APIError, match="'slow' stopped") as caught:
        read()

    assert caught.value.code == "engine_crashed"
    assert caught.value.type == "server_error"


def test_a_whole_answer_whose_engine_dies_is_a_503(slow: ServerProcess) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = [
            threads.submit(post, slow, "/v1/chat/completions", LONG),
            threads.submit(post, slow, "/v1/chat/completions", {**LONG, "n": 2}),
        ]
        wait_until(lambda: slow.in_flight() == 2, what="requests in the engine")
        kill_engine(slow)

    for reply in (each.result() for each in waiting):
        assert (reply.status, reply.error()["code"]) == (503, "engine_crashed")
        assert int(reply.headers["retry-after"]) >= 1


def test_the_next_request_after_a_crash_is_answered(
    slow: ServerProcess, client_for: ClientFor
) -> None:
    client = client_for(slow)
    for crashes in (1, 2):
        kill_engine(slow)
        wait_until(lambda: slow.engines()["slow"]["state"] != "ready", what="news of the crash")

        answer = client.chat.completions.create(**SHORT)

        assert answer.usage is not None
        assert answer.usage.completion_tokens == 2
        assert slow.engines()["slow"]["restarts"] == crashes


def test_a_crash_of_one_model_leaves_the_others_alone(
    start_server: StartServer, models: TestModels, client_for: ClientFor
) -> None:
    server = start_server({"models": [str(models.slow), str(models.talker)]})
    assert post(server, "/v1/chat/completions", SHORT).status == 200
    (victim,) = server.engine_pids()
    assert post(server, "/v1/chat/completions", {**SHORT, "model": "talker"}).status == 200
    with client_for(server).chat.completions.create(**LONG, stream=True) as stream:
        next(iter(stream))
        os.kill(victim, signal.SIGKILL)

        answer = post(server, "/v1/chat/completions", {**SHORT, "model": "talker"})

    assert answer.status == 200


def test_a_loading_model_is_a_503_that_says_when_to_come_back(
    start_server: StartServer, models: TestModels
) -> None:
    server = start_server({"models": [str(models.talker)], "engines.restart.load_wait_s": 0})
    body = {**SHORT, "model": "talker"}

    reply = post(server, "/v1/chat/completions", body)

    assert (reply.status, reply.error()["code"]) == (503, "model_loading")
    assert int(reply.headers["retry-after"]) >= 1
    wait_until(lambda: server.engines()["talker"]["state"] == "ready", what="a loaded model")


def test_ready_is_a_503_while_a_model_loads(start_server: StartServer, models: TestModels) -> None:
    server = start_server({"models": [str(models.slow)], "engines.restart.load_wait_s": 0})
    assert ask(server, "GET", "/ready").json() == {"status": "ready", "engines": []}
    post(server, "/v1/chat/completions", SHORT)

    status, body = server.get("/ready")

    assert (status, body["status"]) in {(503, "loading"), (200, "ready")}  # it may be that fast
    wait_until(lambda: server.get("/ready")[0] == 200, what="a ready server")


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_that_cannot_be_loaded_is_a_503_that_names_it(
    start_server: StartServer, models: TestModels, client_for: ClientFor, stream: bool
) -> None:
    server = start_server({"models": [str(models.broken), str(models.talker)]})
    client: OpenAI = client_for(server)

    with pytest.raises(openai.InternalServerError, match=r"broken\.gguf") as caught:
        client.chat.completions.create(model="broken", messages=HELLO, stream=stream)

    assert (caught.value.status_code, caught.value.code) == (503, "model_load_failed")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert client.chat.completions.create(model="talker", messages=HELLO, max_tokens=1).choices


def test_a_full_queue_is_a_429_that_says_when_to_come_back(
    start_server: StartServer, models: TestModels, client_for: ClientFor
) -> None:
    server = start_server(
        {"models": [str(models.slow)], "catalog.parallel": 1, "engines.max_queue": 1}
    )
    client = client_for(server)
    with client.chat.completions.create(**LONG, stream=True) as running:
        next(iter(running))
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(post, server, "/v1/chat/completions", SHORT)
            wait_until(lambda: server.in_flight() == 2, what="a waiting request")

            with pytest.raises(openai.RateLimitError, match="'slow' has 2 requests") as caught:
                client.chat.completions.create(**SHORT)

            running.close()
            assert waiting.result().status == 200

    assert caught.value.code == "engine_overloaded"
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_requests_wait_in_the_queue_for_their_turn(
    start_server: StartServer, models: TestModels
) -> None:
    server = start_server(
        {"models": [str(models.talker)], "catalog.parallel": 2, "engines.max_queue": 60}
    )
    body = {**SHORT, "model": "talker", "max_tokens": 20}

    with ThreadPoolExecutor(40) as threads:
        asked = [threads.submit(post, server, "/v1/chat/completions", body) for _ in range(40)]

    assert {each.result().status for each in asked} == {200}
    assert server.in_flight() == 0


def test_the_engines_of_a_server_that_is_killed_end_too(slow: ServerProcess) -> None:
    (engine,) = slow.engine_pids()

    slow.kill()

    def is_gone() -> bool:
        try:
            os.kill(engine, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(is_gone, what="the engine's end")
