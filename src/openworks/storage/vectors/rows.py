"""What belongs to a vector, in SQLite: id, namespace, metadata, text, and when it came and went."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import cast, get_args

import orjson

from openworks.core.json import JsonObject
from openworks.ports.vectors import IndexSpec, Metric, Mutation, VectorRow

_IDS_AT_ONCE = 1_000
_ROWS_AT_ONCE = 5_000
_MOST_WORDS = 64
_WORD = re.compile(r"\w+")

_SCHEMA = """
CREATE TABLE state (
    width INTEGER NOT NULL, metric TEXT NOT NULL,
    generation INTEGER NOT NULL, slots INTEGER NOT NULL, last_number INTEGER NOT NULL,
    mutations INTEGER NOT NULL, mutation_id TEXT, mutation_at_s REAL
);
CREATE TABLE rows (
    number INTEGER PRIMARY KEY, slot INTEGER NOT NULL, id TEXT NOT NULL, namespace TEXT,
    metadata BLOB NOT NULL, text TEXT, born INTEGER NOT NULL, gone INTEGER, gone_at_s REAL
);
CREATE INDEX rows_by_id ON rows (id);
CREATE INDEX rows_gone ON rows (gone_at_s) WHERE gone IS NOT NULL;
CREATE TABLE sealed (start INTEGER PRIMARY KEY, stop INTEGER NOT NULL, file TEXT NOT NULL);
CREATE VIRTUAL TABLE texts USING fts5 (
    text, content = 'rows', content_rowid = 'number',
    tokenize = 'porter unicode61 remove_diacritics 2'
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where the index stands. Numbers are given once; slots are given anew by a vacuum."""

    spec: IndexSpec
    generation: int
    """Which file of vectors the slots are places in."""
    slots: int
    """How many places of it are taken, by rows and by what they replaced."""
    last_number: int
    mutations: int
    last_mutation: Mutation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRange:
    """The slots that one file of lists covers."""

    start: int
    stop: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """A row without its vector."""

    number: int
    id: str
    namespace: str | None
    metadata: JsonObject
    text: str | None


class RowBook:
    """The rows of one index. One thread writes at a time; any number read beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = self._connect()
        self._idle_readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()

    @classmethod
    def create(cls, path: Path, spec: IndexSpec) -> None:
        """Make the file."""
        book = cls(path)
        book._writer.executescript(_SCHEMA)
        book._writer.execute(
            "INSERT INTO state VALUES (?, ?, 0, 0, 0, 0, NULL, NULL)", (spec.width, spec.metric)
        )
        book.close()

    def close(self) -> None:
        while True:
            try:
                self._idle_readers.get_nowait().close()
            except Empty:
                break
        self._writer.close()

    def state(self) -> State:
        width, metric, generation, slots, last_number, mutations, mutation_id, at_s = next(
            self._writer.execute("SELECT * FROM state")
        )
        assert metric in get_args(Metric)
        return State(
            spec=IndexSpec(width=width, metric=cast("Metric", metric)),
            generation=generation,
            slots=slots,
            last_number=last_number,
            mutations=mutations,
            last_mutation=None if mutation_id is None else Mutation(id=mutation_id, at_s=at_s),
        )

    def numbers_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Find the rows that are there by their ids."""
        found: dict[str, int] = {}
        with self._reader() as reader:
            for first in range(0, len(ids), _IDS_AT_ONCE):
                some = ids[first : first + _IDS_AT_ONCE]
                marks = ",".join("?" * len(some))
                found.update(
                    reader.execute(
                        f"SELECT id, number FROM rows WHERE id IN ({marks}) AND gone IS NULL",
                        some,
                    )
                )
        return found

    @contextmanager
    def change(
        self,
        added: Sequence[VectorRow],
        removed: Sequence[int],
        mutation: Mutation,
        *,
        now_s: float,
        forget_before_s: float,
    ) -> Iterator[None]:
        """Add rows in the next slots and remove others, by number; nothing without `commit`.

        What was removed before `forget_before_s` is forgotten; until then, lists that began
        earlier go on seeing it.
        """
        state = self.state()
        born = state.mutations + 1
        first_number, first_slot = state.last_number + 1, state.slots
        metadata = [orjson.dumps(row.metadata) for row in added]
        with self._transaction() as writer:
            writer.execute("DELETE FROM rows WHERE gone_at_s < ?", (forget_before_s,))
            writer.executemany(
                "INSERT INTO texts (texts, rowid, text)"
                " SELECT 'delete', number, text FROM rows WHERE number = ? AND text IS NOT NULL",
                [(number,) for number in removed],
            )
            writer.executemany(
                "UPDATE rows SET gone = ?, gone_at_s = ? WHERE number = ?",
                [(born, now_s, number) for number in removed],
            )
            writer.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
                (
                    (
                        first_number + place,
                        first_slot + place,
                        row.id,
                        row.namespace,
                        encoded,
                        row.text,
                        born,
                    )
                    for place, (row, encoded) in enumerate(zip(added, metadata, strict=True))
                ),
            )
            writer.executemany(
                "INSERT INTO texts (rowid, text) VALUES (?, ?)",
                (
                    (first_number + place, row.text)
                    for place, row in enumerate(added)
                    if row.text is not None
                ),
            )
            writer.execute(
                "UPDATE state SET slots = slots + ?, last_number = last_number + ?,"
                " mutations = ?, mutation_id = ?, mutation_at_s = ?",
                (len(added), len(added), born, mutation.id, mutation.at_s),
            )
            yield

    def commit(self) -> None:
        """Keep the change that is under way; on disk, and seen by readers, when this returns."""
        self._writer.execute("COMMIT")

    def places(self) -> Iterator[list[tuple[int, int, str | None]]]:
        """Yield number, slot and namespace of what is there, by slot, some thousand at a time."""
        with self._reader() as reader:
            cursor = reader.execute(
                "SELECT number, slot, namespace FROM rows WHERE gone IS NULL ORDER BY number"
            )
            while block := cursor.fetchmany(_ROWS_AT_ONCE):
                yield block

    def metadata(self, slots: int) -> Iterator[list[JsonObject]]:
        """Yield the metadata of the first `slots` slots, empty for what is not there."""
        with self._reader() as reader:
            cursor = reader.execute(
                "SELECT slot, metadata FROM rows WHERE gone IS NULL ORDER BY number"
            )
            done = 0
            while done < slots:
                block = cursor.fetchmany(_ROWS_AT_ONCE)
                stop = block[-1][0] + 1 if block else slots
                rows: list[JsonObject] = [{}] * (stop - done)
                for slot, encoded in block:
                    rows[slot - done] = orjson.loads(encoded)
                yield rows
                done = stop

    def rows(self, numbers: Sequence[int]) -> dict[int, StoredRow]:
        """Find rows by number."""
        found: dict[int, StoredRow] = {}
        with self._reader() as reader:
            for first in range(0, len(numbers), _IDS_AT_ONCE):
                some = numbers[first : first + _IDS_AT_ONCE]
                marks = ",".join("?" * len(some))
                for number, row_id, namespace, metadata, text in reader.execute(
                    "SELECT number, id, namespace, metadata, text FROM rows"
                    f" WHERE number IN ({marks})",
                    some,
                ):
                    found[number] = StoredRow(
                        number=number,
                        id=row_id,
                        namespace=namespace,
                        metadata=orjson.loads(metadata),
                        text=text,
                    )
        return found

    def with_words(self, words: str) -> Iterator[tuple[int, float]]:
        """Yield number and BM25 score of the rows with any of these words, the best first."""
        asked = " OR ".join(f'"{word}"' for word in _WORD.findall(words)[:_MOST_WORDS])
        if not asked:
            return
        with self._reader() as reader:
            for number, score in reader.execute(
                "SELECT rowid, bm25(texts) FROM texts WHERE texts MATCH ?"
                " ORDER BY bm25(texts), rowid",
                (asked,),
            ):
                yield number, -score

    def ids_at(self, mutations: int, *, after: str, count: int) -> list[str]:
        """Return ids behind `after`, as they were when so many mutations had happened."""
        with self._reader() as reader:
            return [
                row_id
                for (row_id,) in reader.execute(
                    "SELECT id FROM rows WHERE id > ? AND born <= ? AND (gone IS NULL OR gone > ?)"
                    " ORDER BY id LIMIT ?",
                    (after, mutations, mutations, count),
                )
            ]

    def sealed(self) -> list[SealedRange]:
        """The files of lists, by the slots that they cover."""
        return [
            SealedRange(start=start, stop=stop, file=file)
            for start, stop, file in self._writer.execute("SELECT * FROM sealed ORDER BY start")
        ]

    def set_sealed(self, ranges: Sequence[SealedRange]) -> None:
        """Name the files of lists that count from now on."""
        with self._transaction() as writer:
            writer.execute("DELETE FROM sealed")
            writer.executemany(
                "INSERT INTO sealed VALUES (?, ?, ?)",
                [(one.start, one.stop, one.file) for one in ranges],
            )
            self.commit()

    def renumber(self, numbers: Sequence[int], *, generation: int, forget_before_s: float) -> None:
        """Begin a generation in which these rows, and no others, have slots: their places here.

        What was removed keeps its id alone, for lists that began earlier.
        """
        with self._transaction() as writer:
            writer.execute("DELETE FROM rows WHERE gone_at_s < ?", (forget_before_s,))
            writer.execute(
                "UPDATE rows SET slot = -1, metadata = '{}', text = NULL WHERE gone IS NOT NULL"
            )
            writer.executemany("UPDATE rows SET slot = ? WHERE number = ?", enumerate(numbers))
            writer.execute("DELETE FROM sealed")
            writer.execute("UPDATE state SET generation = ?, slots = ?", (generation, len(numbers)))
            self.commit()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """What is not committed inside is undone."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
        finally:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -8192")
        return connection

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        try:
            reader = self._idle_readers.get_nowait()
        except Empty:
            reader = self._connect()
        try:
            yield reader
        finally:
            self._idle_readers.put(reader)
