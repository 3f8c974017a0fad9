"""The Python blocks of the documentation run against a server with its defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ServerProcess

ROOT = Path(__file__).parents[2]
FILES = [
    "README.md",
    "docs/guides/assistants.md",
    "docs/guides/batches.md",
    "docs/guides/documents.md",
    "docs/guides/files.md",
    "docs/guides/responses.md",
    "docs/tutorials/first-steps.md",
    "docs/tutorials/gateway.md",
]
# The SDK calls all of the Assistants API deprecated, in one of two ways.
WARNINGS = ("error", "ignore:deprecated", "ignore:The Assistants API is deprecated")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
DEFAULT_URL = "http://127.0.0.1:8080"


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{file}-{number}", block)
        for file in FILES
        for number, block in enumerate(BLOCK.findall((ROOT / file).read_text(encoding="utf-8")), 1)
    ]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = ServerProcess({}, tmp_path_factory.mktemp("server"))
    yield server.url
    server.stop()


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in blocks()])
def test_example_runs_and_prints_something(block: str, url: str) -> None:
    assert DEFAULT_URL in block
    run = subprocess.run(
        [
            sys.executable,
            *(f"-W{each}" for each in WARNINGS),
            "-c",
            block.replace(DEFAULT_URL, url),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


@pytest.mark.parametrize(
    "file",
    sorted(
        str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    ),
)
def test_links_between_documents_lead_somewhere(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / file).parent / target).exists(), f"{file} points at {target}"
