"""Documents for tests, good and harmful, made from nothing."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from zipfile import ZIP_DEFLATED, ZipFile

import docx
import pptx
import xlsxwriter
from pptx.util import Inches

_OFFICE = "http://schemas.openxmlformats.org"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How files of Office began before 2007, and those with a password do today."""


def pdf(
    pages: Sequence[str], *, info: Mapping[str, str] | None = None, encrypted: bool = False
) -> bytes:
    """Return a PDF with these pages, whose font knows no letter but says what each one means."""
    letters = sorted(set("".join(pages)) - {"\n"})
    codes = {letter: number for number, letter in enumerate(letters, 1)}
    mapped = "".join(
        f"<{codes[letter]:04x}> <{letter.encode('utf-16-be').hex()}>\n" for letter in letters
    )
    unicode_map = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        "1 begincodespacerange <0000> <ffff> endcodespacerange\n"
        f"{len(letters)} beginbfchar\n{mapped}endbfchar\nendcmap end end"
    )
    kids = " ".join(f"{6 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Any /Encoding /Identity-H "
        b"/DescendantFonts [4 0 R] /ToUnicode 5 0 R >>",
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Any /DW 600 "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>",
        stream(unicode_map.encode()),
    ]
    for number, page in enumerate(pages):
        lines = (
            "<" + "".join(f"{codes[letter]:04x}" for letter in line) + "> Tj T*"
            for line in page.split("\n")
        )
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {7 + 2 * number} 0 R "
            "/Resources << /Font << /F 3 0 R >> >> >>".encode(),
            stream(("BT /F 12 Tf 14 TL 50 700 Td " + " ".join(lines) + " ET").encode()),
        ]
    trailer = ""
    if info is not None:
        entries = " ".join(f"/{name} ({value})" for name, value in info.items())
        objects.append(f"<< {entries} >>".encode())
        trailer += f" /Info {len(objects)} 0 R"
    if encrypted:
        secret = "00" * 32
        objects.append(
            f"<< /Filter /Standard /V 1 /R 2 /P -1 /O <{secret}> /U <{secret}> >>".encode()
        )
        trailer += f" /Encrypt {len(objects)} 0 R /ID [<00> <00>]"
    return assembled(objects, trailer)


def stream(data: bytes, extra: str = "") -> bytes:
    """Return an object of a PDF that holds bytes."""
    return f"<< /Length {len(data)}{extra} >>\nstream\n".encode() + data + b"\nendstream"


def assembled(objects: Sequence[bytes], trailer: str = "") -> bytes:
    """Return a PDF of these objects, the first of which is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R{trailer} >>\n".encode()
    return bytes(out + f"startxref\n{start}\n%%EOF\n".encode())


def pdf_bomb(size_bytes: int) -> bytes:
    """Return a PDF whose one page is packed many times over, and unpacks to spaces."""
    data = zlib.compress(b" " * size_bytes, 9)
    for _ in range(2):
        data = zlib.compress(data, 9)
    filters = " /Filter [" + "/FlateDecode " * 3 + "]"
    return assembled(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R >>",
            stream(data, filters),
        ]
    )


def word() -> bytes:
    """Return a document of Word: a heading, a paragraph, lists, a table, a link's text."""
    document = docx.Document()
    document.add_heading("Записка", 1)
    document.add_paragraph("Привет, мир.")
    for line in ("яблоко", "груша"):
        document.add_paragraph(line, style="List Bullet")
    table = document.add_table(2, 2)
    for row, cells in zip(table.rows, (("Name", "a|b"), ("苹果", "3")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    return saved(document)


def slides() -> bytes:
    """Return a presentation of two slides: with notes and levels, with a table."""
    show = pptx.Presentation()
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "Wasser"
    first.placeholders[1].text = "Es kocht\nbei 100 Grad"
    first.placeholders[1].text_frame.paragraphs[1].level = 1
    first.notes_slide.notes_text_frame.text = "Langsam sprechen"
    second = show.slides.add_slide(show.slide_layouts[5])
    second.shapes.title.text = "水"
    table = second.shapes.add_table(2, 2, *[Inches(1)] * 4).table
    table.cell(0, 0).text, table.cell(1, 1).text = "A", "猫"
    return saved(show)


def workbook(rows: Sequence[Sequence[object]], *, sheet: str = "Zahlen") -> bytes:
    """Return a workbook with one sheet."""
    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as book:
        written = book.add_worksheet(sheet)
        date = book.add_format({"num_format": "yyyy-mm-dd"})
        for number, row in enumerate(rows):
            for column, cell in enumerate(row):
                written.write(number, column, cell, *([date] if hasattr(cell, "year") else []))
    return out.getvalue()


def odt(body: str, *, manifest: str = "<manifest/>") -> bytes:
    """Return an OpenDocument text with this content."""
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "text", "table")
    )
    content = (
        f"<office:document-content {names}><office:body><office:text>{body}"
        "</office:text></office:body></office:document-content>"
    )
    return archive(
        {
            "mimetype": b"application/vnd.oasis.opendocument.text",
            "META-INF/manifest.xml": manifest.encode(),
            "content.xml": content.encode(),
        }
    )


def archive(parts: Mapping[str, bytes]) -> bytes:
    """Return a packed archive."""
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return out.getvalue()


def word_around(document: bytes) -> bytes:
    """Return a document of Word whose XML is this."""
    relation = f"{_OFFICE}/officeDocument/2006/relationships/officeDocument"
    types = f"{_OFFICE}/package/2006/content-types"
    return archive(
        {
            "[Content_Types].xml": f'<Types xmlns="{types}"/>'.encode(),
            "_rels/.rels": (
                f'<Relationships xmlns="{_OFFICE}/package/2006/relationships"><Relationship '
                f'Id="r1" Type="{relation}" Target="word/document.xml"/></Relationships>'
            ).encode(),
            "word/document.xml": document,
        }
    )


def word_text(text: str, *, doctype: str = "") -> bytes:
    """Return a document of Word that says one thing, after a declaration of its own."""
    names = f'xmlns:w="{_OFFICE}/wordprocessingml/2006/main"'
    return word_around(
        f"{doctype}<w:document {names}><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body>"
        "</w:document>".encode()
    )


def laughs() -> str:
    """Return entities that multiply to a billion."""
    entities = ['<!ENTITY e0 "ha">']
    entities += [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10)]
    return f"<!DOCTYPE x [{''.join(entities)}]>"


def saved(document: docx.document.Document | pptx.presentation.Presentation) -> bytes:
    """Return a document's file."""
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()
