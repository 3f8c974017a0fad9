from __future__ import annotations

import pytest

from openworks.converters.html import read
from openworks.core.errors import InvalidRequestError
from tests.unit.converters.sources import text_of

PAGE = """<!DOCTYPE html><html><head><title>Wasser &amp; Eis</title>
<meta name="description" content='Was "kocht"?'><meta property="og:image" content="/a.png">
<style>p { color: red }</style></head><body><header>Menu</header>
<script type="application/ld+json">{"@type": "Thing"}</script><script>alert(1)</script>
<main><h1>Wasser</h1><p>Es <b>kocht</b> bei <i>100</i> Grad, siehe <a href="hier.html">hier</a>.
<ul><li>Eis<li>Dampf</ul><table><tr><th>a<th>b|c<tr><td>1<td>2</table>
<img src="data:image/png;base64,AAAA" alt="Ein Punkt"><pre>x = 1</pre></main>
<footer>Impressum</footer></body></html>"""


def page(html: str = PAGE, **options: str) -> str:
    return text_of(read, "a.html", html.encode(), **options)


def test_page_says_what_it_is_and_what_it_shows() -> None:
    text = page()

    assert text.startswith(
        '---\ntitle: "Wasser & Eis"\ndescription: "Was \\"kocht\\"?"\nog:image: "/a.png"\n---\n'
    )
    assert "# Wasser\n" in text
    assert "Es **kocht** bei *100* Grad, siehe [hier](hier.html)." in text
    assert "- Eis\n- Dampf\n" in text
    assert "| a | b\\|c |\n| --- | --- |\n| 1 | 2 |\n" in text
    assert "```\nx = 1\n```" in text
    assert text.endswith('```json\n{"@type": "Thing"}\n```\n')


@pytest.mark.parametrize("hidden", ["Menu", "Impressum", "alert", "color: red", "base64"])
def test_frame_of_a_page_its_code_and_its_pictures_are_left_out(hidden: str) -> None:
    assert hidden in PAGE
    assert hidden not in page()


def test_picture_in_a_page_is_what_it_is_called() -> None:
    assert "Ein Punkt" in page()


@pytest.mark.parametrize(
    ("head", "base_url", "link"),
    [
        ("", "https://example.com/", "https://example.com/x"),
        ('<base href="https://other.example/y/">', None, "https://other.example/x"),
        ('<base href="/docs/">', "https://example.com/", "https://example.com/x"),
        ('<base href="https://other.example">', "https://example.com/", "https://other.example/x"),
        ("", None, "/x"),
    ],
)
def test_links_are_relative_to_what_the_page_says_and_else_to_the_host(
    head: str, base_url: str | None, link: str
) -> None:
    html = f'<head>{head}<base href="https://second.example"></head><a href="/x">x</a>'
    if not head:
        html = html.replace('<base href="https://second.example">', "")
    options = {} if base_url is None else {"base_url": base_url}

    assert f"[x]({link})" in page(html, **options)


def test_selector_chooses_elements_once_each_with_the_frame_if_wanted() -> None:
    html = "<header><p>top</header><div><p class=a>one <span class=a>in</span><p>two</div>"

    assert page(html, css_selector=".a") == "one in\n\n"
    assert page(html, css_selector="p") == "top\n\none in\n\ntwo\n\n"
    assert page(html, css_selector="h6") == ""


def test_selector_that_is_none_is_an_error_of_the_request() -> None:
    with pytest.raises(InvalidRequestError, match="'p::' is no CSS selector") as caught:
        page(css_selector="p::")

    assert caught.value.param == "html.cssSelector"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "shift_jis", "windows-1251"])
def test_page_is_decoded_as_it_declares(encoding: str) -> None:
    word = "水" if encoding == "shift_jis" else "вода"
    html = f'<html><head><meta charset="{encoding}"></head><body><p>{word}</body></html>'

    assert text_of(read, "a.htm", html.encode(encoding)) == f"{word}\n\n"


def test_page_that_declares_nothing_and_is_not_utf_8_is_western() -> None:
    assert text_of(read, "a.htm", "<p>größe".encode("windows-1252")) == "größe\n\n"
