"""Logs as files, made while they are sent: JSON Lines and Parquet."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import orjson

from openworks.core.errors import UnsupportedParameterError
from openworks.core.json import JsonObject
from openworks.ports.calls import CallBodies
from openworks.ports.logs import LogQuery, LogStore, StoredCall
from openworks.ports.tables import OpenTable
from openworks.services.gateway_logs import log_row

_BATCH: Final = 100
"""So many rows at once hold up the calls of this moment for a millisecond or two."""
_PIECE_BYTES: Final = 1 << 16
_WRITE_BYTES: Final = 4 << 20


class LogExports:
    """Streams what a query finds, oldest first, however much it is."""

    def __init__(self, store: LogStore, open_table: OpenTable | None) -> None:
        """Export nothing yet.

        Args:
            store: The logs.
            open_table: Begins a Parquet file; None where the extra `parquet` is not installed.
        """
        self._store = store
        self._open_table = open_table
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="log-exports")

    async def close(self) -> None:
        """Let the thread go."""
        await asyncio.to_thread(self._executor.shutdown)

    async def lines(self, query: LogQuery, *, with_bodies: bool) -> AsyncGenerator[bytes, None]:
        """Yield one JSON object a line, some lines at a time."""
        piece = bytearray()
        async for batch in self._store.scan(query, batch=_BATCH):
            for item in batch:
                row = log_row(item)
                if with_bodies:
                    row |= _as_json(await self._bodies(item))
                piece += orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
                if len(piece) >= _PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
        if piece:
            yield bytes(piece)

    def check_parquet(self) -> None:
        """Return if Parquet files can be made.

        Raises:
            UnsupportedParameterError: The library for them is not installed.
        """
        if self._open_table is None:
            raise UnsupportedParameterError(
                "format 'parquet' needs the extra of that name on the server: "
                "pip install 'openworks[parquet]'. 'jsonl' needs nothing.",
                param="format",
            )

    async def parquet(self, query: LogQuery, *, with_bodies: bool) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of a Parquet file; `check_parquet` comes before."""
        assert self._open_table is not None
        loop = asyncio.get_running_loop()
        table = await loop.run_in_executor(self._executor, self._open_table)
        async for batch in self._store.scan(query, batch=_BATCH):
            rows: list[dict[str, object]] = []
            size = 0
            for item in batch:
                row: dict[str, object] = {**log_row(item)}
                if with_bodies and (bodies := await self._bodies(item)) is not None:
                    row |= {"request_body": bodies.request, "response_body": bodies.response}
                    size += len(bodies.request) + len(bodies.response)
                rows.append(row)
                if item is batch[-1] or size >= _WRITE_BYTES:
                    if piece := await loop.run_in_executor(self._executor, table.write, rows):
                        yield piece
                    rows, size = [], 0
        yield await loop.run_in_executor(self._executor, table.finish)

    async def _bodies(self, item: StoredCall) -> CallBodies | None:
        if item.bodies is None:
            return None
        call = item.call
        return await self._store.get_bodies(call.account_id, call.gateway_id, call.id)


def _as_json(bodies: CallBodies | None) -> JsonObject:
    if bodies is None:
        return {"request_body": None, "response_body": None}
    return {
        **text_or_base64("request_body", bodies.request),
        **text_or_base64("response_body", bodies.response),
    }


def text_or_base64(name: str, data: bytes) -> JsonObject:
    """Write bytes under `name` as text, or under `name_base64` where they are none."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}
