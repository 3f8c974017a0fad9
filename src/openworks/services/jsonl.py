"""Looks at JSON Lines while they come: what is taken as `.jsonl` is one."""

from __future__ import annotations

from typing import Final

import orjson

from openworks.core.errors import InvalidRequestError

_MAX_LINE_BYTES: Final = 32 << 20
_SHOWN: Final = 60


class JsonLines:
    """Checks that every line is a JSON object in UTF-8; empty lines are passed over."""

    def __init__(self, param: str) -> None:
        """Begin at the first line.

        Args:
            param: The field that is at fault if one is wrong.
        """
        self._param = param
        self._rest = b""
        self._line = 0
        self._objects = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes, wherever they are cut.

        Raises:
            InvalidRequestError: A line is not what it must be; names it.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._check(line)
        if len(self._rest) > _MAX_LINE_BYTES:
            raise self._wrong(f"line {self._line + 1} is over {_MAX_LINE_BYTES} bytes")

    def end(self) -> None:
        """Take the last line.

        Raises:
            InvalidRequestError: It is not what it must be, or there was none.
        """
        self._check(self._rest)
        if not self._objects:
            raise self._wrong("it has no line")

    def _check(self, line: bytes) -> None:
        self._line += 1
        if not line.strip():
            return
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            raise self._wrong(f"line {self._line} is not valid JSON ({exc})") from exc
        if not isinstance(value, dict):
            shown = line[:_SHOWN].decode(errors="replace")
            raise self._wrong(f"line {self._line} is not a JSON object, it begins with {shown!r}")
        self._objects += 1

    def _wrong(self, what: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"The file must be JSON Lines, one object on each line: {what}.",
            code="invalid_jsonl",
            param=self._param,
        )
