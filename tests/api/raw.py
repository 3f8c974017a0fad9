"""HTTP without the SDK: for what no client would send, and for what it would hide."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from tests.api.shapes import ErrorBody, strictly
from tests.server import ServerProcess

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """By their lower-case names."""
    body: bytes

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The error, after a check that it has OpenAI's shape."""
        assert self.headers["content-type"] == "application/json", self.body
        assert self.headers["x-request-id"].startswith("req_")
        strictly(ErrorBody, self.body)
        found: dict[str, Any] = self.json()["error"]
        return found

    def events(self) -> list[Any]:
        """The decoded events of a stream, without its `[DONE]`, or the one error that it became."""
        lines = [line.removeprefix(b"data: ") for line in self.body.split(b"\n\n") if line]
        return [json.loads(line) for line in lines if line != b"[DONE]"]


def ask(
    server: ServerProcess,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send one request; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = HTTPConnection(*server.address, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, data, dict(headers or {}))
        response = connection.getresponse()
        return Reply(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    finally:
        connection.close()


def post(server: ServerProcess, path: str, body: object) -> Reply:
    """Send one POST."""
    return ask(server, "POST", path, body)


def bearer(secret: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {secret}"}


@contextmanager
def connected(server: ServerProcess) -> Iterator[socket.socket]:
    """Open a bare connection."""
    with socket.create_connection(server.address, timeout=TIMEOUT_S) as opened:
        yield opened


def request_bytes(path: str, body: object) -> bytes:
    """A POST as it goes over the wire."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def reset(connection: socket.socket) -> None:
    """Hang up without a farewell, as a client does that crashes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_to_end(connection: socket.socket) -> bytes:
    """Everything that comes until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
