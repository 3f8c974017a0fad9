"""Writes batches of calls: bodies into a pack, then rows, sums and counts in one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from openworks.core.errors import StorageError
from openworks.ports.logbook import Entry
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.logbook.database import (
    DatabaseAwayError,
    LogDatabase,
    UnacceptableError,
    transaction,
)
from openworks.storage.logbook.packs import BodyPlace, Pack
from openworks.storage.logbook.retention import GatewayKey, delete_oldest
from openworks.storage.logbook.rows import ROW_COLUMNS, row
from openworks.storage.logbook.shapes import ROLLUP_KEY, ROLLUP_VALUES, SUMS, SUMS_KEY
from openworks.storage.logbook.totals import ModelNames, Totals

Numbered: TypeAlias = tuple[str, int]
"""The id of a writer, and the number of one of its batches."""

_MAX_AT_LIMIT: Final = 1000


def _insert(table: str, columns: Sequence[str]) -> str:
    values = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"


def _add(table: str, key: Sequence[str], values: Sequence[str]) -> str:
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in values)
    insert = _insert(table, (*key, *values))
    return f"{insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sums}"


_INSERT_ROW = f"{_insert('call_records', ROW_COLUMNS)} ON CONFLICT DO NOTHING"
ADD_ROLLUP = _add("call_rollups", ROLLUP_KEY, ROLLUP_VALUES)
ADD_SUMS = _add("call_sums", SUMS_KEY, SUMS)
_ADD_COUNT = _add("log_counts", ("account_id", "gateway_id"), ("num_rows",))
_ADD_PACK = _add("log_packs", ("id",), ("num_rows",))
_NOTE_WRITER = (
    f"{_insert('log_writers', ('id', 'number', 'seen_at_s'))} "
    "ON CONFLICT (id) DO UPDATE SET number = excluded.number, seen_at_s = excluded.seen_at_s"
)
_LAST_NUMBER = "SELECT number FROM log_writers WHERE id = ?"
_COUNT = "SELECT num_rows FROM log_counts WHERE account_id = ? AND gateway_id = ?"


class LogWriter:
    """Writes each batch once, however often it is sent."""

    def __init__(self, database: LogDatabase, blobs: ObjectBlobs) -> None:
        self._database = database
        self._blobs = blobs
        self._names = ModelNames()
        self._limits: dict[GatewayKey, int] = {}

    @property
    def limits(self) -> dict[GatewayKey, int]:
        """The gateways that may still have more rows than their limit; slices are due."""
        return self._limits

    def write(self, batch: Numbered, entries: Sequence[Entry]) -> int:
        """Write a batch; return how many of its calls no database takes.

        Raises:
            DatabaseAwayError: Not now; nothing was written, and the same batch may be sent again.
        """
        try:
            self._write(batch, entries)
        except UnacceptableError:
            good = [entry for entry in entries if self._is_acceptable(entry)]
            try:
                self._write(batch, good)
            except UnacceptableError:  # each alone is fine, so it is their sum
                good = []
                self._write(batch, good)
            return len(entries) - len(good)
        return 0

    def _write(self, batch: Numbered, entries: Sequence[Entry]) -> None:
        found = self._database.query(_LAST_NUMBER, batch[:1])
        if found and batch[1] <= found[0][0]:
            return
        entries = self._new(entries)
        kept = self._within_limits([entry for entry in entries if entry.collect])
        pack_id, places = self._pack(batch, kept)
        with transaction(self._database):
            self._insert(kept, pack_id, places)
            self._add_up(entries)
            note = (*batch, entries[0].record.created_at_s if entries else 0.0)
            self._database.execute_many(_NOTE_WRITER, [note])
            self._delete_oldest(kept)

    def _new(self, entries: Sequence[Entry]) -> list[Entry]:
        """Leave out what is there already, and the second of two with one id."""
        if not entries:
            return []
        by_id = {entry.record.id: entry for entry in reversed(entries)}
        known = self._database.known_ids(list(by_id))
        return [
            entry
            for entry in entries
            if by_id[entry.record.id] is entry and entry.record.id not in known
        ]

    def _within_limits(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what has no room at a gateway that stops at its limit."""
        if not any(entry.stops_at_limit and entry.limit is not None for entry in entries):
            return entries
        rows: dict[GatewayKey, int] = {}
        kept = []
        for entry in entries:
            if entry.stops_at_limit and entry.limit is not None:
                gateway = (entry.record.account_id, entry.record.gateway_id)
                if gateway not in rows:
                    found = self._database.query(_COUNT, gateway)
                    rows[gateway] = found[0][0] if found else 0
                if rows[gateway] >= entry.limit:
                    continue
                rows[gateway] += 1
            kept.append(entry)
        return kept

    def _pack(
        self, batch: Numbered, entries: Sequence[Entry]
    ) -> tuple[str | None, list[BodyPlace | None]]:
        """Put the bodies into a blob first: a row never points at nothing.

        The name follows from the batch, so that one that is sent again leaves no second blob.
        """
        pack = Pack()
        has_bodies = False
        for entry in entries:
            if entry.bodies is not None:
                pack.add(entry.bodies.request, entry.bodies.response)
                has_bodies = True
        if not has_bodies:
            return None, [None] * len(entries)
        data, places = pack.close()
        day = time.strftime("%Y-%m-%d", time.gmtime(entries[0].record.created_at_s))
        pack_id = f"logs/{day}/{batch[0]}-{batch[1]}.z"
        try:
            self._blobs.put_now(pack_id, data)
        except StorageError as error:
            raise DatabaseAwayError(error.message) from error
        each = iter(places)
        return pack_id, [None if entry.bodies is None else next(each) for entry in entries]

    def _insert(
        self, entries: Sequence[Entry], pack_id: str | None, places: Iterable[BodyPlace | None]
    ) -> None:
        if not entries:
            return
        rows = (row(entry, pack_id, place) for entry, place in zip(entries, places, strict=True))
        self._database.execute_many(_INSERT_ROW, rows)
        counts: dict[GatewayKey, int] = {}
        for entry in entries:
            gateway = (entry.record.account_id, entry.record.gateway_id)
            counts[gateway] = counts.get(gateway, 0) + 1
        self._database.execute_many(
            _ADD_COUNT, [(*gateway, count) for gateway, count in counts.items()]
        )
        if pack_id is not None:
            with_bodies = sum(entry.bodies is not None for entry in entries)
            self._database.execute_many(_ADD_PACK, [(pack_id, with_bodies)])

    def _add_up(self, entries: Iterable[Entry]) -> None:
        totals = Totals(self._names)
        for entry in entries:
            totals.add(entry.record)
        self._database.execute_many(ADD_ROLLUP, totals.rollup_rows())
        self._database.execute_many(ADD_SUMS, totals.sum_rows())

    def _delete_oldest(self, entries: Iterable[Entry]) -> None:
        limits: dict[GatewayKey, int] = {}
        for entry in entries:
            if entry.limit is not None and not entry.stops_at_limit:
                limits[entry.record.account_id, entry.record.gateway_id] = entry.limit
        for gateway, limit in limits.items():
            if delete_oldest(self._database, gateway, limit):
                self._limits.pop(gateway, None)
            elif len(self._limits) < _MAX_AT_LIMIT:
                self._limits[gateway] = limit

    def _is_acceptable(self, entry: Entry) -> bool:
        """Whether the database takes one call alone; tried, and taken back."""
        self._database.begin()
        try:
            self._insert([entry], None, [None])
            self._add_up([entry])
        except UnacceptableError:
            return False
        else:
            return True
        finally:
            self._database.rollback()
