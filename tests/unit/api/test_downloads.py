"""A file that is sent while it is made: whole, cut where it failed, let go where nobody reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from openworks.api.downloads import Download, Span, disposition, span_of
from openworks.core.errors import RangeNotSatisfiableError, StorageError


class Client:
    """Takes messages, and leaves after so many."""

    def __init__(self, patience: int = 99) -> None:
        self.messages: list[Message] = []
        self._patience = patience

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)
        if len(self.messages) >= self._patience:
            raise ConnectionError("The client left.")

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def is_complete(self) -> bool:
        return self.messages[-1].get("more_body") is False


async def receive() -> Message:
    return {"type": "http.disconnect"}


class Source:
    """Yields pieces; `None` is a failure of the store."""

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces = pieces
        self.is_closed = False

    async def read(self) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self._pieces:
                if piece is None:
                    raise StorageError("The database is away.")
                yield piece
        finally:
            self.is_closed = True


async def send(source: Source, client: Client) -> None:
    download = Download(source.read(), name="gw.jsonl", media_type="application/x-ndjson")
    await download({"type": "http"}, receive, client)


async def test_file_is_sent_piece_by_piece_without_a_length() -> None:
    source, client = Source(b"a", b"b"), Client()
    await send(source, client)

    assert (client.body, client.is_complete) == (b"ab", True)
    headers = dict(client.messages[0]["headers"])
    assert b"content-length" not in headers
    assert headers[b"content-disposition"] == b'attachment; filename="gw.jsonl"'


async def test_empty_file_is_a_file() -> None:
    client = Client()
    await send(Source(), client)

    assert (client.body, client.is_complete) == (b"", True)


async def test_failure_before_the_first_piece_has_an_answer_of_its_own() -> None:
    client = Client()
    with pytest.raises(StorageError):
        await send(Source(None), client)

    assert not client.messages


async def test_file_that_fails_on_its_way_has_no_end() -> None:
    source, client = Source(b"a", None), Client()
    await send(source, client)

    assert (client.body, client.is_complete, source.is_closed) == (b"a", False, True)


async def test_file_that_nobody_reads_is_let_go() -> None:
    source, client = Source(b"a", b"b", b"c"), Client(patience=2)
    with pytest.raises(ConnectionError):
        await send(source, client)

    assert source.is_closed


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", (0, 4)),
        ("bytes=3-", (3, 7)),
        ("bytes=-3", (7, 3)),
        ("bytes=-99", (0, 10)),
        ("bytes=9-99", (9, 1)),
        ("BYTES= 0 - 0 ", (0, 1)),
    ],
)
def test_range_is_a_part_of_the_file(header: str, expected: tuple[int, int]) -> None:
    span = span_of(header, 10)

    assert span == Span(start=expected[0], length=expected[1])


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=-", "bytes=3-2", "lines=0-1", "bytes=0-1,3-4", "bytes=a-b"],
)
def test_what_is_no_single_range_is_the_whole_file(header: str | None) -> None:
    assert span_of(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_range_behind_the_end_is_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiableError, match="10 bytes"):
        span_of(header, 10)


@given(st.text(alphabet="bytes=-0123456789, ", max_size=20), st.integers(1, 100))
def test_every_range_lies_within_the_file(header: str, size: int) -> None:
    try:
        span = span_of(header, size)
    except RangeNotSatisfiableError:
        return
    assert span is None or 0 <= span.start < span.start + span.length <= size


@given(st.text(min_size=1).filter(lambda name: name.isprintable()))
def test_name_of_a_download_fits_a_header(name: str) -> None:
    header = disposition(name)

    assert header.isascii()
    assert header.startswith('attachment; filename="')
    assert header.count('"') == 2


def test_name_beyond_ascii_is_sent_twice() -> None:
    assert disposition('ü".txt') == (
        "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%BC%22.txt"
    )
