"""The gateway's WebSockets: universal requests, told apart by their `eventId`."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from openworks.api.body import BodyBudget
from openworks.api.busy import UnderWay
from openworks.api.gateway.websocket import Sockets
from openworks.app.settings import load_settings
from openworks.app.state import make_catalog, make_weights
from openworks.app.wiring import open_services
from tests.api.weights import TestModels
from tests.conftest import StartServer
from tests.gateway.fronts import PROVIDER_SECRET, Front, open_front
from tests.gateway.stand_in import Reply
from tests.server import wait_until

TOKEN = "owner-of-the-sockets"
PATH = "/gateway/v1/default/default"
EVIL = Origin("https://evil.example")
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def front(models: TestModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with open_front(tmp_path_factory.mktemp("sockets"), models, token=TOKEN) as opened:
        opened.get(f"{PATH}/compat/models")
        opened.keep_credential("openai")
        opened.keep_credential("anthropic")
        yield opened


@pytest.fixture
def socket(front: Front) -> Iterator[ClientConnection]:
    front.provider.clear()
    with opened(front) as connection:
        yield connection


def opened(front: Front, path: str = PATH, **more: Any) -> AbstractContextManager[ClientConnection]:
    """Open a socket as the owner."""
    headers = {"cf-aig-authorization": f"Bearer {TOKEN}"}
    socket: AbstractContextManager[ClientConnection] = connect(
        front.url.replace("http", "ws") + path,
        additional_headers=headers,
        max_size=None,
        open_timeout=30,
        **more,
    )
    return socket


def ask(socket: ClientConnection, event: str, **request: Any) -> None:
    request = {"eventId": event, "provider": "openai", "endpoint": "chat/completions", **request}
    socket.send(json.dumps({"type": "universal.create", "request": request}))


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, **more}


def hear(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(timeout=30))
    return message


def test_whole_answer_comes_in_one_message_with_its_metadata(
    front: Front, socket: ClientConnection
) -> None:
    ask(socket, "one", query=chat("mock-t3-p7"))
    message = hear(socket)
    metadata = message["metadata"]
    assert message["type"] == "universal.created"
    assert message["response"]["usage"]["completion_tokens"] == 3
    assert metadata["eventId"] == "one"
    assert metadata["step"] == "0"
    assert metadata["cacheStatus"] == "MISS"
    assert metadata["contentType"] == "application/json"
    record = front.process.record_of(metadata["logId"])
    assert (record.event_id, record.usage.prompt_tokens) == ("one", 7)
    assert front.provider.requests[-1].header("authorization") == f"Bearer {PROVIDER_SECRET}"


def test_stream_comes_event_by_event_and_ends_with_its_metadata(socket: ClientConnection) -> None:
    ask(socket, "s", query=chat("mock-t5", stream=True))
    created = hear(socket)
    assert created["type"] == "universal.created"
    assert created["metadata"]["contentType"] == "text/event-stream"
    assert "response" not in created
    words = []
    while (message := hear(socket))["type"] == "universal.stream":
        assert message["metadata"] == {"eventId": "s"}
        words.append(message["response"]["choices"][0]["delta"]["content"])
    assert words == [f" tok{number}" for number in range(5)]
    assert message["type"] == "universal.done"
    assert message["metadata"] == created["metadata"]


def test_models_of_this_server_answer_by_their_native_path(socket: ClientConnection) -> None:
    query = {"prompt": "Hello", "max_tokens": 3}
    ask(socket, "l", provider="workers-ai", endpoint="run/plain", query=query)
    message = hear(socket)
    assert message["response"]["success"] is True
    assert isinstance(message["response"]["result"]["response"], str)


def test_our_own_key_in_a_steps_headers_is_no_providers(
    front: Front, socket: ClientConnection
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    query = {"prompt": "Hello", "max_tokens": 2}
    ask(socket, "k", provider="workers-ai", endpoint="run/plain", headers=headers, query=query)
    assert hear(socket)["response"]["success"] is True
    ask(socket, "o", headers=headers, query=chat("mock"))
    assert hear(socket)["metadata"]["status"] == 200
    assert front.provider.requests[-1].header("authorization") == f"Bearer {PROVIDER_SECRET}"


def test_requests_on_one_socket_overtake_each_other(socket: ClientConnection) -> None:
    ask(socket, "slow", query=chat("mock-t3-c150", stream=True))
    ask(socket, "quick", query=chat("mock-t2"))
    seen = []
    while True:
        message = hear(socket)
        seen.append((message["type"], message["metadata"]["eventId"]))
        if message["type"] == "universal.done":
            break
    assert ("universal.created", "quick") in seen
    assert seen[-1] == ("universal.done", "slow")


def test_many_requests_at_once_are_told_apart(socket: ClientConnection) -> None:
    for number in range(40):
        ask(socket, f"e{number}", query=chat(f"mock-t{number + 1}-d20"))
    told = {}
    for _ in range(40):
        message = hear(socket)
        told[message["metadata"]["eventId"]] = message["response"]["usage"]["completion_tokens"]
    assert told == {f"e{number}": number + 1 for number in range(40)}


def test_steps_fall_back_as_over_http(socket: ClientConnection) -> None:
    steps = [
        {
            "eventId": "f",
            "provider": "openai",
            "endpoint": "chat/completions",
            "query": chat("mock-x500"),
        },
        {"provider": "anthropic", "endpoint": "v1/messages", "query": chat("mock", max_tokens=5)},
    ]
    socket.send(json.dumps({"type": "universal.create", "request": steps}))
    message = hear(socket)
    assert (message["metadata"]["step"], message["metadata"]["eventId"]) == ("1", "f")
    assert message["response"]["type"] == "message"


def test_provider_errors_come_with_their_status(socket: ClientConnection) -> None:
    ask(socket, "e", query=chat("mock-x429"))
    message = hear(socket)
    assert message["metadata"]["status"] == 429
    assert "error" in message["response"]


def test_answers_that_are_no_json_come_as_text_or_base64(
    front: Front, socket: ClientConnection
) -> None:
    front.provider.queue(
        Reply(headers=(("content-type", "text/plain"),), body="schön".encode()),
        Reply(headers=(("content-type", "audio/mpeg"),), body=b"\xff\xfb\x00"),
    )
    ask(socket, "t", query=chat("mock"))
    assert hear(socket)["response"] == "schön"
    ask(socket, "b", query=chat("mock"))
    assert base64.b64decode(hear(socket)["response"]) == b"\xff\xfb\x00"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("{", "universal.create"),
        ('{"type": "other", "request": {}}', "universal.create, got 'other'"),
        ('{"type": "universal.create"}', "request"),
        ('{"type": "universal.create", "request": {"eventId": "x\\ny"}}', "eventId"),
        (b"\xff\xfe", "universal.create"),
    ],
)
def test_messages_without_sense_are_told_and_the_socket_stays(
    socket: ClientConnection, message: str | bytes, says: str
) -> None:
    socket.send(message)
    told = hear(socket)
    assert told["type"] == "universal.error"
    assert says in told["error"]["message"]
    ask(socket, "after", query=chat("mock"))
    assert hear(socket)["metadata"]["eventId"] == "after"


def test_steps_without_sense_are_the_gateways_own_error(socket: ClientConnection) -> None:
    ask(socket, "n", provider="nobody", query={})
    message = hear(socket)
    assert message["type"] == "universal.created"
    assert message["metadata"]["status"] == 404
    assert message["response"]["success"] is False


def test_an_event_id_is_one_request_at_a_time(socket: ClientConnection) -> None:
    ask(socket, "same", query=chat("mock-d300"))
    ask(socket, "same", query=chat("mock"))
    refused, answered = hear(socket), hear(socket)
    assert refused["type"] == "universal.error"
    assert "under way" in refused["error"]["message"]
    assert answered["type"] == "universal.created"
    ask(socket, "same", query=chat("mock"))
    assert hear(socket)["type"] == "universal.created"


def test_requests_over_the_bound_are_refused_and_the_others_go_on(
    front: Front, socket: ClientConnection
) -> None:
    for number in range(70):
        ask(socket, f"n{number}", query=chat("mock-d800"))
    told = [hear(socket) for _ in range(70)]
    kinds = [message["type"] for message in told]
    assert kinds.count("universal.error") == 6
    assert kinds.count("universal.created") == 64
    assert all(
        "64" in message["error"]["message"]
        for message in told
        if message["type"] == "universal.error"
    )


def test_closing_the_socket_ends_its_requests_at_the_provider(front: Front) -> None:
    front.provider.clear()
    with opened(front) as socket:
        ask(socket, "hang", query=chat("mock-h"))
        ask(socket, "flow", query=chat("mock-t500-c50", stream=True))
        wait_until(lambda: front.provider.counters.requests == 2, what="two requests")
    wait_until(lambda: front.provider.counters.aborted == 2, what="two aborted requests")


def test_a_client_that_reads_slowly_holds_up_the_provider(front: Front) -> None:
    front.provider.clear()
    piece = b'data: {"x": "' + b"y" * 60_000 + b'"}\n\n'
    front.provider.queue(
        Reply(
            headers=(("content-type", "text/event-stream"),),
            chunks=[piece] * 1000 + [b"data: [DONE]\n\n"],
        )
    )
    with opened(front, max_queue=1) as socket:
        ask(socket, "slow", query=chat("mock", stream=True))
        time.sleep(1.5)
        held = front.provider.counters.bytes_written
        assert held < 30_000_000  # of sixty million: buffers of the kernel and of both sides
        count = 0
        while hear(socket)["type"] != "universal.done":
            count += 1
        assert count == 1001


def test_a_stream_that_breaks_off_says_so(front: Front, socket: ClientConnection) -> None:
    ask(socket, "k", query=chat("mock-t9-k3", stream=True))
    messages: list[dict[str, Any]] = []
    while not messages or messages[-1]["type"] not in ("universal.done", "universal.error"):
        messages.append(hear(socket))
    assert "error" in json.dumps(messages[-2:])
    record = front.process.record_of(messages[0]["metadata"]["logId"])
    assert record.outcome == "error"


def test_a_message_over_the_limit_closes_the_socket(start_server: StartServer) -> None:
    server = start_server({"server.body.max_bytes": 10_000})
    url = server.url.replace("http", "ws") + PATH
    with connect(url) as socket:
        socket.send("x" * 20_000)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_nobody_without_a_key_gets_a_socket(front: Front) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(front.url.replace("http", "ws") + PATH):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["name"] == "AiGatewayError"


@pytest.mark.parametrize(("path", "status"), [("", 404), ("/default", 404), ("/default/none", 400)])
def test_places_without_a_gateway_have_no_socket(front: Front, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(front, f"/gateway/v1{path}"):
        pass
    assert refused.value.response.status_code == status


@pytest.mark.parametrize(("path", "status"), [("/v1/realtime", 501), ("/nowhere", 404)])
def test_other_paths_answer_as_to_an_ordinary_request(front: Front, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(front, path):
        pass
    assert refused.value.response.status_code == status
    assert b'"error"' in refused.value.response.body


def test_docs_spelling_of_place_and_key_opens_a_socket(front: Front) -> None:
    url = front.url.replace("http", "ws") + PATH + "/"
    with connect(url, additional_headers={"cf-aig-authorization": TOKEN}) as socket:
        ask(socket, "d", query=chat("mock"))
        assert hear(socket)["metadata"]["status"] == 200


def test_browser_shows_its_key_in_a_subprotocol(front: Front) -> None:
    secret = Subprotocol(f"cf-aig-authorization.{TOKEN}")
    url = front.url.replace("http", "ws") + PATH
    with connect(url, subprotocols=[secret], origin=Origin("https://app.example")) as socket:
        assert socket.subprotocol == secret
        ask(socket, "b", query=chat("mock"))
        assert hear(socket)["metadata"]["eventId"] == "b"


def test_page_of_another_site_gets_no_socket_of_an_open_server(start_server: StartServer) -> None:
    server = start_server({})
    url = server.url.replace("http", "ws") + PATH
    with pytest.raises(InvalidStatus) as refused, connect(url, origin=EVIL):
        pass
    assert refused.value.response.status_code == 403
    assert b"https://evil.example" in refused.value.response.body
    with connect(url, origin=Origin(server.url)):
        pass


def test_sockets_count_among_the_requests_under_way(start_server: StartServer) -> None:
    server = start_server({"server.max_requests": 1})
    url = server.url.replace("http", "ws") + PATH
    with connect(url), pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    assert refused.value.response.status_code == 503


def test_gateway_that_asks_for_no_key_opens_sockets_to_everybody(front: Front) -> None:
    front.make("open", authentication=False)
    url = front.url.replace("http", "ws") + "/gateway/v1/default/open"
    with connect(url) as socket:
        ask(socket, "mine", headers={"Authorization": "Bearer sk-mine"}, query=chat("mock"))
        assert hear(socket)["metadata"]["status"] == 200
        assert front.provider.requests[-1].header("authorization") == "Bearer sk-mine"
        local = {"prompt": "Hello", "max_tokens": 2}
        ask(socket, "local", provider="workers-ai", endpoint="run/plain", query=local)
        assert hear(socket)["metadata"]["status"] == 401


def test_an_upgrade_behind_another_request_ends_the_connection_after_its_answer(
    front: Front,
) -> None:
    host, port = front.process.address
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
    body = json.dumps(chat("mock-d100"))
    first = (
        f"POST {PATH}/openai/chat/completions HTTP/1.1\r\n{head}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    second = (
        f"GET {PATH} HTTP/1.1\r\n{head}Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with create_connection((host, port), timeout=30) as raw:
        raw.sendall((first + second).encode())
        received = b""
        while piece := raw.recv(65536):
            received += piece
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 200")


def test_open_sockets_do_not_hold_up_the_end_of_the_server(start_server: StartServer) -> None:
    server = start_server({})
    with connect(server.url.replace("http", "ws") + PATH) as socket:
        assert server.stop() == 0
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


async def test_a_socket_without_requests_is_closed_after_a_while(
    tmp_path: Path,
) -> None:
    settings = load_settings(flags={"data_dir": str(tmp_path), "server.port": 0})
    catalog = await make_catalog(settings, make_weights(settings), on_progress=lambda *_: None)
    async with open_services(settings, catalog) as services:
        sockets = Sockets(services, BodyBudget(1 << 20), UnderWay(10), idle_s=0.2)
        heard: list[Any] = []
        told: asyncio.Queue[Any] = asyncio.Queue()
        told.put_nowait({"type": "websocket.connect"})
        request = {"provider": "nobody", "endpoint": "x", "query": {}}
        create = {"type": "universal.create", "request": request}
        told.put_nowait({"type": "websocket.receive", "text": json.dumps(create)})

        async def send(message: Any) -> None:
            heard.append(message)

        scope = {
            "type": "websocket",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
        }
        await sockets(scope, told.get, send)
    assert [message["type"] for message in heard] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
