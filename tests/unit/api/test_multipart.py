from __future__ import annotations

import errno
import io
from contextlib import ExitStack
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openworks.api.multipart import Form, FormReader, Forms
from openworks.core.errors import (
    InvalidRequestError,
    PayloadTooLargeError,
    ServerOverloadedError,
    StorageError,
)

TYPE = "multipart/form-data; boundary=frontier"


def part(name: str, data: bytes, file_name: str | None = None) -> bytes:
    shown = f'; filename="{file_name}"' if file_name is not None else ""
    head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    return head.encode() + data + b"\r\n"


END = b"--frontier--\r\n"


@pytest.fixture
def forms(tmp_path: Path) -> Forms:
    return Forms(tmp_path / "uploads", max_bytes=3_000_000, max_uploads=2, timeout_s=5)


async def read(forms: Forms, stack: ExitStack, body: bytes, *cuts: int) -> Form:
    reader = forms.open(stack, TYPE)
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
    forms: Forms, data: bytes, cuts: list[int], is_file_first: bool
) -> None:
    parts = [part("file", data, "x.bin"), part("file_name", b"adapter.bin")]
    body = b"".join(parts if is_file_first else parts[::-1]) + END

    with ExitStack() as stack:
        form = await read(forms, stack, body, *cuts)
        assert form.file is not None
        form.file.file.seek(0)
        content = form.file.file.read()

    assert (content, form.file.size_bytes) == (data, len(data))
    assert form.file.sha256 == sha256(data).hexdigest()
    assert (form.fields, form.file.name) == ({"file_name": "adapter.bin"}, "x.bin")


async def test_file_on_disk_has_no_name_and_ends_with_the_request(
    forms: Forms, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        form = await read(forms, stack, part("file", b"x" * 2_000_000, "x") + END)
        assert list((tmp_path / "uploads").iterdir()) == []

    assert form.file is not None
    assert form.file.file.closed


async def test_file_over_the_limit_is_refused_before_its_end(forms: Forms) -> None:
    with ExitStack() as stack:
        reader = forms.open(stack, TYPE)
        await reader.feed(part("file", b"x" * 2_900_000, "x")[:-2])

        with pytest.raises(PayloadTooLargeError, match="3 MB"):
            await reader.feed(b"x" * 200_000)


def test_place_of_an_upload_is_free_again_after_it(forms: Forms) -> None:
    with ExitStack() as first, ExitStack() as second, ExitStack() as third:
        forms.open(first, TYPE)
        forms.open(second, TYPE)
        with pytest.raises(ServerOverloadedError, match="2 files"):
            forms.open(third, TYPE)

        first.close()

        forms.open(third, TYPE)


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"]
)
def test_what_is_no_form_is_refused(forms: Forms, kind: str) -> None:
    with ExitStack() as stack, pytest.raises(InvalidRequestError, match="multipart/form-data"):
        forms.open(stack, kind)


async def test_form_without_a_file_has_none(forms: Forms) -> None:
    with ExitStack() as stack:
        form = await read(forms, stack, part("file_name", b"a") + END)

    assert form.file is None


@pytest.mark.parametrize("count", [0, 10, 100])
async def test_form_that_breaks_off_is_refused(forms: Forms, count: int) -> None:
    body = part("file", b"hello" * 20, "x") + END

    with ExitStack() as stack, pytest.raises(InvalidRequestError, match="breaks off"):
        await read(forms, stack, body[:count])


@given(body=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_whatever_comes_is_read_or_refused(forms: Forms, body: bytes) -> None:
    with ExitStack() as stack:
        try:
            form = await read(forms, stack, b"--frontier\r\n" + body)
        except InvalidRequestError:
            return
        assert b"--frontier--" in body
        assert form.file is None or form.file.size_bytes <= len(body)


class FullDisk(io.BytesIO):
    """A file that takes nothing any more."""

    def write(self, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/where/nobody/may/look")


async def test_full_disk_is_an_error_with_its_reason_and_without_a_path() -> None:
    reader = FormReader(FullDisk, b"frontier", max_bytes=100, file_field="file")
    await reader.feed(part("file", b"hello", "x") + END)

    with pytest.raises(StorageError, match="No space left on device") as raised:
        await reader.end()

    assert "/where" not in raised.value.message


async def test_folder_that_cannot_be_made_is_an_error_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    forms = Forms(tmp_path / "file" / "folder", max_bytes=1, max_uploads=1, timeout_s=5)

    with ExitStack() as stack, pytest.raises(StorageError, match="Not a directory") as raised:
        forms.open(stack, TYPE)
    with ExitStack() as stack, pytest.raises(StorageError):
        forms.open(stack, TYPE)  # the place that it took is free again

    assert str(tmp_path) not in raised.value.message


async def test_file_of_a_form_is_the_part_that_is_asked_for(tmp_path: Path) -> None:
    forms = Forms(tmp_path, max_bytes=99, max_uploads=1, timeout_s=5, file_field="data")

    with ExitStack() as stack:
        form = await read(forms, stack, part("data", b"hello") + END)
        assert form.file is not None
        assert (form.file.size_bytes, form.file.name, form.file.media_type) == (5, "", "")
    with ExitStack() as stack, pytest.raises(InvalidRequestError, match="'data', got 'file'"):
        await read(forms, stack, part("file", b"hello", "x") + END)


async def test_form_says_what_its_file_is(forms: Forms) -> None:
    head = 'form-data; name="file"; filename="x"\r\nContent-Type: text/plain; charset=utf-8'
    body = f"--frontier\r\nContent-Disposition: {head}\r\n\r\nhello\r\n".encode()
    other = part("purpose", b"vision").replace(b"\r\n\r\n", b"\r\nContent-Type: a/b\r\n\r\n", 1)

    with ExitStack() as stack:
        form = await read(forms, stack, other + body + other + END)

    assert form.file is not None
    assert form.file.media_type == "text/plain; charset=utf-8"


@pytest.fixture
def many(tmp_path: Path) -> Forms:
    return Forms(
        tmp_path / "uploads",
        max_bytes=3_000_000,
        max_uploads=2,
        timeout_s=5,
        file_field="files",
        max_files=3,
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    contents=st.lists(
        st.binary(max_size=100).filter(lambda data: b"--frontier" not in data), max_size=3
    ),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
)
async def test_files_of_a_form_are_apart_and_in_order(
    many: Forms, contents: list[bytes], cuts: list[int]
) -> None:
    parts = [part("files", data, f"{number}.bin") for number, data in enumerate(contents)]
    body = b"".join([*parts, part("conversionOptions", b"{}"), END])

    with ExitStack() as stack:
        form = await read(many, stack, body, *cuts)
        found = []
        for file in form.files:
            file.file.seek(0)
            found.append((file.name, file.file.read()))
            assert file.sha256 == sha256(found[-1][1]).hexdigest()

    assert found == [(f"{number}.bin", data) for number, data in enumerate(contents)]


async def test_form_with_a_file_too_many_is_refused(many: Forms) -> None:
    with ExitStack() as stack, pytest.raises(InvalidRequestError, match="over 3 files"):
        await read(many, stack, part("files", b"x", "x") * 4 + END)


async def test_files_over_the_limit_together_are_refused(many: Forms) -> None:
    with ExitStack() as stack, pytest.raises(PayloadTooLargeError, match="3 MB"):
        await read(many, stack, part("files", b"x" * 1_600_000, "x") * 2 + END)
