"""Realtime APIs of providers through the gateway."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from openworks.gateway.http.config import HttpConfig
from openworks.gateway.http.sockets import AiohttpSockets
from openworks.ports.upstream import Origin, Timeouts, UpstreamError, UpstreamRequest
from tests.gateway.fronts import PROVIDER_SECRET, Front, open_front
from tests.server import wait_until

TOKEN = "owner-of-the-realtime"
USAGE = {
    "total_tokens": 30,
    "input_tokens": 20,
    "output_tokens": 10,
    "input_token_details": {"cached_tokens": 5, "text_tokens": 20},
}


@dataclass(slots=True)
class RealtimeProvider:
    """A WebSocket server that says back what it hears, and does as it is told."""

    requests: list[Request] = field(default_factory=list)
    closed: list[int | None] = field(default_factory=list)
    """The codes with which callers left."""
    port: int = 0
    release: threading.Event = field(default_factory=threading.Event)
    """Ends the silence of `/silent`."""

    def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.requests.append(connection.request)
        try:
            for message in connection:
                self._answer(connection, message)
        finally:
            self.closed.append(connection.close_code)

    def _answer(self, connection: ServerConnection, message: str | bytes) -> None:
        if message == "close":
            connection.close(4001, "told to")
        elif message == "drop":
            connection.socket.close()
        elif message == "respond":
            connection.send(json.dumps({"type": "response.delta", "delta": "hi"}))
            done: dict[str, Any] = {"type": "response.done", "response": {"usage": USAGE}}
            connection.send(json.dumps(done))
        else:
            connection.send(message)

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        if "silent" in request.path:
            self.release.wait(30)
        if "refuse" in request.path:
            return connection.respond(HTTPStatus.FORBIDDEN, "No.")
        return None


@contextmanager
def running(provider: RealtimeProvider) -> Iterator[RealtimeProvider]:
    with serve(
        provider.handle,
        "127.0.0.1",
        0,
        process_request=provider.refuse,
        subprotocols=[Subprotocol("realtime")],
        select_subprotocol=lambda _, offered: Subprotocol("realtime") if offered else None,
    ) as server:
        provider.port = server.socket.getsockname()[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join(10)


@pytest.fixture(scope="module")
def provider() -> Iterator[RealtimeProvider]:
    with running(RealtimeProvider()) as opened:
        yield opened


@pytest.fixture(scope="module")
def front(provider: RealtimeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder: Path = tmp_path_factory.mktemp("realtime")
    base = f"http://127.0.0.1:{provider.port}"
    bases = {"openai": f"{base}/v1", "google-ai-studio": base}
    with open_front(folder, None, token=TOKEN, **{"gateway.base_urls": bases}) as opened:
        opened.make("gw")
        opened.keep_credential("openai", gateway="gw")
        opened.make("guarded", dlp={"enabled": True, "action": "BLOCK", "profiles": ["financial"]})
        opened.make("few", rate_limiting_interval=3600, rate_limiting_limit=1)
        yield opened


def place(front: Front, path: str, gateway: str = "gw") -> str:
    return f"{front.url.replace('http', 'ws')}/gateway/v1/default/{gateway}/{path}"


OURS = {"cf-aig-authorization": f"Bearer {TOKEN}"}


def test_messages_of_both_kinds_pass_both_ways(front: Front, provider: RealtimeProvider) -> None:
    url = place(front, "openai?model=gpt-realtime&x=1")
    with connect(url, additional_headers={**OURS, "OpenAI-Beta": "realtime=v1"}) as socket:
        for message in ("text ü", b"\x00\xff", "y" * 200_000):
            socket.send(message)
            assert socket.recv(timeout=30) == message
    asked = provider.requests[-1]
    assert asked.path == "/v1/realtime?model=gpt-realtime&x=1"
    assert asked.headers["authorization"] == f"Bearer {PROVIDER_SECRET}"
    assert asked.headers["openai-beta"] == "realtime=v1"
    assert not [name for name in asked.headers if name.startswith("cf-")]
    assert TOKEN not in str(asked.headers)


def test_usage_of_every_response_is_recorded(front: Front) -> None:
    headers = {**OURS, "cf-aig-event-id": "usage"}
    with connect(place(front, "openai?model=gpt-4o"), additional_headers=headers) as socket:
        for _ in range(2):
            socket.send("respond")
            assert json.loads(socket.recv(timeout=30))["type"] == "response.delta"
            assert json.loads(socket.recv(timeout=30))["type"] == "response.done"
    record = _record(front, "usage")
    assert (record.model, record.provider, record.status) == ("gpt-4o", "openai", 101)
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (40, 20)
    assert record.usage.cached_tokens == 10
    assert record.cost_usd == pytest.approx((30 * 2.5 + 10 * 1.25 + 20 * 10) / 1e6)
    assert record.outcome == "ok"


def _record(front: Front, event: str) -> Any:
    def found() -> list[Any]:
        return [record for record in front.process.records() if record.event_id == event]

    wait_until(lambda: bool(found()), what=f"the record of {event}")
    return found()[0]


def test_the_providers_close_reaches_the_client(front: Front) -> None:
    with connect(place(front, "openai?model=m"), additional_headers=OURS) as socket:
        socket.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4001


def test_the_clients_close_reaches_the_provider(front: Front, provider: RealtimeProvider) -> None:
    provider.closed.clear()
    with connect(place(front, "openai?model=m"), additional_headers=OURS) as socket:
        socket.send("x")
        socket.recv(timeout=30)
        socket.close(4002)
    wait_until(lambda: provider.closed == [4002], what="the provider to be told")


def test_a_client_that_is_cut_off_ends_the_providers_socket(
    front: Front, provider: RealtimeProvider
) -> None:
    provider.closed.clear()
    with connect(place(front, "openai?model=m"), additional_headers=OURS) as socket:
        socket.send("x")
        socket.recv(timeout=30)
        socket.socket.close()
        wait_until(lambda: len(provider.closed) == 1, what="the provider's socket to end")


def test_a_provider_that_is_cut_off_ends_the_clients_socket(front: Front) -> None:
    with connect(place(front, "openai?model=m"), additional_headers=OURS) as socket:
        socket.send("drop")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_a_provider_that_refuses_is_told_before_the_socket_opens(front: Front) -> None:
    headers = {**OURS, "cf-aig-event-id": "refused"}
    url = place(front, "openai/refuse")
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers):
        pass
    assert refused.value.response.status_code == 502
    assert b"403" in refused.value.response.body
    assert _record(front, "refused").outcome == "error"


def test_a_browsers_subprotocols_carry_both_keys(front: Front, provider: RealtimeProvider) -> None:
    offered = [
        Subprotocol(each)
        for each in ("realtime", "openai-insecure-api-key.sk-mine", f"cf-aig-authorization.{TOKEN}")
    ]
    with connect(place(front, "openai?model=m"), subprotocols=offered) as socket:
        assert socket.subprotocol == "realtime"
    asked: Headers = provider.requests[-1].headers
    assert asked["authorization"] == "Bearer sk-mine"
    assert asked["sec-websocket-protocol"] == "realtime"


def test_googles_live_api_is_found_by_its_short_name(
    front: Front, provider: RealtimeProvider
) -> None:
    offered = [Subprotocol(f"cf-aig-authorization.{TOKEN}")]
    with connect(place(front, "google?api_key=AIza-mine"), subprotocols=offered) as socket:
        socket.send("setup")
        assert socket.recv(timeout=30) == "setup"
    path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    assert provider.requests[-1].path == f"{path}?key=AIza-mine"


@pytest.mark.parametrize(
    ("path", "gateway", "status"),
    [
        ("nobody?model=m", "gw", 404),
        ("groq?model=m", "gw", 400),
        ("openai?model=m", "guarded", 403),
        ("openai?model=m", "none", 400),
    ],
)
def test_what_cannot_be_is_refused(front: Front, path: str, gateway: str, status: int) -> None:
    url = place(front, path, gateway)
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=OURS):
        pass
    assert refused.value.response.status_code == status


def test_a_key_may_open_only_its_models(front: Front) -> None:
    _, secret = front.process.make_key(allowed_models=("openai/gpt-realtime",))
    ours = {"cf-aig-authorization": f"Bearer {secret}"}
    with connect(place(front, "openai?model=gpt-realtime"), additional_headers=ours):
        pass
    url = place(front, "openai?model=other")
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=ours):
        pass
    assert refused.value.response.status_code == 403


def test_a_rate_limit_counts_connections(front: Front) -> None:
    url = place(front, "openai?model=m", "few")
    headers = {**OURS, "authorization": "Bearer sk-mine"}
    with connect(url, additional_headers=headers):
        pass
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers):
        pass
    assert refused.value.response.status_code == 429
    assert int(refused.value.response.headers["retry-after"]) > 0


async def test_names_that_accounts_chose_lead_into_no_private_network(
    provider: RealtimeProvider,
) -> None:
    def asked(*, is_public: bool) -> UpstreamRequest:
        origin = Origin(scheme="http", host="localhost", port=provider.port, is_public=is_public)
        return UpstreamRequest(
            origin=origin, method=b"GET", target=b"/v1/realtime", headers=[], body=b""
        )

    sockets = AiohttpSockets(HttpConfig())
    with pytest.raises(UpstreamError, match="private addresses"):
        await sockets.connect(asked(is_public=True), (), Timeouts())
    socket = await sockets.connect(asked(is_public=False), (), Timeouts())
    await socket.close()


async def test_a_provider_that_never_answers_is_given_up(provider: RealtimeProvider) -> None:
    origin = Origin(scheme="http", host="127.0.0.1", port=provider.port)
    request = UpstreamRequest(origin=origin, method=b"GET", target=b"/silent", headers=[], body=b"")
    timeouts = Timeouts(connect_s=0.05, first_byte_s=0.05)
    try:
        with pytest.raises(UpstreamError) as given_up:
            await AiohttpSockets(HttpConfig()).connect(request, (), timeouts)
    finally:
        provider.release.set()
    assert given_up.value.kind == "timeout"
