"""The lines of a batch's input: read a piece at a time, and looked at before any is answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol, cast

import orjson

from openworks.core.errors import AppError
from openworks.core.json import JsonObject
from openworks.ports.files import File

_PIECE_BYTES: Final = 1 << 20
_MAX_ERRORS: Final = 100
"""How many faults of one file are told; nobody reads fifty thousand."""
_SHOWN: Final = 80


class Readable(Protocol):
    """Where the content of files is read."""

    def read(
        self, file: File, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a part of the content piece by piece."""
        ...


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line that is not empty, with its number in the file, from 1 on."""

    number: int
    data: bytes


async def read_lines(files: Readable, file: File) -> AsyncGenerator[list[RawLine], None]:
    """Yield the lines, as many at a time as a piece of the file completes."""
    rest, number = b"", 0
    for start in range(0, file.size_bytes, _PIECE_BYTES):
        length = min(_PIECE_BYTES, file.size_bytes - start)
        async with aclosing(files.read(file, start=start, length=length)) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                yield [
                    RawLine(number + at, line) for at, line in enumerate(lines, 1) if line.strip()
                ]
                number += len(lines)
    if rest.strip():
        yield [RawLine(number + 1, rest)]


class LineCheck:
    """Looks at all lines together: each is a request, they are told apart, and name one model."""

    def __init__(self, endpoint: str, *, max_lines: int) -> None:
        """Begin with the first line.

        Args:
            endpoint: The path that every line must name.
            max_lines: How many requests a batch may have.
        """
        self.errors: list[JsonObject] = []
        """What is wrong, as batches tell it."""
        self.num_lines = 0
        self.model: str | None = None
        """What the first request names."""
        self.model_line = 0
        """Where it does."""
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._custom_ids: set[bytes] = set()

    def feed(self, lines: Sequence[RawLine]) -> bool:
        """Look at the next lines; False when there is no use in further ones."""
        for line in lines:
            self.num_lines += 1
            if self.num_lines > self._max_lines:
                self.errors = [
                    fault("too_many_requests", f"A batch has at most {self._max_lines} requests.")
                ]
                return False
            try:
                request = orjson.loads(line.data)
            except orjson.JSONDecodeError as error:
                self._refuse(line, "invalid_json_line", f"This line is not JSON ({error}).", None)
            else:
                self._look_at(line, request)
            if len(self.errors) >= _MAX_ERRORS:
                return False
        return True

    def refuse_model(self, error: AppError) -> None:
        """Note that the model cannot answer."""
        self.errors.append(
            fault(error.code or error.type, error.message, param="body.model", line=self.model_line)
        )

    def _look_at(self, line: RawLine, request: object) -> None:
        if not isinstance(request, dict):
            self._refuse(line, "invalid_json_line", "This line is not a JSON object.", None)
            return
        self._check_custom_id(line, request.get("custom_id"))
        for name, expected in (("method", "POST"), ("url", self._endpoint)):
            found = request.get(name)
            if found is None:
                self._miss(line, name)
            elif found != expected:
                what = f"'{name}' must be {expected!r}, got {str(found)[:_SHOWN]!r}."
                self._refuse(line, f"invalid_{name}", what, name)
        body = request.get("body")
        if body is None:
            self._miss(line, "body")
        elif not isinstance(body, dict):
            self._refuse(line, "invalid_type", "'body' must be an object.", "body")
        else:
            self._check_model(line, body.get("model"))

    def _check_custom_id(self, line: RawLine, custom_id: object) -> None:
        if custom_id is None or custom_id == "":
            self._miss(line, "custom_id")
        elif not isinstance(custom_id, str):
            self._refuse(line, "invalid_type", "'custom_id' must be a string.", "custom_id")
        else:
            digest = blake2b(custom_id.encode(), digest_size=16).digest()
            if digest in self._custom_ids:
                what = f"The custom_id {custom_id[:_SHOWN]!r} is that of an earlier line."
                self._refuse(line, "duplicate_custom_id", what, "custom_id")
            self._custom_ids.add(digest)

    def _check_model(self, line: RawLine, model: object) -> None:
        if model is None or model == "":
            self._miss(line, "body.model")
        elif not isinstance(model, str):
            self._refuse(line, "invalid_type", "'body.model' must be a string.", "body.model")
        elif self.model is None:
            self.model, self.model_line = model, line.number
        elif model != self.model:
            what = (
                f"All lines of a batch name one model: line {self.model_line} names "
                f"{self.model[:_SHOWN]!r}, this one {model[:_SHOWN]!r}."
            )
            self._refuse(line, "model_mismatch", what, "body.model")

    def _miss(self, line: RawLine, name: str) -> None:
        what = f"Missing required parameter: '{name}'."
        self._refuse(line, "missing_required_parameter", what, name)

    def _refuse(self, line: RawLine, code: str, message: str, param: str | None) -> None:
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append(fault(code, message, param=param, line=line.number))


def fault(
    code: str, message: str, *, param: str | None = None, line: int | None = None
) -> JsonObject:
    """Describe why a batch fails, in the shape in which it is told."""
    return {"code": code, "message": message, "param": param, "line": line}


def custom_id_of(line: RawLine) -> str:
    """Return what tells a request, which was looked at, from the others."""
    return cast("str", orjson.loads(line.data)["custom_id"])
