"""A client over bare sockets: it sees how an answer is framed, and can leave at any moment."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from benchmarks.gateway.request import Address, request_bytes

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; status 0 for nothing at all."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False
    """Whether the framing says that nothing is missing."""


def send(
    address: Address, body: bytes, *, key: str | None = None, timeout_s: float = 25
) -> socket.socket:
    """Send a request on a connection of its own."""
    connection = socket.create_connection((address.host, address.port), 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(timeout_s)
    # Who refuses a body closes early; the answer may still be there to read.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(request_bytes(address, body, key=key, closes=True))
    return connection


def receive(connection: socket.socket) -> Answer:
    """Read an answer to its end and close the connection."""
    data = b""
    with connection:
        try:
            while chunk := connection.recv(65536):
                data += chunk
                if _parse(data).is_whole:
                    break
        except (TimeoutError, ConnectionResetError):
            return _parse(data)
    answer = _parse(data)
    if answer.status and not {"content-length", "transfer-encoding"} & answer.headers.keys():
        return Answer(status=answer.status, headers=answer.headers, body=answer.body, is_whole=True)
    return answer


def _parse(data: bytes) -> Answer:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return Answer()
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if "content-length" in headers:
        is_whole = len(body) >= int(headers["content-length"])
    else:
        is_whole = "transfer-encoding" in headers and body.endswith(_LAST_CHUNK)
    return Answer(status=int(first.split()[1]), headers=headers, body=body, is_whole=is_whole)


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """Read until something has come, or the connection ends."""
    data = b""
    while mark not in data and (chunk := connection.recv(65536)):
        data += chunk
    return data


def ask(address: Address, body: bytes, *, key: str | None = None) -> Answer:
    """Send a request and read its answer."""
    return receive(send(address, body, key=key))


def wait_until_ready(address: Address, body: bytes, *, patience_s: float = 60) -> None:
    """Return when a request is answered well.

    Raises:
        RuntimeError: None was.
    """
    ends_s = time.monotonic() + patience_s
    answer = Answer()
    while time.monotonic() < ends_s:
        try:
            answer = ask(address, body)
        except OSError:
            answer = Answer()
        if answer.status == 200 and answer.is_whole:
            return
        time.sleep(0.5)
    raise RuntimeError(f"It never answered well; last {answer.status} {answer.body[:500]!r}.")
