"""The end of a batch: what has become of its lines, gathered into files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Literal

import orjson

from openworks.core.clock import Clock
from openworks.core.json import JsonObject
from openworks.ports.batches import Batch, BatchStore, KeptLine
from openworks.ports.blobs import Blobs
from openworks.ports.files import File
from openworks.ports.jobs import Claim
from openworks.services.batches.lines import custom_id_of, read_lines
from openworks.services.bytes_first import BytesFirst
from openworks.services.files import Files, NewFile

Ending = Literal["completed", "failed", "expired", "cancelled"]

_PIECE_BYTES: Final = 4 << 20
_UNANSWERED: Final[Mapping[Ending, tuple[str, str]]] = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "This request was not executed, as its batch was cancelled."),
}
"""What is said of lines that have no answer."""

_Pieces = AsyncGenerator[bytes, None]


class BatchFiles:
    """Writes what batches leave."""

    def __init__(
        self,
        store: BatchStore,
        files: Files,
        blobs: Blobs,
        *,
        orphan_after_s: float,
        clock: Clock,
    ) -> None:
        self._store = store
        self._files = files
        self._blobs = blobs
        self._bytes_first = BytesFirst(blobs, clock, orphan_after_s=orphan_after_s)
        self._clock = clock

    async def finish(
        self, claim: Claim, batch: Batch, ending: Ending, errors: Sequence[JsonObject] = ()
    ) -> None:
        """Write the files of a batch, and bring it to its end together with them.

        Args:
            claim: Of its job.
            batch: As it is now.
            ending: How it ends.
            errors: Why it failed.
        """
        kept = await self._store.list_results(batch.id)
        good = [line for line in kept if not line.is_error]
        bad = [line for line in kept if line.is_error]
        unanswered = _UNANSWERED.get(ending) if len(kept) < batch.num_lines else None
        source = None
        if unanswered is not None:
            source = await self._files.find(batch.account_id, batch.input_file_id)
        plans: dict[str, _Pieces] = {}
        if good:
            plans["output_file_id"] = self._stored(batch, good)
        if bad or source is not None:
            done = {line.number for line in kept}
            plans["error_file_id"] = self._errors(batch, bad, source, done, unanswered)
        ended = replace(batch, status=ending, errors=tuple(errors))
        await self._keep(claim, ended, plans, [])

    async def _keep(
        self, claim: Claim, batch: Batch, plans: Mapping[str, _Pieces], kept: Sequence[File]
    ) -> None:
        """Keep one file after another, and the batch with all of them at last."""
        if not plans:
            reached_at_s = {**batch.reached_at_s, batch.status: self._clock.now_s()}
            await self._store.finish(claim, replace(batch, reached_at_s=reached_at_s), kept)
            return
        (field, pieces), *others = plans.items()
        new = NewFile(
            account_id=batch.account_id,
            filename=f"{batch.id}_{field.removesuffix('_file_id')}.jsonl",
            media_type="application/jsonl",
            purpose="batch_output",
            ttl_s=batch.output_ttl_s,
        )
        file = self._files.describe(new, 0)
        counted = _Counted(pieces)

        async def insert() -> None:
            whole = replace(file, size_bytes=counted.size_bytes)
            done = (
                replace(batch, output_file_id=file.id)
                if field == "output_file_id"
                else replace(batch, error_file_id=file.id)
            )
            await self._keep(claim, done, dict(others), [*kept, whole])

        async with aclosing(counted.pieces()) as content:
            put = self._blobs.put_stream(file.blob, content)
            await self._bytes_first.keep(file.blob, put, insert)

    async def _stored(self, batch: Batch, lines: Sequence[KeptLine]) -> _Pieces:
        """Yield results, a few megabytes at a time."""
        begin = size_bytes = 0
        for end, line in enumerate(lines, 1):
            size_bytes += line.size_bytes
            if end < len(lines) and size_bytes + lines[end].size_bytes <= _PIECE_BYTES:
                continue
            found = await self._store.read_results(
                batch.id,
                is_error=line.is_error,
                first=lines[begin].number,
                last=line.number,
            )
            yield b"".join(data + b"\n" for data in found)
            begin, size_bytes = end, 0

    async def _errors(
        self,
        batch: Batch,
        bad: Sequence[KeptLine],
        source: File | None,
        done: set[int],
        unanswered: tuple[str, str] | None,
    ) -> _Pieces:
        """Yield refusals, then the lines of `source` that are not `done`."""
        async with aclosing(self._stored(batch, bad)) as stored:
            async for piece in stored:
                yield piece
        if source is None or unanswered is None:
            return
        error = dict(zip(("code", "message"), unanswered, strict=True))
        short_id = batch.id.removeprefix("batch_")
        async with aclosing(read_lines(self._files, source)) as lines:
            async for some in lines:
                yield b"".join(
                    orjson.dumps(
                        {
                            "id": f"batch_req_{short_id}-{line.number}",
                            "custom_id": custom_id_of(line),
                            "response": None,
                            "error": error,
                        },
                        option=orjson.OPT_APPEND_NEWLINE,
                    )
                    for line in some
                    if line.number not in done
                )


class _Counted:
    """Counts bytes on their way."""

    def __init__(self, pieces: _Pieces) -> None:
        self.size_bytes = 0
        self._pieces = pieces

    async def pieces(self) -> _Pieces:
        """Yield what there is."""
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                self.size_bytes += len(piece)
                yield piece
