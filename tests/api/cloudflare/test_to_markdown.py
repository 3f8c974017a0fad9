"""Documents as Markdown, through the official `cloudflare` client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from cloudflare import APIStatusError, BadRequestError, Cloudflare, PermissionDeniedError

from tests import documents
from tests.api.cloudflare.conftest import CloudflareFor
from tests.server import ServerProcess

FileTuple = tuple[str, bytes] | tuple[str, bytes, str]


def transform(
    cloudflare: Cloudflare, account: str, *files: FileTuple, options: object = None, **fields: str
) -> list[dict[str, Any]]:
    """Convert files; `ai.to_markdown.transform` of this version of the client cannot be called."""
    if options is not None:
        fields["conversionOptions"] = json.dumps(options)
    answer = cloudflare.post(
        f"/accounts/{account}/ai/tomarkdown",
        cast_to=httpx.Response,
        body=fields,
        files=[("files", file) for file in files],
        options={"headers": {"Content-Type": "multipart/form-data"}},
    )
    body = answer.json()
    assert (body["success"], body["errors"]) == (True, [])
    return list(body["result"])


def data_of(results: list[dict[str, Any]]) -> str:
    (result,) = results
    assert result["format"] == "markdown", result
    return str(result["data"])


def errors_of(error: APIStatusError) -> list[Mapping[str, Any]]:
    body: Any = error.body
    assert body["success"] is False
    return list(body["errors"])


def test_kinds_that_are_read_are_listed(cloudflare: Cloudflare, account: str) -> None:
    listed = list(cloudflare.ai.to_markdown.supported(account_id=account))

    kinds = {item.extension: item.mime_type for item in listed}
    assert len(kinds) == len(listed)
    assert kinds[".pdf"] == "application/pdf"
    assert kinds[".html"] == "text/html"
    assert kinds[".docx"].startswith("application/vnd.openxmlformats-officedocument")
    assert ".png" not in kinds


def test_files_of_one_form_are_converted_each_on_its_own(
    cloudflare: Cloudflare, account: str
) -> None:
    results = transform(
        cloudflare,
        account,
        ("good.html", b"<h1>Water</h1><p>It <b>boils</b>.", "text/html"),
        ("bad.pdf", b"%PDF-1.4 broken", "application/pdf"),
        ("cat.png", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("notes.txt", "größe".encode()),
    )

    good, bad, cat, notes = results
    assert re.fullmatch(r"doc_\w+", good.pop("id"))
    assert good == {
        "name": "good.html",
        "mimeType": "text/html",
        "format": "markdown",
        "tokens": 6,
        "data": "# Water\n\nIt **boils**.\n\n",
    }
    assert set(bad) == {"id", "name", "mimeType", "format", "error"}
    assert (bad["format"], bad["mimeType"]) == ("error", "application/pdf")
    assert "'bad.pdf' is broken" in bad["error"]
    assert (cat["format"], cat["mimeType"]) == ("error", "image/png")
    assert "'cat.png' is a picture" in cat["error"]
    assert notes["data"] == "größe"
    assert len({result["id"] for result in results if "id" in result}) == 3


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.docx", documents.word(), "- яблоко\n"),
        ("a.pptx", documents.slides(), "## 水\n"),
        ("a.xlsx", documents.workbook([["猫", 1]]), "| 猫 | 1 |\n"),
        ("a.odt", documents.odt("<text:p>größe</text:p>"), "größe\n"),
        ("a.csv", b"a;b\n1;2\n", "| 1 | 2 |\n"),
        ("a.json", b'{"a": "\\u732b"}', "猫"),
        ("a.py", b"def f(): ...\n", "def f(): ...\n"),
    ],
)
def test_every_kind_of_document_is_converted(
    cloudflare: Cloudflare, account: str, name: str, data: bytes, expected: str
) -> None:
    assert expected in data_of(transform(cloudflare, account, (name, data)))


def test_pdf_is_what_it_says_of_itself_and_its_pages(cloudflare: Cloudflare, account: str) -> None:
    made = documents.pdf(["Water boils", "苹果 水"], info={"Title": "On water"})

    whole = data_of(transform(cloudflare, account, ("a.pdf", made)))
    pages = data_of(
        transform(cloudflare, account, ("a.pdf", made), options={"pdf": {"metadata": False}})
    )

    assert pages == "### Page 1\nWater boils\n\n### Page 2\n苹果 水\n\n"
    assert whole == (
        "# a.pdf\n## Metadata\n- PDFFormatVersion=1.4\n- Title=On water\n\n\n## Contents\n" + pages
    )


def test_options_for_pages_are_honoured(cloudflare: Cloudflare, account: str) -> None:
    page = b'<header>top</header><p class="a"><a href="/x">x</a></p><p>rest'
    file = ("a.html", page, "text/html")

    assert data_of(
        transform(cloudflare, account, file, options={"html": {"hostname": "e.example"}})
    ).startswith("[x](https://e.example/x)")
    assert data_of(
        transform(
            cloudflare,
            account,
            file,
            options={"html": {"cssSelector": "header", "images": {"convert": False}}},
        )
    ) == ("top\n\n")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"html": {"images": {"convert": True}}}, "html.images.convert.*nothing here describes"),
        ({"pdf": {"images": {"convert": True}}}, "pdf.images.convert"),
        ({"html": {"images": {"convertOGImage": True}}}, "convertOGImage"),
        ({"image": {"descriptionLanguage": "xx"}}, "image.descriptionLanguage"),
        ({"html": {"cssSelector": "p::"}}, "'p::' is no CSS selector"),
        ({"html": {"hostname": "ftp://e.example"}}, "html.hostname"),
        ({"pdf": {"metadata": "yes"}}, "pdf.metadata"),
        ({"pdf": {"metdata": True}}, "pdf.metdata.*metadata"),
        ({"epub": {}}, "Unknown field 'epub'"),
        ([], "must be a JSON object"),
    ],
)
def test_option_that_cannot_be_honoured_is_named(
    cloudflare: Cloudflare, account: str, options: object, reason: str
) -> None:
    with pytest.raises(BadRequestError, match=reason) as caught:
        transform(cloudflare, account, ("a.html", b"<p>x"), options=options)

    assert errors_of(caught.value)[0]["code"] == 7001


def test_field_that_nobody_knows_is_named(cloudflare: Cloudflare, account: str) -> None:
    with pytest.raises(BadRequestError, match=r"'conversionoptions'.*'conversionOptions'"):
        transform(cloudflare, account, ("a.html", b"<p>x"), conversionoptions="{}")
    with pytest.raises(BadRequestError, match="'conversionOptions' is not valid JSON"):
        transform(cloudflare, account, ("a.html", b"<p>x"), conversionOptions="{")


def test_form_without_files_is_refused(cloudflare: Cloudflare, account: str) -> None:
    with pytest.raises(BadRequestError, match="'files'"):
        transform(cloudflare, account, options={})


@pytest.mark.parametrize("name", ["", ".."])
def test_file_without_a_good_name_is_refused(
    cloudflare: Cloudflare, account: str, name: str
) -> None:
    with pytest.raises(BadRequestError, match="files"):
        transform(cloudflare, account, (name, b"x", "text/plain"))


def test_another_account_is_refused(
    guarded_server: ServerProcess, cloudflare_for: CloudflareFor
) -> None:
    _, secret = guarded_server.make_key(account="mine")
    client = cloudflare_for(guarded_server, token=secret)

    assert data_of(transform(client, "mine", ("a.txt", b"x"))) == "x"
    with pytest.raises(PermissionDeniedError):
        transform(client, "other", ("a.txt", b"x"))
    with pytest.raises(PermissionDeniedError):
        client.ai.to_markdown.supported(account_id="other")


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with low limits on documents."""
    flags = {
        "documents.max_bytes": 10_000,
        "documents.max_files": 2,
        "documents.max_chars": 1_000,
    }
    process = ServerProcess(flags, tmp_path_factory.mktemp("small"))
    yield process
    assert process.stop() == 0


def test_limits_on_documents_hold(
    small_server: ServerProcess, cloudflare_for: CloudflareFor, account: str
) -> None:
    client = cloudflare_for(small_server)

    (result,) = transform(client, account, ("a.txt", b"x" * 1_001))
    assert "more than 1000 characters" in result["error"]
    with pytest.raises(APIStatusError, match=r"limit of 0\.01 MB") as caught:
        transform(client, account, ("a.txt", b"x" * 6_000), ("b.txt", b"x" * 6_000))
    assert caught.value.status_code == 413
    with pytest.raises(BadRequestError, match="over 2 files"):
        transform(client, account, *[("a.txt", b"x")] * 3)


def test_conversion_leaves_no_file_behind(
    cloudflare: Cloudflare, account: str, control_server: ServerProcess
) -> None:
    transform(cloudflare, account, ("a.txt", b"x"), ("b.txt", b"y"))

    assert list((control_server.settings.folder / "uploads").iterdir()) == []
