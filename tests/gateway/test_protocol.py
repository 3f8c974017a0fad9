"""HTTP as it really comes: the short way and the long way into the data plane answer alike."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import pytest

from tests.gateway.gateway_server import TOKEN, GatewayServer, Place, chat_body
from tests.gateway.stand_in import Reply, StandIn, stand_in_on_thread

MAX_BODY_BYTES = 100_000
BODY_TIMEOUT_S = 1.0
HEADER_TIMEOUT_S = 2.0
FLAGS = {
    "server.body.max_bytes": MAX_BODY_BYTES,
    "server.body.timeout_s": BODY_TIMEOUT_S,
    "server.header_timeout_s": HEADER_TIMEOUT_S,
}
SHORT, LONG = "", "Origin: http://localhost\r\n"
"""A page's origin is one of the things that make a request take the long way."""

ways = pytest.mark.parametrize("way", [SHORT, LONG], ids=["short", "long"])


@pytest.fixture(scope="module")
def gateway_server(
    provider: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """One with narrow limits."""
    server = GatewayServer(provider, tmp_path_factory.mktemp("protocol"), FLAGS)
    yield server
    server.stop()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer off a connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_chunked: bool
    is_whole: bool


class Wire:
    """A connection that sends exactly what it is told."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=20)
        self._file: BinaryIO = self.sock.makefile("rb")

    def send(self, data: bytes | str) -> None:
        """Send these bytes."""
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def answer(self, *, bodiless: bool = False) -> Answer:
        """Read one answer; 1xx heads count as answers."""
        line = self._file.readline()
        assert line, "the connection ended instead of an answer"
        status = int(line.split()[1])
        headers: dict[str, str] = {}
        while (field := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        chunked = headers.get("transfer-encoding") == "chunked"
        whole, body = True, b""
        if bodiless or status in (204, 304) or status < 200:
            pass
        elif chunked:
            body, whole = self._chunks()
        elif "content-length" in headers:
            body = self._file.read(int(headers["content-length"]))
            whole = len(body) == int(headers["content-length"])
        else:
            body = self._file.read()
        return Answer(status, headers, body, chunked, whole)

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while line := self._file.readline():
            size = int(line, 16)
            piece = self._file.read(size)
            body += piece
            if self._file.read(2) != b"\r\n":
                break
            if size == 0:
                return body, True
        return body, False

    def is_ended(self, within_s: float = 10.0) -> bool:
        """Whether the server closes, without another byte."""
        self.sock.settimeout(within_s)
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def close(self, *, reset: bool = False) -> None:
        """Leave."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.sock.close()


@contextmanager
def wired(place: Place) -> Iterator[Wire]:
    wire = Wire(place.server.process.address)
    try:
        yield wire
    finally:
        wire.close()


def head(
    place: Place,
    way: str = SHORT,
    *,
    method: str = "POST",
    path: str = "/openai/chat/completions",
    version: str = "1.1",
    more: str = "",
) -> str:
    target = f"/gateway/v1/{place.account}/default{path}"
    return (
        f"{method} {target} HTTP/{version}\r\nHost: localhost\r\n"
        f"cf-aig-authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n{way}{more}"
    )


def request(place: Place, way: str = SHORT, *, model: str = "mock", **more: Any) -> str:
    head_options = {k: more.pop(k) for k in ("version", "more", "path") if k in more}
    body = json.dumps(chat_body(model, **more))
    return head(place, way, **head_options) + f"Content-Length: {len(body)}\r\n\r\n{body}"


def until(true: Any, what: str, within_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, f"still no {what}"
        time.sleep(0.01)


_VARYING = {"cf-aig-log-id", "x-request-id", "vary", "access-control-allow-origin"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "mock-t5", "stream": True},
        {"model": "mock-x422"},
        {"path": "/nosuch/chat"},
        {"more": "cf-aig-cache-ttl: x\r\n"},
        {"path": "/openai/chat/completions?a=%20b"},
    ],
)
def test_both_ways_give_the_same_answer(place: Place, options: dict[str, Any]) -> None:
    answers = []
    for way in (SHORT, LONG):
        with wired(place) as wire:
            wire.send(request(place, way, **options))
            answers.append(wire.answer())

    short, long = answers
    assert (short.status, short.body, short.is_chunked) == (long.status, long.body, long.is_chunked)
    assert {k: v for k, v in short.headers.items() if k not in _VARYING} == {
        k: v for k, v in long.headers.items() if k not in _VARYING
    }
    targets = [r.target for r in place.provider.requests]
    assert len(targets) in (0, 2)
    assert len(set(targets)) <= 1


@ways
def test_a_connection_serves_one_request_after_the_other(place: Place, way: str) -> None:
    with wired(place) as wire:
        for number in range(20):
            wire.send(request(place, way, model=f"mock-t{number + 1}", stream=number % 3 == 0))
            answer = wire.answer()
            assert answer.status == 200
            assert answer.is_whole


@ways
@pytest.mark.parametrize("stream", [False, True])
def test_connection_close_is_honoured(place: Place, way: str, stream: bool) -> None:
    with wired(place) as wire:
        wire.send(request(place, way, more="Connection: close\r\n", stream=stream))
        answer = wire.answer()
        assert answer.is_whole
        assert answer.headers.get("connection") == "close"
        assert wire.is_ended()


@ways
@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_is_served_without_chunks(place: Place, way: str, stream: bool) -> None:
    with wired(place) as wire:
        wire.send(request(place, way, version="1.0", stream=stream, model="mock-t5"))
        answer = wire.answer()
        assert answer.status == 200
        assert wire.is_ended()
    text = answer.body.decode()
    assert "data: [DONE]" in text if stream else json.loads(text)["usage"]
    assert not answer.is_chunked, "HTTP/1.0 knows no chunks"


@ways
def test_bodies_in_chunks_arrive_whole(place: Place, way: str) -> None:
    body = json.dumps(chat_body("mock", pad="x" * 50_000)).encode()
    with wired(place) as wire:
        wire.send(head(place, way, more="Transfer-Encoding: chunked\r\n") + "\r\n")
        for at in range(0, len(body), 777):
            piece = body[at : at + 777]
            wire.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
        wire.send("0\r\nX-Trailer: 1\r\n\r\n")
        assert wire.answer().status == 200
        wire.send(request(place, way))
        assert wire.answer().status == 200

    assert place.provider.requests[0].body == body
    assert place.provider.requests[0].header("content-length") == str(len(body))


def test_a_client_that_expects_a_100_gets_one(place: Place) -> None:
    body = json.dumps(chat_body())
    with wired(place) as wire:
        wire.send(head(place, more=f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"))
        assert wire.answer().status == 100
        wire.send(body)
        assert wire.answer().status == 200


def test_requests_byte_by_byte_are_understood(place: Place) -> None:
    with wired(place) as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for char in request(place):
            wire.send(char)
        assert wire.answer().status == 200


@ways
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_bodies_over_the_limit_are_a_413(place: Place, way: str, framing: str) -> None:
    with wired(place) as wire:
        if framing == "length":
            wire.send(head(place, way, more=f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"))
            with suppress(OSError):  # it may have closed already
                wire.send(b"x" * (MAX_BODY_BYTES + 1))
        else:
            wire.send(head(place, way, more="Transfer-Encoding: chunked\r\n\r\n"))
            for _ in range(MAX_BODY_BYTES // 10_000 + 1):
                wire.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        answer = wire.answer()
        assert answer.status == 413
        assert json.loads(answer.body)["name"] == "AiGatewayError"
        assert answer.headers["connection"] == "close"
        assert wire.is_ended()
    assert not place.provider.requests


@ways
def test_a_body_of_exactly_the_limit_passes(place: Place, way: str) -> None:
    body = b'{"model":"mock","messages":[]'.ljust(MAX_BODY_BYTES - 1) + b"}"
    with wired(place) as wire:
        wire.send(head(place, way, more=f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        assert wire.answer().status == 200


@ways
def test_bodies_that_do_not_come_are_a_408(place: Place, way: str) -> None:
    with wired(place) as wire:
        wire.send(head(place, way, more="Content-Length: 50\r\n\r\n{"))
        began_s = time.monotonic()
        answer = wire.answer()
        assert answer.status == 408
        assert BODY_TIMEOUT_S * 0.8 < time.monotonic() - began_s < BODY_TIMEOUT_S + 3
        assert json.loads(answer.body)["name"] == "AiGatewayError"
        assert wire.is_ended()


def test_headers_that_do_not_come_end_the_connection(place: Place) -> None:
    with wired(place) as wire:
        wire.send(head(place))
        began_s = time.monotonic()
        assert wire.is_ended()
        assert HEADER_TIMEOUT_S * 0.8 < time.monotonic() - began_s < HEADER_TIMEOUT_S + 3


def test_headers_without_end_are_a_431(place: Place) -> None:
    with wired(place) as wire:
        wire.send(head(place))
        wire.send(f"x: {'y' * 100}\r\n" * 650)
        assert wire.answer().status == 431
        assert wire.is_ended()


def test_an_idle_connection_is_closed_in_the_end(place: Place) -> None:
    with wired(place) as wire:
        wire.send(request(place))
        assert wire.answer().status == 200
        began_s = time.monotonic()
        assert wire.is_ended(15)
        assert time.monotonic() - began_s > 2


# Several requests in one go.


@pytest.mark.parametrize("stream", [False, True])
def test_pipelined_requests_are_answered_in_their_order(place: Place, stream: bool) -> None:
    with wired(place) as wire:
        models = ["mock-d300-t3", "mock-t4", "mock-d50-t5", "mock-t6"]
        wire.send("".join(request(place, model=model, stream=stream) for model in models))
        answers = [wire.answer() for _ in models]

    for model, answer in zip(models, answers, strict=True):
        assert answer.status == 200
        assert f'"model":"{model}"' in answer.body.decode().replace(": ", ":")
        assert answer.is_whole


_CACHED = "cf-aig-cache-ttl: 60\r\n"


def _keep_an_answer(place: Place, wire: Wire) -> None:
    """Have the answer to the request that is sent next in the cache: it needs no waiting then."""
    wire.send(request(place, more=_CACHED))
    assert wire.answer().headers["cf-aig-cache-status"] == "MISS"


def test_a_client_that_closes_its_side_at_once_gets_its_answer(place: Place) -> None:
    with wired(place) as wire:
        _keep_an_answer(place, wire)
        wire.send(request(place, more=_CACHED))
        wire.sock.shutdown(socket.SHUT_WR)
        answer = wire.answer()

    assert answer.headers["cf-aig-cache-status"] == "HIT"
    assert answer.is_whole


@pytest.mark.parametrize(
    ("behind", "status"),
    [("no HTTP\r\n\r\n", 400), ("X-A: " + "x" * 70_000, 431)],
    ids=["no HTTP", "headers without end"],
)
def test_an_answer_goes_before_the_refusal_of_what_came_with_its_request(
    place: Place, behind: str, status: int
) -> None:
    begin = "" if status == 400 else head(place)
    with wired(place) as wire:
        _keep_an_answer(place, wire)
        wire.send(request(place, more=_CACHED) + begin + behind)
        first, second = wire.answer(), wire.answer()

    assert (first.status, first.headers["cf-aig-cache-status"]) == (200, "HIT")
    assert second.status == status


@pytest.mark.parametrize("way", [SHORT, LONG, "Connection: close\r\n"])
@pytest.mark.parametrize("stream", [False, True])
def test_answers_leave_in_order_when_the_first_is_there_at_once(
    place: Place, way: str, stream: bool
) -> None:
    with wired(place) as wire:
        _keep_an_answer(place, wire)
        later = request(place, way, model="mock-t5", stream=stream)
        wire.send(request(place, more=_CACHED) * 3 + later)
        hits = [wire.answer() for _ in range(3)]
        last = wire.answer()

    assert [hit.headers["cf-aig-cache-status"] for hit in hits] == ["HIT"] * 3
    assert "mock-t5" in last.body.decode()
    assert last.is_whole


def test_pipelined_requests_of_both_ways_are_never_mixed_up(place: Place) -> None:
    """A client that gets no answer before the connection ends asks again on another."""
    shapes = [
        (SHORT, SHORT, LONG),
        (SHORT, LONG),
        (LONG, SHORT),
        (LONG, SHORT, LONG, SHORT),
        (SHORT, LONG, SHORT),
    ]
    for shape in shapes:
        with wired(place) as wire:
            models = [f"mock-d{60 // (i + 1)}-t{i + 2}" for i in range(len(shape))]
            wire.send(
                "".join(
                    request(place, way, model=model)
                    for way, model in zip(shape, models, strict=True)
                )
            )
            got: list[str] = []
            for model in models:
                if got and select.select([wire.sock], [], [], 2)[0] == []:
                    raise AssertionError(f"{shape}: silence after {len(got)} answers")
                try:
                    answer = wire.answer()
                except AssertionError:
                    break  # ended instead
                assert answer.status == 200
                assert answer.is_whole
                assert json.loads(answer.body)["model"] == model, shape
                got.append(model)
            assert got, shape
            if shape[0] == LONG:
                assert got == models, shape


def test_a_client_that_pipelines_a_hundred_requests_gets_each_answer_once(place: Place) -> None:
    with wired(place) as wire:
        models = [f"mock-t{number + 1}" for number in range(100)]
        sent = "".join(request(place, model=model) for model in models)
        sender = threading.Thread(target=wire.send, args=(sent,))
        sender.start()
        answered = [json.loads(wire.answer().body)["model"] for _ in models]
        sender.join()

    assert answered == models


# What a front server and we might understand differently.

_SMUGGLES = {
    "two lengths": "Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "two same lengths": "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": "Content-Length: 2, 2\r\n\r\n{}",
    "length and chunks": "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "chunks twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a negative length": "Content-Length: -1\r\n\r\n",
    "a signed length": "Content-Length: +2\r\n\r\n{}",
    "a length in hex": "Content-Length: 0x2\r\n\r\n{}",
    "an empty length": "Content-Length: \r\n\r\n{}",
    "a folded header": "X-A: 1\r\n folded: 2\r\nContent-Length: 2\r\n\r\n{}",
    "space before the colon": "Content-Length : 2\r\n\r\n{}",
    "a header without a colon": "nonsense\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a value": "X-A: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "a bare CR in a value": "X-A: a\rX-B: b\r\nContent-Length: 2\r\n\r\n{}",
    "a bad chunk size": "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than said": "Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n",
    "a huge chunk size": "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
}


@ways
@pytest.mark.parametrize("name", _SMUGGLES)
def test_requests_that_can_be_read_in_two_ways_are_refused(
    place: Place, way: str, name: str
) -> None:
    """And nothing behind them is taken for a request."""
    smuggled = request(place, model="mock-smuggled")
    with wired(place) as wire:
        wire.send(head(place, way, more=_SMUGGLES[name]) + smuggled)
        assert 400 <= wire.answer().status < 500
        assert wire.is_ended()

    assert all(r.model != "mock-smuggled" for r in place.provider.requests)
    assert all(r.header("x-b") is None for r in place.provider.requests)


def test_encoded_line_breaks_in_a_path_stay_encoded(place: Place) -> None:
    place.provider.queue(Reply(body=b"{}"))
    with wired(place) as wire:
        wire.send(
            head(place, method="GET", path="/openai/files/a%0d%0aX-Evil:%201?b=%0d%0a") + "\r\n"
        )
        assert wire.answer().status in (200, 400)

    for each in place.provider.requests:
        assert each.header("x-evil") is None
        assert each.target == "/v1/files/a%0d%0aX-Evil:%201?b=%0d%0a"


@pytest.mark.parametrize("path", ["/openai/../../../etc", "/openai/%2e%2e/%2e%2e/x", "/openai//e"])
def test_paths_do_not_climb_out_of_their_provider(place: Place, path: str) -> None:
    with wired(place) as wire:
        wire.send(head(place, method="GET", path=path) + "\r\n")
        wire.answer()

    assert all(r.path.startswith("/v1/") for r in place.provider.requests)
    assert all(".." not in r.path for r in place.provider.requests)


def test_an_event_id_cannot_break_out_of_its_header(place: Place) -> None:
    for value in ("a\x01b", "a\x7fb", "é☃", "x" * 1024):
        answer = place.server.http.post(
            place.url("openai/chat/completions"),
            json=chat_body(),
            headers=[
                (b"cf-aig-authorization", f"Bearer {TOKEN}".encode()),
                (b"cf-aig-event-id", value.encode()),
            ],
        )
        assert answer.status_code in (200, 400)


# Callers that are slow, and callers that leave.


@ways
def test_a_slow_reader_pauses_the_provider(place: Place, way: str) -> None:
    pieces, size = 600, 64 * 1024
    event = b"data: " + b"x" * (size - 8) + b"\n\n"
    place.provider.queue(
        Reply(headers=(("content-type", "text/event-stream"),), chunks=[event] * pieces)
    )
    with wired(place) as wire:
        wire.send(request(place, way, stream=True))
        counters = place.provider.counters
        seen = -1
        while counters.bytes_written != seen:
            seen = counters.bytes_written
            time.sleep(0.5)
        assert seen < pieces * size / 2, "the provider was not paused"
        answer = wire.answer()

    assert answer.body == event * pieces
    assert answer.is_whole


@ways
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("model", ["mock-h", "mock-t1000-c20"])
def test_a_client_that_leaves_ends_the_call_at_the_provider(
    place: Place, way: str, reset: bool, model: str
) -> None:
    wire = Wire(place.server.process.address)
    wire.send(request(place, way, model=model, stream=True))
    until(lambda: place.provider.requests, "request")
    if model != "mock-h":
        wire.sock.recv(100)
    wire.close(reset=reset)

    until(lambda: place.provider.counters.aborted == 1, "end at the provider")
    (record,) = place.records(1)
    assert (record.outcome, record.status) == ("client_closed", 499)


@ways
def test_a_client_that_leaves_while_sending_costs_nothing(place: Place, way: str) -> None:
    for _ in range(10):
        wire = Wire(place.server.process.address)
        wire.send(head(place, way, more="Content-Length: 90000\r\n\r\n") + "{" * 40_000)
        wire.close(reset=True)

    with wired(place) as wire:  # and the room for bodies is given back
        wire.send(request(place, way))
        assert wire.answer().status == 200
    assert len(place.provider.requests) == 1


def test_a_client_that_leaves_a_pipeline_leaves_all_of_it(place: Place) -> None:
    wire = Wire(place.server.process.address)
    wire.send(request(place, model="mock-h") + request(place) + request(place))
    until(lambda: place.provider.requests, "request")
    wire.close(reset=True)

    until(lambda: place.provider.counters.aborted == 1, "end at the provider")
    time.sleep(0.2)
    assert len(place.provider.requests) == 1


def test_a_client_that_reads_a_byte_a_second_holds_up_nobody(place: Place) -> None:
    slow = Wire(place.server.process.address)
    slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    slow.send(request(place, model="mock-t3000", stream=True))
    times = []
    for _ in range(30):
        slow.sock.recv(1)
        began_s = time.monotonic()
        assert place.chat().status_code == 200
        times.append(time.monotonic() - began_s)
    slow.close(reset=True)

    assert sorted(times)[15] < 0.25


# The end.


def _many_streams(place: Place, count: int, model: str) -> tuple[list[threading.Thread], list[str]]:
    """Start calls in threads; each puts down how it ended."""
    ends: list[str] = []

    def ask(number: int) -> None:
        try:
            if number % 3 == 0:
                body = place.chat(f"{model}-t3", headers={"connection": "close"}).text
                ends.append("whole" if '"usage"' in body else body)
            else:
                text = place.chat(model, stream=True).text
                ends.append("done" if text.endswith("data: [DONE]\n\n") else text[-300:])
        except httpx2.HTTPError as error:
            ends.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads, ends


def test_a_server_that_is_stopped_ends_what_runs_and_loses_no_record(tmp_path: Path) -> None:
    with stand_in_on_thread(StandIn()) as provider:
        server = GatewayServer(provider, tmp_path / "s", {"server.shutdown_grace_s": 10})
        place = Place(server, "stopping")
        for _ in range(200):
            place.chat()
        threads, ends = _many_streams(place, 30, "mock-t40-c40")
        until(lambda: provider.counters.requests == 230, "30 calls")
        os.kill(server.process._process.pid, signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(server.process.address, timeout=1)
        for thread in threads:
            thread.join(20)
        server.stop()

        assert Counter(ends) == {"whole": 10, "done": 20}
        records = server.records()
        assert len(records) == 230
        assert all(record.outcome == "ok" for record in records)


def test_what_outlasts_the_grace_is_cut_and_recorded(tmp_path: Path) -> None:
    with stand_in_on_thread(StandIn()) as provider:
        server = GatewayServer(provider, tmp_path / "s", {"server.shutdown_grace_s": 1})
        place = Place(server, "stopping")
        threads, ends = _many_streams(place, 9, "mock-t900-c100-d1000")
        until(lambda: provider.counters.requests == 9, "9 calls")
        time.sleep(1.5)
        began_s = time.monotonic()
        server.stop()
        assert time.monotonic() - began_s < 8
        for thread in threads:
            thread.join(10)

        assert len(ends) == 9
        records = server.records()
        assert len(records) == 9
        assert Counter(record.outcome for record in records)["client_closed"] >= 6


def test_connection_that_is_kept_serves_both_ways_in_turn(place: Place) -> None:
    gateways = f"/client/v4/accounts/{place.account}/ai-gateway/gateways"
    for _ in range(60):
        with httpx2.Client(base_url=place.server.url, timeout=10) as client:  # one connection
            for _ in range(2):
                answer = client.post(
                    f"/gateway/v1/{place.account}/default/openai/chat/completions",
                    json=chat_body("mock"),
                    headers=place.headers(),
                )
                assert answer.status_code == 200
                listed = client.get(gateways, headers={"authorization": f"Bearer {TOKEN}"})
                assert listed.status_code == 200
