"""Requests that are too large, too slow or broken harm nobody but their sender."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.api.asks import HELLO
from tests.api.raw import ask, connected, post, read_to_end, request_bytes
from tests.api.shapes import ErrorBody, strictly
from tests.api.weights import TestModels
from tests.conftest import StartServer
from tests.server import SETTLE_S, ServerProcess, wait_until

CHAT = {"model": "talker", "messages": HELLO, "max_tokens": 2}
HUNDRED_MB = 100_000_000
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def impatient(start_server: StartServer, models: TestModels) -> ServerProcess:
    """Gives headers half a second, and bodies one."""
    return start_server(
        {
            "models": [str(models.talker)],
            "server.header_timeout_s": 0.5,
            "server.body.timeout_s": 1.0,
        }
    )


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def assert_it_still_answers(server: ServerProcess) -> None:
    assert post(server, "/v1/chat/completions", CHAT).status == 200


def test_a_declared_100_mb_are_refused_before_they_are_sent(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % HUNDRED_MB)
        answer = read_to_end(connection)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == 413
    assert b"connection: close" in head.lower()
    strictly(ErrorBody, body)
    assert_it_still_answers(server)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_100_mb_that_are_sent_are_refused(server: ServerProcess, chunked: bool) -> None:
    piece = b"x" * 1_000_000

    def pieces() -> Iterator[bytes]:
        for _ in range(HUNDRED_MB // len(piece)):
            yield piece

    connection = HTTPConnection(*server.address, timeout=SETTLE_S)
    headers = {} if chunked else {"Content-Length": str(HUNDRED_MB)}
    try:
        connection.request(
            "POST", "/v1/chat/completions", pieces(), headers, encode_chunked=chunked
        )
    except (BrokenPipeError, ConnectionResetError):
        pass  # it may close while we send; what matters is that it lives
    else:
        assert connection.getresponse().status == 413
    finally:
        connection.close()

    assert_it_still_answers(server)


def test_a_chunked_body_is_cut_at_the_limit(server: ServerProcess) -> None:
    piece = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    with connected(server) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            for _ in range(100):
                connection.sendall(piece)
                sent += 1
            answer = read_to_end(connection)
        except ConnectionError:
            answer = b""

    assert answer == b"" or status_of(answer) == 413
    assert_it_still_answers(server)


def test_a_body_of_exactly_the_limit_is_read(start_server: StartServer, models: TestModels) -> None:
    limit = 10_000
    server = start_server({"models": [str(models.talker)], "server.body.max_bytes": limit})
    body = json.dumps(CHAT).encode()

    assert post(server, "/v1/chat/completions", body + b" " * (limit - len(body))).status == 200
    over = post(server, "/v1/chat/completions", body + b" " * (limit - len(body) + 1))
    assert (over.status, over.error()["code"]) == (413, "request_too_large")


def test_a_chunked_request_is_answered(server: ServerProcess) -> None:
    connection = HTTPConnection(*server.address, timeout=SETTLE_S)
    body = json.dumps(CHAT).encode()
    connection.request(
        "POST", "/v1/chat/completions", iter([body[:10], body[10:]]), {}, encode_chunked=True
    )

    assert connection.getresponse().status == 200
    connection.close()


def test_requests_on_one_connection_are_answered_in_turn(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(request_bytes("/v1/chat/completions", CHAT) * 3)
        connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = read_to_end(connection)

    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.count(b"HTTP/1.1 404") == 1
    assert answer.rindex(b"HTTP/1.1 200") < answer.index(b"HTTP/1.1 404")


def test_headers_that_come_too_slowly_end_the_connection(impatient: ServerProcess) -> None:
    with connected(impatient) as connection:
        connection.sendall(HEAD)

        def is_closed() -> bool:
            time.sleep(0.1)
            try:
                connection.sendall(b"x")  # a header byte now and then keeps nothing alive
            except ConnectionError:
                return True
            return False

        wait_until(is_closed, what="the end of the connection")


def test_a_connection_that_says_nothing_is_closed(impatient: ServerProcess) -> None:
    with connected(impatient) as connection:
        assert read_to_end(connection) == b""


def test_a_body_that_comes_too_slowly_is_a_408(impatient: ServerProcess) -> None:
    with connected(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        answer = read_to_end(connection)

    _, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == 408
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_slow_clients_keep_nobody_else_waiting(impatient: ServerProcess) -> None:
    slow = []
    for number in range(100):
        connection = socket.create_connection(impatient.address, timeout=SETTLE_S)
        connection.sendall(HEAD + (b"Content-Length: 9\r\n\r\n{" if number % 2 else b""))
        slow.append(connection)

    assert_it_still_answers(impatient)

    ends = [read_to_end(connection) for connection in slow]
    for connection in slow:
        connection.close()
    assert [status_of(end) for end in ends if end] == [408] * 50


def test_a_client_that_leaves_before_its_body_is_complete_harms_nobody(
    server: ServerProcess,
) -> None:
    for _ in range(20):
        with connected(server) as connection:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")

    assert_it_still_answers(server)


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n"],
    ids=["tls", "half a line", "zeros", "version"],
)
def test_what_is_no_http_is_refused(server: ServerProcess, garbage: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(garbage)
        answer = read_to_end(connection)

    assert status_of(answer) == 400
    assert_it_still_answers(server)


def test_an_upgrade_to_a_websocket_is_answered_as_an_ordinary_request(
    server: ServerProcess,
) -> None:
    reply = ask(
        server,
        "GET",
        "/v1/realtime",
        headers={"Connection": "close, Upgrade", "Upgrade": "websocket"},
    )

    assert (reply.status, reply.error()["code"]) == (501, "endpoint_not_implemented")


def test_requests_beyond_the_limit_are_told_when_to_come_back(
    start_server: StartServer, models: TestModels
) -> None:
    server = start_server({"models": [str(models.talker)], "server.max_requests": 3})
    held = [socket.create_connection(server.address, timeout=SETTLE_S) for _ in range(3)]
    for connection in held:
        connection.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")

    def refused() -> bool:
        return ask(server, "GET", "/v1/models").status == 503

    wait_until(refused, what="a 503")
    reply = ask(server, "GET", "/v1/models")
    strictly(ErrorBody, reply.body)
    assert int(reply.headers["retry-after"]) >= 1

    for connection in held:
        connection.close()
    wait_until(lambda: not refused(), what="an answer again")
