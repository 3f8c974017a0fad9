"""Logs as a Parquet file, of which one row group at a time is in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pyarrow as pa  # type: ignore[import-untyped]  # ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]

GROUP_ROWS: Final = 10_000
GROUP_BYTES: Final = 16 << 20
"""A row group is complete with so many rows, or bytes."""

_TEXT, _LONG, _DOUBLE, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_SCHEMA: Final = pa.schema(
    [
        ("id", _TEXT),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("provider", _TEXT),
        ("model", _TEXT),
        ("path", _TEXT),
        ("success", _FLAG),
        ("status_code", _LONG),
        ("cached", _FLAG),
        ("duration", _LONG),
        ("tokens_in", _LONG),
        ("tokens_out", _LONG),
        ("tokens_cached", _LONG),
        ("tokens_reasoning", _LONG),
        ("cost", _DOUBLE),
        ("custom_cost", _FLAG),
        ("metadata", _TEXT),
        ("step", _LONG),
        ("attempts", _LONG),
        ("stream", _FLAG),
        ("first_token_ms", _DOUBLE),
        ("outcome", _TEXT),
        ("error_code", _TEXT),
        ("feedback", _LONG),
        ("score", _DOUBLE),
        ("event_id", _TEXT),
        ("key_id", _TEXT),
        ("deployment", _TEXT),
        ("routed_by", _TEXT),
        ("estimated", _FLAG),
        ("guard_findings", pa.list_(_TEXT)),
        ("request_content_type", _TEXT),
        ("response_content_type", _TEXT),
        ("request_size", _LONG),
        ("response_size", _LONG),
        ("request_body", pa.binary()),
        ("response_body", pa.binary()),
    ]
)


class _Pieces:
    """A file that is written and taken away piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        return

    def close(self) -> None:
        return

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


class ParquetLogs:
    """`ports.tables.TableWriter` for rows as `services.gateway_logs.log_row` makes them."""

    def __init__(self) -> None:
        self._pieces = _Pieces()
        self._batches: list[Any] = []
        self._num_rows = 0
        self._num_bytes = 0
        self._writer: Any = pq.ParquetWriter(
            pa.PythonFile(self._pieces, mode="w"), _SCHEMA, compression="zstd"
        )

    def write(self, rows: Sequence[Mapping[str, object]]) -> bytes:
        columns = [
            pa.array([_value(row, field.name) for row in rows], type=field.type)
            for field in _SCHEMA
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
        self._batches.append(batch)
        self._num_rows += batch.num_rows
        self._num_bytes += batch.nbytes
        if self._num_rows >= GROUP_ROWS or self._num_bytes >= GROUP_BYTES:
            self._end_group()
        return self._pieces.take()

    def finish(self) -> bytes:
        self._end_group()
        self._writer.close()
        return self._pieces.take()

    def _end_group(self) -> None:
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches, schema=_SCHEMA))
        self._batches.clear()
        self._num_rows = self._num_bytes = 0


def _value(row: Mapping[str, object], name: str) -> object:
    value = row.get(name)
    if name == "created_at":
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    if name == "metadata":
        return orjson.dumps(value).decode() if value else None
    return value
