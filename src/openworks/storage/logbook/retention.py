"""Deletes what gateways keep no longer, a slice at a time, so that nobody waits for long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from openworks.core.errors import StorageError
from openworks.storage.blobs.store import ObjectBlobs
from openworks.storage.logbook.database import LogDatabase, transaction
from openworks.storage.logbook.shapes import FAMILIES, HOUR_S, MINUTE_S, MINUTES_KEPT_S

_T = TypeVar("_T")

GatewayKey: TypeAlias = tuple[str, str]
"""Account and gateway."""

_SLICE: Final = 2000
_BLOB_SLICE: Final = 50
_WRITERS_KEPT_S: Final = 30 * 86_400.0

_COUNT = "SELECT num_rows FROM log_counts WHERE account_id = ? AND gateway_id = ?"
_OLDEST = (
    "SELECT id, pack_id, account_id, gateway_id FROM call_records "
    "WHERE account_id = ? AND gateway_id = ? ORDER BY created_at_s LIMIT ?"
)
_AGED = (
    "SELECT id, pack_id, account_id, gateway_id FROM call_records "
    "WHERE created_at_s < ? ORDER BY created_at_s LIMIT ?"
)
_DELETE_ROW = "DELETE FROM call_records WHERE id = ?"
_COUNT_DOWN = (
    "UPDATE log_counts SET num_rows = num_rows - ? WHERE account_id = ? AND gateway_id = ?"
)
_UNPACK = "UPDATE log_packs SET num_rows = num_rows - ? WHERE id = ?"
_UNUSED_PACKS = "SELECT id FROM log_packs WHERE num_rows <= 0 LIMIT ?"
_DELETE_PACK = "DELETE FROM log_packs WHERE id = ?"


def delete_oldest(database: LogDatabase, gateway: GatewayKey, limit: int) -> bool:
    """Delete a slice of what is over the limit, in the open transaction; True when it is all."""
    found = database.query(_COUNT, gateway)
    over = found[0][0] - limit if found else 0
    if over > 0:
        _delete(database, database.query(_OLDEST, (*gateway, min(over, _SLICE))))
    return bool(over <= _SLICE)


class Caretaker:
    """What is done between batches: retention by age, blobs without rows, sums by the minute."""

    def __init__(
        self, database: LogDatabase, blobs: ObjectBlobs, *, max_age_s: float | None
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._max_age_s = max_age_s
        self._pruned_at_s = 0.0

    def work(self, now_s: float, limits: dict[GatewayKey, int]) -> bool:
        """Do a slice of what is due; True when nothing is left.

        Args:
            now_s: The time.
            limits: Gateways that are over their limit; those that no longer are, are taken out.

        Raises:
            DatabaseAwayError: Not now.
        """
        for gateway, limit in list(limits.items()):
            if self._in_transaction(partial(delete_oldest, self._database, gateway, limit)):
                del limits[gateway]
        is_done = not limits
        if self._max_age_s is not None:
            is_done &= self._delete_aged(now_s - self._max_age_s)
        is_done &= self._delete_packs()
        if now_s - self._pruned_at_s > HOUR_S:
            self._pruned_at_s = now_s
            self._prune(now_s)
        return is_done

    def _delete_aged(self, before_s: float) -> bool:
        rows = self._database.query(_AGED, (before_s, _SLICE))
        if rows:  # of none, no transaction: it would hold up other writers for nothing
            self._in_transaction(partial(self._delete_again, before_s))
        return len(rows) < _SLICE

    def _delete_again(self, before_s: float) -> None:
        _delete(self._database, self._database.query(_AGED, (before_s, _SLICE)))

    def _delete_packs(self) -> bool:
        """Delete blobs that no row needs: the blob first, then what remembers it."""
        found = self._database.query(_UNUSED_PACKS, (_BLOB_SLICE,))
        if not found:
            return True
        for (pack_id,) in found:
            try:
                self._blobs.delete_now(pack_id)
            except StorageError:
                return True  # later
        self._in_transaction(lambda: self._database.execute_many(_DELETE_PACK, found))
        return len(found) < _BLOB_SLICE

    def _prune(self, now_s: float) -> None:
        before_s = int(now_s - MINUTES_KEPT_S)
        for family in FAMILIES:
            sql = "DELETE FROM call_rollups WHERE family = ? AND level_s = ? AND bucket_s < ?"
            self._execute(sql, (family, MINUTE_S, before_s))
        self._execute(
            "DELETE FROM call_sums WHERE level_s = ? AND bucket_s < ?", (MINUTE_S, before_s)
        )
        self._execute("DELETE FROM log_writers WHERE seen_at_s < ?", (now_s - _WRITERS_KEPT_S,))

    def _execute(self, sql: str, values: Sequence[Any]) -> None:
        self._in_transaction(lambda: self._database.execute_many(sql, [values]))

    def _in_transaction(self, work: Callable[[], _T]) -> _T:
        with transaction(self._database):
            return work()


def _delete(database: LogDatabase, rows: Sequence[Sequence[Any]]) -> None:
    counts: dict[GatewayKey, int] = {}
    packs: dict[str, int] = {}
    for _, pack_id, account, gateway in rows:
        counts[account, gateway] = counts.get((account, gateway), 0) + 1
        if pack_id is not None:
            packs[pack_id] = packs.get(pack_id, 0) + 1
    if not rows:
        return
    database.execute_many(_DELETE_ROW, [(found[0],) for found in rows])
    database.execute_many(_COUNT_DOWN, [(count, *key) for key, count in counts.items()])
    database.execute_many(_UNPACK, [(count, pack_id) for pack_id, count in packs.items()])
