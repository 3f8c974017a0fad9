"""What the server and its writer process say to each other, over a pair of pipes."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from openworks.ports.logbook import Entry, Report
from openworks.storage.blobs.s3 import S3Config

BATCH_HEADER: Final = struct.Struct("<QI")
"""A batch's number and length, before its bytes."""
REPORT_HEADER: Final = struct.Struct("<I")
"""A report's length, before its bytes."""


class Start(msgspec.Struct, frozen=True):
    """The first line that the process reads; not on its command line, as it may hold a password."""

    writer: str
    """Sixteen characters that no other server has."""
    dialect: str
    address: str
    blobs: str
    s3: S3Config
    spool: str
    spool_max_bytes: int
    max_age_s: float | None


_encoder = msgspec.msgpack.Encoder()
_batch = msgspec.msgpack.Decoder(list[Entry])
_raw_batch = msgspec.msgpack.Decoder(list[msgspec.Raw])
_entry = msgspec.msgpack.Decoder(Entry)
_report = msgspec.msgpack.Decoder(Report)
decode_start = msgspec.json.Decoder(Start).decode


def encode_start(start: Start) -> bytes:
    """Return the first line."""
    return msgspec.json.encode(start) + b"\n"


def encode_report(report: Report) -> bytes:
    """Return a report with its header."""
    data = _encoder.encode(report)
    return REPORT_HEADER.pack(len(data)) + data


def decode_report(data: bytes) -> Report:
    """Read a report, without its header."""
    return _report.decode(data)


def encode_batch(entries: list[Entry]) -> bytes:
    """Return a batch, without its header."""
    return _encoder.encode(entries)


def decode_batch(data: bytes | bytearray) -> tuple[list[Entry], int]:
    """Return the entries of a batch, and how many could not be read."""
    try:
        return _batch.decode(data), 0
    except msgspec.ValidationError:  # a field of one has another type than we promise
        entries, lost = [], 0
    except msgspec.DecodeError:
        return [], 1
    for raw in _raw_batch.decode(data):
        try:
            entries.append(_entry.decode(raw))
        except msgspec.ValidationError:
            lost += 1
    return entries, lost
