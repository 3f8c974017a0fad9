"""AWS's binary event streams, as Bedrock answers: frames with a length, headers and a payload.

Format: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html.
"""

from __future__ import annotations

import base64
import binascii
import struct

import msgspec

from openworks.gateway.providers.sse import StreamReader

MAX_FRAME_BYTES = 24 << 20
"""AWS allows 24 MiB; a stream that claims more is not read any further."""
_PRELUDE = struct.Struct(">III")
_LENGTH = struct.Struct(">H")
_STRING = 7
_EVENT_TYPE = b"\x0b:event-type\x07"
_CONTENT_TYPES = frozenset({b"contentBlockDelta"})


class _Chunk(msgspec.Struct, gc=False):
    encoded: bytes = msgspec.field(name="bytes")  # msgspec decodes base64


_CHUNK = msgspec.json.Decoder(_Chunk)


class EventStreamReader(StreamReader):
    """Looks at the frames of `converse-stream` and `invoke-with-response-stream`."""

    __slots__ = ("_frames", "_is_lost", "_needed")

    def __init__(self) -> None:
        super().__init__("bedrock")
        self._frames = bytearray()
        self._needed = _PRELUDE.size
        self._is_lost = False

    @property
    def unfinished_bytes(self) -> int:
        return len(self._frames)

    def feed(self, chunk: bytes) -> None:
        if self._is_lost:
            return
        data = chunk
        if self._frames:
            self._frames += chunk
            if len(self._frames) < self._needed:
                return
            data = bytes(self._frames)
        at = 0
        self._needed = _PRELUDE.size
        while len(data) - at >= _PRELUDE.size:
            total, headers_len, _ = _PRELUDE.unpack_from(data, at)
            if not 16 + headers_len <= total <= MAX_FRAME_BYTES:
                self._is_lost = True
                self._frames.clear()
                return
            if len(data) - at < total:
                self._needed = total
                break
            head_end = at + _PRELUDE.size + headers_len
            self._read_frame(data[at + _PRELUDE.size : head_end], data[head_end : at + total - 4])
            at += total
        self._frames[:] = data[at:]

    def error_event(self, message: str, code: str) -> bytes:
        """An exception frame; nothing within a frame, where a client could not find the next."""
        if self._frames or self._is_lost:
            return b""
        headers = {
            ":message-type": "exception",
            ":exception-type": "modelStreamErrorException",
            ":content-type": "application/json",
        }
        return frame(headers, msgspec.json.encode({"message": message, "code": code}))

    def _read_frame(self, headers: bytes, payload: bytes) -> None:
        event_type = _event_type(headers)
        if event_type == b"chunk":
            self._read_chunk(payload)
        elif event_type in _CONTENT_TYPES:
            for key in self._content:
                if key in payload:
                    self._count(payload, key)
                    break
        elif event_type == b"messageStop":
            self.is_finished = True
        elif event_type == b"metadata":
            self._read_json(payload)

    def _read_chunk(self, payload: bytes) -> None:
        """An event in the model's own format; only its text and Bedrock's counts are looked for."""
        try:
            inner = _CHUNK.decode(payload).encoded
        except (msgspec.DecodeError, binascii.Error):
            return
        for key in (b'"text":', b'"partial_json":', b'"generation":', b'"outputText":'):
            if key in inner:
                self._count(inner, key)
                break
        if b'"usage"' in inner or b'"amazon-bedrock-invocationMetrics"' in inner:
            self._read_json(inner)
            self.is_finished = self.is_finished or b"invocationMetrics" in inner


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Encode one frame."""
    head = b"".join(
        bytes([len(name)])
        + name.encode()
        + bytes([_STRING])
        + _LENGTH.pack(len(value))
        + value.encode()
        for name, value in headers.items()
    )
    start = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    start += struct.pack(">I", binascii.crc32(start))
    message = start + head + payload
    return message + struct.pack(">I", binascii.crc32(message))


def chunk_frame(inner: bytes) -> bytes:
    """Encode one frame of `invoke-with-response-stream`."""
    body = msgspec.json.encode({"bytes": base64.b64encode(inner).decode()})
    return frame({":event-type": "chunk", ":message-type": "event"}, body)


def _event_type(headers: bytes) -> bytes:
    at = headers.find(_EVENT_TYPE)
    if at < 0:
        return b""
    at += len(_EVENT_TYPE)
    if len(headers) - at < _LENGTH.size:
        return b""
    (length,) = _LENGTH.unpack_from(headers, at)
    return headers[at + 2 : at + 2 + length]
