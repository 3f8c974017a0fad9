from __future__ import annotations

from contextlib import ExitStack
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openworks.api.multipart import Form, Uploads
from openworks.core.errors import (
    InvalidRequestError,
    PayloadTooLargeError,
    ServerOverloadedError,
)

TYPE = "multipart/form-data; boundary=frontier"


def part(name: str, data: bytes, file_name: str | None = None) -> bytes:
    shown = f'; filename="{file_name}"' if file_name is not None else ""
    head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    return head.encode() + data + b"\r\n"


END = b"--frontier--\r\n"


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", max_bytes=3_000_000, max_uploads=2, timeout_s=5)


async def read(uploads: Uploads, stack: ExitStack, body: bytes, *cuts: int) -> Form:
    reader = uploads.open(stack, TYPE)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(places):
        await reader.feed(body[start:end])
    return await reader.end()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.binary(max_size=400).filter(lambda data: b"--frontier" not in data),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
    is_file_first=st.booleans(),
)
async def test_form_is_the_same_however_it_is_cut(
    uploads: Uploads, data: bytes, cuts: list[int], is_file_first: bool
) -> None:
    parts = [part("file", data, "x.bin"), part("file_name", b"adapter.bin")]
    body = b"".join(parts if is_file_first else parts[::-1]) + END

    with ExitStack() as stack:
        form = await read(uploads, stack, body, *cuts)
        assert form.file is not None
        form.file.file.seek(0)
        content = form.file.file.read()

    assert (content, form.file.size_bytes) == (data, len(data))
    assert form.file.sha256 == sha256(data).hexdigest()
    assert (form.fields, form.file_name) == ({"file_name": "adapter.bin"}, "x.bin")


async def test_file_on_disk_has_no_name_and_ends_with_the_request(
    uploads: Uploads, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        form = await read(uploads, stack, part("file", b"x" * 2_000_000, "x") + END)
        assert list((tmp_path / "uploads").iterdir()) == []

    assert form.file is not None
    assert form.file.file.closed


async def test_file_over_the_limit_is_refused_before_its_end(uploads: Uploads) -> None:
    with ExitStack() as stack:
        reader = uploads.open(stack, TYPE)
        await reader.feed(part("file", b"x" * 2_900_000, "x")[:-2])

        with pytest.raises(PayloadTooLargeError, match="3 MB"):
            await reader.feed(b"x" * 200_000)


def test_place_of_an_upload_is_free_again_after_it(uploads: Uploads) -> None:
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        uploads.open(first, TYPE)
        uploads.open(second, TYPE)
        with pytest.raises(ServerOverloadedError, match="2 files"):
            uploads.open(third, TYPE)

        first.close()

        uploads.open(third, TYPE)


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"]
)
def test_what_is_no_form_is_refused(uploads: Uploads, kind: str) -> None:
    with ExitStack() as stack, pytest.raises(InvalidRequestError, match="multipart/form-data"):
        uploads.open(stack, kind)


async def test_form_without_a_file_has_none(uploads: Uploads) -> None:
    with ExitStack() as stack:
        form = await read(uploads, stack, part("file_name", b"a") + END)

    assert form.file is None


@pytest.mark.parametrize("count", [0, 10, 100])
async def test_form_that_breaks_off_is_refused(uploads: Uploads, count: int) -> None:
    body = part("file", b"hello" * 20, "x") + END

    with ExitStack() as stack, pytest.raises(InvalidRequestError, match="breaks off"):
        await read(uploads, stack, body[:count])


@given(body=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_whatever_comes_is_read_or_refused(uploads: Uploads, body: bytes) -> None:
    with ExitStack() as stack:
        try:
            form = await read(uploads, stack, b"--frontier\r\n" + body)
        except InvalidRequestError:
            return
        assert b"--frontier--" in body
        assert form.file is None or form.file.size_bytes <= len(body)
