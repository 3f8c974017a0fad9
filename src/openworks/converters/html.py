"""Web pages as Markdown: lxml parses, Beautiful Soup selects, markdownify writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import urljoin

from bs4 import BeautifulSoup, Tag
from bs4.dammit import EncodingDetector
from markdownify import ATX, MarkdownConverter
from soupsieve.util import SelectorSyntaxError

from openworks.converters.source import Piece, Source
from openworks.core.errors import InvalidRequestError

_PARSER: Final = "lxml"
_IGNORED: Final = ("script", "style", "noscript", "template", "iframe", "object", "svg")
_FRAME: Final = ("head", "header", "footer")
_META: Final = ("description", "og:title", "og:description", "og:image")
_LINKS: Final = (("a", "href"), ("img", "src"))


def read(source: Source) -> Iterator[Piece]:
    """Yield what a page says of itself, what it shows, and its JSON-LD."""
    soup = BeautifulSoup(_decoded(source.file.read()), _PARSER)
    about, linked = _about(soup), _linked_data(soup)
    base = urljoin(source.options.base_url or "", _attribute(soup.find("base", href=True), "href"))
    for tag in soup(_IGNORED):
        tag.decompose()
    if base:
        _resolve(soup, base)
    yield Piece(_front_matter(about))
    for tag in _wanted(soup, source.options.css_selector):
        yield Piece(markdown(tag))
    for data in linked:
        yield Piece(f"```json\n{data}\n```\n")


def markdown(root: Tag) -> str:
    """Return Markdown that ends with a line's end, or nothing."""
    for image in root("img"):
        # Pictures that lie in the page are bytes, which nobody reads.
        if _attribute(image, "src").startswith("data:"):
            image.replace_with(_attribute(image, "alt"))
    text = str(
        _Writer(
            heading_style=ATX,
            bullets="-",
            strong_em_symbol="*",
            escape_asterisks=False,
            escape_underscores=False,
            table_infer_header=True,
        ).convert_soup(root)
    ).strip()
    return f"{text}\n\n" if text else ""


class _Writer(MarkdownConverter):
    """Writes cells that stay one cell."""

    def convert_td(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        cell = text.replace("|", "\\|")
        return str(super().convert_td(el, cell, parent_tags))  # type: ignore[misc]  # not in its stub

    def convert_th(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        cell = text.replace("|", "\\|")
        return str(super().convert_th(el, cell, parent_tags))  # type: ignore[misc]  # not in its stub


def parsed(html: str) -> BeautifulSoup:
    """Return HTML as a tree."""
    return BeautifulSoup(html, _PARSER)


def _decoded(data: bytes) -> str:
    """Decode a page by its byte order mark, else as UTF-8, else as it declares."""
    data, marked = EncodingDetector.strip_byte_order_mark(data)
    for encoding in (marked, "utf-8", EncodingDetector.find_declared_encoding(data, is_html=True)):
        try:
            if encoding:
                return data.decode(encoding)
        except (LookupError, UnicodeDecodeError):
            continue
    return data.decode("windows-1252", errors="replace")


def _about(soup: BeautifulSoup) -> dict[str, str]:
    title = soup.title
    found = {"title": "" if title is None else title.get_text()}
    for tag in soup("meta"):
        name = _attribute(tag, "name") or _attribute(tag, "property")
        if name in _META:
            found.setdefault(name, _attribute(tag, "content"))
    return {name: " ".join(value.split()) for name, value in found.items() if value.strip()}


def _front_matter(about: dict[str, str]) -> str:
    """Return YAML, whose strings JSON's are."""
    if not about:
        return ""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in about.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _linked_data(soup: BeautifulSoup) -> list[str]:
    found = (tag.get_text().strip() for tag in soup("script", type="application/ld+json"))
    return [text for text in found if text]


def _resolve(soup: BeautifulSoup, base: str) -> None:
    for name, attribute in _LINKS:
        for tag in soup(name):
            if link := _attribute(tag, attribute):
                tag[attribute] = urljoin(base, link)


def _wanted(soup: BeautifulSoup, selector: str | None) -> list[Tag]:
    """Return what is shown: what was selected, or all but the frame of a page."""
    if selector is None:
        for tag in soup(_FRAME):
            tag.decompose()
        return [soup]
    try:
        return _outermost(soup.select(selector))
    except SelectorSyntaxError as exc:
        reason = str(exc).splitlines()[0].rstrip(".")
        raise InvalidRequestError(
            f"{selector[:80]!r} is no CSS selector: {reason}.", param="html.cssSelector"
        ) from exc


def _outermost(tags: list[Tag]) -> list[Tag]:
    """Leave out what lies in another one, which is shown there."""
    chosen = {id(tag) for tag in tags}
    return [tag for tag in tags if not any(id(parent) in chosen for parent in tag.parents)]


def _attribute(tag: object, name: str) -> str:
    value = tag.get(name) if isinstance(tag, Tag) else None
    return value if isinstance(value, str) else ""
