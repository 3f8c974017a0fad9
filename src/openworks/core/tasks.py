"""Things that run side by side and end together: an error in one ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all; return their results in order, or raise the first error as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def merge(
    sources: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """Yield (index of the source, item) as items come; closing it closes every source.

    No source runs ahead of the reader by more than one item. The first error of a source is
    raised as itself.
    """
    queue: asyncio.Queue[tuple[int, T] | None] = asyncio.Queue(1)
    errors: list[BaseException] = []

    async def pump(index: int, source: AsyncGenerator[T, None]) -> None:
        async with aclosing(source):
            async for item in source:
                await queue.put((index, item))

    async def pump_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, source in enumerate(sources):
                    group.create_task(pump(index, source))
        except BaseExceptionGroup as failed:
            errors.append(failed.exceptions[0])
        await queue.put(None)

    pumps = asyncio.create_task(pump_all())
    try:
        while (entry := await queue.get()) is not None:
            yield entry
        if errors:
            raise errors[0]
    finally:
        pumps.cancel()
        await asyncio.gather(pumps, return_exceptions=True)
