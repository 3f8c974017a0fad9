from __future__ import annotations

import json

import pytest
from openai import NotFoundError, OpenAI

from tests.app.command import Command, Serving


@pytest.fixture(scope="module", autouse=True)
def _calls(serving: Serving) -> None:
    """One call that works and one that does not."""
    with OpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0) as client:
        client.chat.completions.create(
            model="nonsense", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
        with pytest.raises(NotFoundError):
            client.chat.completions.create(
                model="unknown", messages=[{"role": "user", "content": "Hi"}]
            )


@pytest.mark.parametrize("by", ["model", "account", "key", "day", "route"])
def test_calls_add_up_by_every_group(shared: Command, by: str) -> None:
    rows = json.loads(shared.run("usage", "--by", by, "--json").out)

    assert sum(row["calls"] for row in rows) == 2
    assert sum(row["errors"] for row in rows) == 1
    assert sum(row["completion_tokens"] for row in rows) == 4


def test_the_table_has_a_row_for_each_and_a_total(shared: Command) -> None:
    lines = shared.run("usage").out.splitlines()

    assert [line.split()[0] for line in lines] == ["MODEL", "nonsense", "unknown", "total"]


def test_since_leaves_out_what_was_before(shared: Command) -> None:
    recent = json.loads(shared.run("usage", "--since", "1h", "--json").out)
    later = shared.run("usage", "--since", "2099-01-01")

    assert sum(row["calls"] for row in recent) == 2
    assert later.out == "No calls since 2099-01-01.\n"
