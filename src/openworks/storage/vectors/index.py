"""One index: its rows, vectors and codes, changed by one thread at a time and searched by many."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError
from openworks.ports.vectors import (
    Filter,
    Floats,
    IdPage,
    IndexInfo,
    IndexSpec,
    Match,
    Mutation,
    Search,
    VectorRow,
)
from openworks.storage.vectors.codes import Bits, Sealed, Tail, prepare, rank
from openworks.storage.vectors.columns import Columns, Mask, columns_of
from openworks.storage.vectors.cursors import ListCursor
from openworks.storage.vectors.locks import ReadWriteLock
from openworks.storage.vectors.places import Places
from openworks.storage.vectors.raw import BLOCK_ROWS, Matrix, RawVectors, Slots
from openworks.storage.vectors.rows import RowBook, SealedRange
from openworks.storage.vectors.sealing import SealJob, SealProcess, seal

SEALED_MOST_ROWS = 1_000_000
"""Lists of so many rows are not made anew; the next rows get lists of their own."""
FEW_ROWS = 2_000
"""So many matching rows are read and compared: it costs less than a look at all codes."""
LIST_TTL_S = 3600.0
"""How long a list may be continued."""

_RANK_OFFSET = 60.0  # of reciprocal rank fusion: damps how much the very first places weigh


@dataclass(frozen=True, slots=True, kw_only=True)
class SealConfig:
    """When lists are made of rows, and with what."""

    rows: int = 16_384
    """Rows that come together before lists are made of them; until then all are looked at."""
    process_rows: int = 65_536
    """Lists of more rows are made in a process of its own."""
    threads: int = 1


class LocalIndex:
    """An index in a folder. Every method blocks, and may be called from any thread.

    A row keeps its number for life, and has a place (slot) in memory and in the file of vectors.
    What is replaced or removed keeps its slot, hidden, until a vacuum.
    """

    def __init__(self, folder: Path, clock: Clock, config: SealConfig) -> None:
        """Read an index that `create` made; what a killed process left half done is put right."""
        self._config = config
        self._sealing: SealProcess | None = None
        self._is_closing = False
        self._folder = folder
        self._clock = clock
        self.is_broken = False
        """What is in memory is not what is on disk: it must be opened anew."""
        self._lock = ReadWriteLock()
        self._writing = threading.Lock()
        self._maintaining = threading.Lock()
        self._book = RowBook(folder / "rows.db")
        state = self._book.state()
        self.spec: IndexSpec = state.spec
        self._generation = state.generation
        self._mutations = state.mutations
        self._last_mutation = state.last_mutation
        self._last_number = state.last_number
        self._raw = RawVectors(self._raw_path(state.generation), self.spec.width)
        self._sealed: list[Sealed] = []
        self._all_bits: Bits | None = None
        self._places = Places(self._book.places(), state.slots)
        self._columns = Columns()
        self._read_codes()
        self._sweep()

    @classmethod
    def create(cls, folder: Path, spec: IndexSpec) -> None:
        """Make an empty index in an empty folder."""
        RowBook.create(folder / "rows.db", spec)

    def close(self) -> None:
        """Let go of files; no call may be under way."""
        self._book.close()
        self._raw.close()

    def info(self) -> IndexInfo:
        with self._lock.read():
            return IndexInfo(
                spec=self.spec, count=self._places.count, last_mutation=self._last_mutation
            )

    def insert(self, rows: Sequence[VectorRow], mutation: Mutation) -> int:
        first = {row.id: row for row in reversed(rows)}
        self._check(rows)
        with self._writing:
            known = self._book.numbers_of(list(first))
            new = [first[row_id] for row_id in dict.fromkeys(row.id for row in rows)]
            new = [row for row in new if row.id not in known]
            self._change(new, [], mutation)
        return len(new)

    def upsert(self, rows: Sequence[VectorRow], mutation: Mutation) -> None:
        last = {row.id: row for row in rows}
        self._check(rows)
        with self._writing:
            known = self._book.numbers_of(list(last))
            self._change(list(last.values()), list(known.values()), mutation)

    def delete(self, ids: Sequence[str], mutation: Mutation) -> int:
        with self._writing:
            known = self._book.numbers_of(list(dict.fromkeys(ids)))
            self._change([], list(known.values()), mutation)
        return len(known)

    def get(self, ids: Sequence[str]) -> list[VectorRow]:
        with self._lock.read():
            known = self._book.numbers_of(list(dict.fromkeys(ids)))
            numbers = [known[row_id] for row_id in dict.fromkeys(ids) if row_id in known]
            matches = self._matches(numbers, [0.0] * len(numbers), with_values=True)
        return [
            VectorRow(
                id=match.id,
                values=match.values,
                namespace=match.namespace,
                metadata=match.metadata,
                text=match.text,
            )
            for match in matches
            if match.values is not None
        ]

    def list_ids(self, count: int, cursor: str | None) -> IdPage:
        now_s = self._clock.now_s()
        if cursor is None:
            with self._lock.read():
                at = ListCursor(
                    mutations=self._mutations,
                    total_count=self._places.count,
                    expires_at_s=now_s + LIST_TTL_S,
                    after="",
                )
        else:
            at = ListCursor.read(cursor, now_s)
        ids = self._book.ids_at(at.mutations, after=at.after, count=count + 1)
        is_last = len(ids) <= count
        return IdPage(
            ids=tuple(ids[:count]),
            total_count=at.total_count,
            cursor=None if is_last else at.moved(ids[count - 1]).text(),
            expires_at_s=None if is_last else at.expires_at_s,
        )

    def search(self, search: Search) -> list[Match]:
        query = None if search.vector is None else self._matrix([search.vector])
        while True:
            if search.filter is not None:
                self._make_columns(search.filter)
            with self._lock.read():
                if search.filter is None or not self._columns.missing(search.filter):
                    return self._answer(search, query)

    # -- changes

    def _check(self, rows: Sequence[VectorRow]) -> None:
        for row in rows:
            if len(row.values) != self.spec.width:
                raise InvalidRequestError(
                    f"The vector '{row.id}' has {len(row.values)} dimensions;"
                    f" the index has {self.spec.width}.",
                    param="values",
                )
        if not rows:
            return
        finite = np.isfinite(self._joined([row.values for row in rows])).all(axis=1)
        if not finite.all():
            row_id = rows[int(np.argmin(finite))].id
            raise InvalidRequestError(
                f"The vector '{row_id}' has a value that is not finite.", param="values"
            )

    def _change(
        self, added: Sequence[VectorRow], removed: Sequence[int], mutation: Mutation
    ) -> None:
        now_s = self._clock.now_s()
        matrix = self._joined([row.values for row in added])
        codes = prepare(matrix, self.spec.metric)
        if len(added):
            # Bytes first: a row never points at nothing.
            self._raw.write(len(self._places), matrix)
        forget_before_s = now_s - 2 * LIST_TTL_S
        with (
            self._book.change(
                added, removed, mutation, now_s=now_s, forget_before_s=forget_before_s
            ),
            self._lock.write(),
        ):
            self.is_broken = True
            self._book.commit()
            self._places.hide(removed)
            self._places.add(self._last_number + 1, [row.namespace for row in added])
            self._last_number += len(added)
            self._columns.extend([row.metadata for row in added])
            if added:
                self._tail.add(codes)
            self._mutations += 1
            self._last_mutation = mutation
            self._all_bits = None
            self.is_broken = False

    # -- searches

    def _answer(self, search: Search, query: Matrix | None) -> list[Match]:
        mask = self._mask(search)
        is_both = query is not None and search.words is not None
        reach = search.count + 50 if is_both else search.count
        near = [] if query is None else self._nearest(query, reach, mask)
        said = [] if search.words is None else self._with_words(search.words, reach, mask)
        found = _fused(near, said)[: search.count] if is_both else near + said
        return self._matches(
            [number for number, _ in found],
            [score for _, score in found],
            with_values=search.with_values,
        )

    def _mask(self, search: Search) -> Mask | None:
        """Which slots may be found; None when every one that is there may be."""
        mask: Mask | bool = True
        if search.filter is not None:
            self._columns.touch(search.filter)
            mask = self._columns.mask(search.filter)
        if search.namespace is not None:
            mask = self._places.in_namespace(search.namespace) & mask
        if mask is True:
            return None
        return self._places.alive & mask

    def _nearest(self, query: Matrix, count: int, mask: Mask | None) -> list[tuple[int, float]]:
        matching = self._places.count if mask is None else int(np.count_nonzero(mask))
        reach = 3 * count + 30  # codes are coarse: more are found by them than are wanted
        if matching <= max(reach, FEW_ROWS):
            slots = np.flatnonzero(self._places.alive if mask is None else mask)
        else:
            bits = self._bits(mask)
            prepared = prepare(query, self.spec.metric)
            share = matching / self._places.count
            parts = [one.find(prepared, reach, bits, matching, share) for one in self._sealed]
            slots = np.concatenate([*parts, self._tail.find(prepared, reach, bits)])
        order, scores = rank(query, self._raw.read(slots), self.spec.metric)
        chosen = order[:count]
        numbers = self._places.numbers_in(slots[chosen])
        return list(zip(numbers, scores[chosen].tolist(), strict=True))

    def _with_words(self, words: str, count: int, mask: Mask | None) -> list[tuple[int, float]]:
        allowed = self._places.alive if mask is None else mask
        hits = self._book.with_words(words)
        return list(islice((hit for hit in hits if self._places.allows(hit[0], allowed)), count))

    def _bits(self, mask: Mask | None) -> Bits | None:
        if mask is not None:
            return np.packbits(mask, bitorder="little")
        if self._places.count == len(self._places):
            return None
        if self._all_bits is None:
            self._all_bits = np.packbits(self._places.alive, bitorder="little")
        return self._all_bits

    def _make_columns(self, filter: Filter) -> None:
        while paths := self._columns.missing(filter):
            with self._writing:
                made = columns_of(paths, self._book.metadata(len(self._places)))
                with self._lock.write():
                    self._columns.add(made, filter)

    def _matches(
        self, numbers: Sequence[int], scores: Sequence[float], *, with_values: bool
    ) -> list[Match]:
        rows = self._book.rows(numbers)
        values = self._raw.read(self._places.slots_of(numbers)) if with_values else None
        return [
            Match(
                id=rows[number].id,
                score=score,
                namespace=rows[number].namespace,
                metadata=rows[number].metadata,
                text=rows[number].text,
                values=None if values is None else _floats(values[place]),
            )
            for place, (number, score) in enumerate(zip(numbers, scores, strict=True))
        ]

    # -- maintenance, by one thread at a time

    def needs_maintenance(self) -> bool:
        """Whether `maintain` would do anything."""
        return not self._is_closing and (self._needs_vacuum() or self._needs_seal())

    def end_maintenance(self) -> None:
        """Let `maintain` return soon; what it was about is done another time."""
        self._is_closing = True
        if self._sealing is not None:
            self._sealing.kill()

    def maintain(self) -> None:
        """Drop what was replaced and seal the tail, where enough of it has come together.

        Searches go on; changes wait while a vacuum copies what is left, a few seconds a million
        rows.
        """
        with self._maintaining:
            if self._needs_vacuum():
                self._vacuum()
            if self._needs_seal():
                self._seal()

    def _needs_seal(self) -> bool:
        last = len(self._sealed[-1]) if self._sealed else 0
        share = 0 if last >= SEALED_MOST_ROWS else last // 8
        return len(self._tail) >= max(self._config.rows, share, 8)

    def _needs_vacuum(self) -> bool:
        hidden = len(self._places) - self._places.count
        return hidden > max(self._config.rows, self._places.count)

    def _seal(self) -> None:
        with self._lock.read():
            alive = np.flatnonzero(self._places.alive)
            stop = len(self._places) // 8 * 8
            kept = [one for one in self._sealed if len(one) >= SEALED_MOST_ROWS]
        start = kept[-1].stop if kept else 0
        covered = alive[(alive >= start) & (alive < stop)]
        sealed = list(kept)
        if len(covered):
            path = self._folder / f"lists-{self._generation}-{start}-{stop}"
            grown = self._sealed[-1] if len(self._sealed) > len(kept) else None
            self._make_lists(path, covered, stop, grown)
            if self._is_closing:
                return
            sealed.append(Sealed(path, start=start, stop=stop))
        tail = self._tail_behind(sealed, stop)
        self._fill(tail, len(self._places), self._raw)
        with self._writing:
            self._fill(tail, len(self._places), self._raw)
            self._book.set_sealed(
                [SealedRange(start=one.start, stop=one.stop, file=one.path.name) for one in sealed]
            )
            with self._lock.write():
                self._sealed = sealed
                self._tail = tail
        self._sweep()

    def _make_lists(self, path: Path, covered: Slots, stop: int, grown: Sealed | None) -> None:
        job = SealJob(
            path=str(path),
            vectors=str(self._raw_path(self._generation)),
            width=self.spec.width,
            metric=self.spec.metric,
            start=0 if grown is None else grown.stop,
            stop=stop,
            grown=None if grown is None else str(grown.path),
            threads=self._config.threads,
        )
        if len(covered) <= self._config.process_rows:
            seal(job, covered)
            return
        self._sealing = SealProcess(job, covered)
        if self._is_closing:
            self._sealing.kill()
        try:
            self._sealing.wait()
        except OSError:
            if not self._is_closing:
                raise
        finally:
            self._sealing = None

    def _vacuum(self) -> None:
        with self._writing:
            kept = np.flatnonzero(self._places.alive)
            generation = self._generation + 1
            raw = RawVectors(self._raw_path(generation), self.spec.width)
            for first in range(0, len(kept), BLOCK_ROWS):
                raw.write(first, self._raw.read(kept[first : first + BLOCK_ROWS]))
            self._book.renumber(
                self._places.numbers_in(kept),
                generation=generation,
                forget_before_s=self._clock.now_s() - LIST_TTL_S,
            )
            self.is_broken = True
            places = Places(self._book.places(), len(kept))
            columns = self._columns.anew(self._book.metadata(len(kept)))
            tail = self._tail_behind(self._sealed, 0)
            self._fill(tail, len(kept), raw)
            with self._lock.write():
                old, self._raw = self._raw, raw
                self._generation = generation
                self._places, self._columns, self._tail = places, columns, tail
                self._sealed = []
                self._all_bits = None
                self.is_broken = False
            old.close()
        self._sweep()

    def _fill(self, tail: Tail, slots: int, raw: RawVectors) -> None:
        """Add the rows that the tail lacks, up to this slot."""
        for _, rows in raw.blocks(tail.start + len(tail), slots):
            tail.add(prepare(rows, self.spec.metric))

    # -- opening

    def _read_codes(self) -> None:
        for one in self._book.sealed():
            path = self._folder / one.file
            if not path.exists():
                self._sealed = []  # made anew from the vectors
                break
            self._sealed.append(Sealed(path, start=one.start, stop=one.stop))
        stop = self._sealed[-1].stop if self._sealed else 0
        self._tail = self._tail_behind(self._sealed, stop)
        self._fill(self._tail, len(self._places), self._raw)

    def _tail_behind(self, sealed: Sequence[Sealed], start: int) -> Tail:
        """An empty tail, of codes where there are lists to make them by."""
        if sealed:
            return sealed[-1].tail(start)
        return Tail.exact(self.spec.width, self.spec.metric, start)

    def _sweep(self) -> None:
        """Remove the files that nothing names any more."""
        named = {one.path for one in self._sealed} | {self._raw_path(self._generation)}
        for path in [*self._folder.glob("lists-*"), *self._folder.glob("vectors-*")]:
            if path not in named:
                path.unlink()

    # -- shapes

    def _raw_path(self, generation: int) -> Path:
        return self._folder / f"vectors-{generation}"

    def _joined(self, vectors: Sequence[Floats]) -> Matrix:
        joined = np.frombuffer(bytearray().join(vectors), np.float32)
        return joined.reshape(len(vectors), self.spec.width)

    def _matrix(self, vectors: Sequence[Floats]) -> Matrix:
        """Check the vector of a search: [1, width]."""
        self._check([VectorRow(id="query", values=vector) for vector in vectors])
        return self._joined(vectors)


def _floats(row: Matrix) -> Floats:
    floats: Floats = array("f")
    floats.frombytes(row.tobytes())
    return floats


def _fused(*lists: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Join ranked lists by the sum of reciprocal ranks."""
    scores: dict[int, float] = {}
    for ranked in lists:
        for place, (number, _) in enumerate(ranked, start=1):
            scores[number] = scores.get(number, 0.0) + 1 / (_RANK_OFFSET + place)
    return sorted(scores.items(), key=lambda item: -item[1])
