from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from openworks.core.errors import InvalidRequestError
from openworks.ports.logs import LogQuery
from openworks.services.log_exports import LogExports
from openworks.storage.parquet.logs import ParquetLogs
from tests.unit.services.log_store import ACCOUNT, MemoryLogs

QUERY = LogQuery(account_id=ACCOUNT, gateway_id="gw")


@pytest.fixture
def logs() -> MemoryLogs:
    return MemoryLogs()


@pytest.fixture
async def exports(logs: MemoryLogs) -> AsyncIterator[LogExports]:
    made = LogExports(logs, ParquetLogs)
    yield made
    await made.close()


async def test_lines_are_made_no_faster_than_they_are_read(
    logs: MemoryLogs, exports: LogExports
) -> None:
    for number in range(20_000):
        logs.add(number)
    lines = exports.lines(QUERY, with_bodies=False)

    first = await anext(lines)
    assert 0 < logs.scanned <= 1000
    assert len(first) < 100_000
    rest = b"".join([piece async for piece in lines])
    assert len((first + rest).splitlines()) == 20_000


async def test_table_lets_go_of_rows_while_it_is_made(
    logs: MemoryLogs, exports: LogExports
) -> None:
    for number in range(25_000):
        logs.add(number)
    table = exports.parquet(QUERY, with_bodies=False)

    assert (await anext(table)).startswith(b"PAR1")
    assert 0 < logs.scanned <= 10_000
    assert b"".join([piece async for piece in table]).endswith(b"PAR1")


async def test_bodies_that_are_no_text_are_in_base64(logs: MemoryLogs, exports: LogExports) -> None:
    logs.add(1, b"\xff\x00")
    logs.add(2, "Grüße".encode())
    logs.add(3)

    data = b"".join([piece async for piece in exports.lines(QUERY, with_bodies=True)])
    rows = [json.loads(line) for line in data.splitlines()]

    assert rows[0]["response_body_base64"] == "/wA="
    assert rows[1]["response_body"] == "Grüße"
    assert rows[2]["response_body"] is None


async def test_no_logs_make_an_empty_file(exports: LogExports) -> None:
    assert [piece async for piece in exports.lines(QUERY, with_bodies=False)] == []
    whole = b"".join([piece async for piece in exports.parquet(QUERY, with_bodies=False)])
    assert whole.startswith(b"PAR1")
    assert whole.endswith(b"PAR1")


async def test_without_the_library_the_refusal_says_what_to_install(logs: MemoryLogs) -> None:
    bare = LogExports(logs, None)

    with pytest.raises(InvalidRequestError, match=r"openworks\[parquet\]"):
        bare.check_parquet()
    await bare.close()
