from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.converters.tables import read_csv, table_lines
from tests.unit.converters.sources import text_of

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=5
        )
    )
)
def test_every_line_of_a_table_has_all_its_cells(rows: list[list[str]]) -> None:
    lines = list(table_lines(rows))

    assert len(lines) == len(rows) + 1
    width = len(rows[0])
    for line in lines:
        assert line.endswith("|\n")
        assert len(re.findall(r"(?<!\\)\|", line)) == width + 1


def test_short_rows_are_filled_and_long_ones_kept() -> None:
    assert list(table_lines([["a", "b"], ["1"], ["1", "2", "3"]])) == [
        "| a | b |\n",
        "| --- | --- |\n",
        "| 1 |  |\n",
        "| 1 | 2 | 3 |\n",
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_cells_are_apart_by_what_parts_the_first_line(delimiter: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(
        [["имя", "cena"], [f"a{delimiter} b", "3"], ["two\nlines", "4"]]
    )

    lines = text_of(read_csv, "a.csv", out.getvalue().encode()).splitlines()

    shown = delimiter.replace("|", "\\|").replace("\t", " ")
    assert lines[0] == "| имя | cena |"
    assert " ".join(lines[2].split()) == " ".join(f"| a{shown} b | 3 |".split())
    assert lines[3] == "| two lines | 4 |"


def test_name_says_that_cells_are_apart_by_tabs() -> None:
    assert text_of(read_csv, "a.tsv", b"a,b,c\td\n").startswith("| a,b,c | d |\n")


def test_empty_table_is_an_empty_text() -> None:
    assert text_of(read_csv, "a.csv", b"\n\n") == ""
