"""llama.cpp's own HTTP port, on a private Unix socket: for what has no in-process call.

The wheel opens the port whether it is wanted or not; on a socket in a folder that only this user
can enter, it is reachable by nobody else and serves us for tokens and templates.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import cast

import orjson

from openworks.core.errors import InternalError
from openworks.core.json import JsonObject

_TIMEOUT_S = 30.0


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


class Control:
    """Blocking calls to one llama.cpp server; each is short and opens its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def detokenize(self, tokens: list[int]) -> str:
        """Return the text of token ids."""
        return str(self._call("POST", "/detokenize", {"tokens": list(tokens)})["content"])

    def props(self) -> JsonObject:
        """Return what llama.cpp says of the loaded model, such as `chat_template_caps`."""
        return self._call("GET", "/props", None)

    def _call(self, method: str, path: str, body: JsonObject | None) -> JsonObject:
        connection = _UnixConnection(self._path)
        try:
            connection.request(
                method,
                path,
                None if body is None else orjson.dumps(body),
                {"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise InternalError(f"llama.cpp answered {path} with status {response.status}.")
        return cast("JsonObject", orjson.loads(answer))
