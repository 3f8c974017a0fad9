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

from openworks.core.errors import InternalError, InvalidRequestError
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

    def count_tokens(self, body: JsonObject) -> int:
        """Return how many tokens the prompt of a chat body has, pictures included.

        Raises:
            InvalidRequestError: llama.cpp refuses the conversation.
        """
        status, answer = self._ask("POST", "/v1/chat/completions/input_tokens", body)
        if status != http.client.OK:
            error = cast("JsonObject", answer["error"])
            raise InvalidRequestError(f"The engine refused the request: {error['message']}")
        return cast("int", answer["input_tokens"])

    def props(self) -> JsonObject:
        """Return what llama.cpp says of the loaded model, such as `chat_template_caps`."""
        return self._call("GET", "/props", None)

    def _call(self, method: str, path: str, body: JsonObject | None) -> JsonObject:
        status, answer = self._ask(method, path, body)
        if status != http.client.OK:
            raise InternalError(f"llama.cpp answered {path} with status {status}.")
        return answer

    def _ask(self, method: str, path: str, body: JsonObject | None) -> tuple[int, JsonObject]:
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
        return response.status, cast("JsonObject", orjson.loads(answer))
