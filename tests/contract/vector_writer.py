"""A process that changes an index until it is killed, and says what was acknowledged.

What it writes follows from the mutation's number alone, so that another process can tell what
must be there.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from pathlib import Path

from openworks.core.clock import SystemClock
from openworks.ports.vectors import IndexId, IndexSpec, Mutation, VectorRow
from openworks.storage.vectors.index import SealConfig
from openworks.storage.vectors.store import LocalVectorIndexes, VectorsConfig

NAME = IndexId("idx-1")
WIDTH = 8
CONFIG = VectorsConfig(threads=2, seal=SealConfig(rows=100, process_rows=300))
_ROWS = 40


def rows_of(number: int) -> list[VectorRow]:
    """What mutation `number` writes: half of it replaces what the one before wrote."""
    return [
        VectorRow(
            id=f"r{number * _ROWS // 2 + place}",
            values=array("f", [number, place, 1, 2, 3, 4, 5, number * place % 7]),
            metadata={"number": number},
            text=f"number {number}",
        )
        for place in range(_ROWS)
    ]


def gone_after(number: int) -> list[str]:
    """What mutation `number` removes, where it removes anything instead of writing."""
    return [f"r{(number - 6) * _ROWS // 2 + place}" for place in range(_ROWS // 4)]


def state_after(count: int) -> dict[str, int]:
    """Which ids are there after so many mutations, and which one wrote each."""
    there: dict[str, int] = {}
    for number in range(count):
        if number % 7 == 6:
            for row_id in gone_after(number):
                there.pop(row_id, None)
        else:
            there.update({row.id: number for row in rows_of(number)})
    return there


async def main(folder: Path) -> None:
    """Go on from where the last process was killed."""
    index = LocalVectorIndexes(folder, CONFIG, SystemClock())
    await index.open()
    if not (folder / NAME).exists():
        await index.create(NAME, IndexSpec(width=WIDTH, metric="cosine"))
    last = (await index.info(NAME)).last_mutation
    number = 0 if last is None else int(last.id) + 1
    print("ready", flush=True)
    while True:
        mutation = Mutation(id=str(number), at_s=number)
        if number % 7 == 6:
            await index.delete(NAME, gone_after(number), mutation)
        else:
            await index.upsert(NAME, rows_of(number), mutation)
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
