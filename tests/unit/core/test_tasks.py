from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from openworks.core.tasks import gather, merge


class Source:
    """Yields numbers and remembers whether it was closed."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.yielded = 0
        self.closed = False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.count):
                self.yielded += 1
                yield number
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def test_merge_yields_every_item_of_every_source_in_its_order() -> None:
    sources = [Source(3), Source(0), Source(5)]
    seen: dict[int, list[int]] = {0: [], 2: []}
    async for index, item in merge([source.items() for source in sources]):
        seen[index].append(item)
    assert seen == {0: [0, 1, 2], 2: [0, 1, 2, 3, 4]}


async def test_closing_a_merge_closes_every_source() -> None:
    sources = [Source(100), Source(100)]
    merged = merge([source.items() for source in sources])
    await anext(merged)
    await merged.aclose()
    assert [source.closed for source in sources] == [True, True]
    assert all(source.yielded < 5 for source in sources)


async def test_error_in_one_source_is_raised_as_itself_and_closes_the_others() -> None:
    good, bad = Source(1000), Source(1, ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        async for _ in merge([good.items(), bad.items()]):
            pass
    assert good.closed


async def test_source_does_not_run_ahead_of_a_slow_reader() -> None:
    source = Source(1000)
    merged = merge([source.items()])
    await anext(merged)
    for _ in range(50):
        await asyncio.sleep(0)
    assert source.yielded <= 3
    await merged.aclose()


async def test_gather_returns_results_in_order_and_raises_the_first_error_as_itself() -> None:
    async def value(number: int) -> int:
        await asyncio.sleep(0)
        if number < 0:
            raise ValueError("negative")
        return number

    assert await gather([value(3), value(1), value(2)]) == [3, 1, 2]
    with pytest.raises(ValueError, match="negative"):
        await gather([value(1), value(-1)])
