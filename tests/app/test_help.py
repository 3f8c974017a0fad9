from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from openworks import __version__
from openworks.app.cli.main import app
from tests.app.command import Command

REFERENCE = Path(__file__).parents[2] / "docs/reference/cli.md"
QUICK_MODULES = (
    "sqlalchemy",
    "openai",
    "huggingface_hub",
    "xllamacpp",
    "starlette",
    "rich.progress",
)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in group.commands.items():
        if hasattr(inner, "commands"):
            yield from commands(inner, (*path, name))
        else:
            yield (*path, name), inner


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_each_option(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], terminal_width=100)

    assert result.exit_code == 0
    assert all(parameter.help for parameter in COMMANDS[path].params), path
    assert COMMANDS[path].help.split(".")[0].split("\n")[0] in result.output.replace("\n", " ")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_reference_has_every_command_and_option(path: tuple[str, ...]) -> None:
    title = f"## openworks {' '.join(path)}\n"
    sections = re.split(r"(?m)^(?=## )", REFERENCE.read_text(encoding="utf-8"))
    section = next((part for part in sections if part.startswith(title)), None)

    assert section is not None, title
    options = {
        option
        for parameter in COMMANDS[path].params
        for option in parameter.opts
        if option.startswith("--")
    }
    common = {"--help", "--config", "--data-dir"}  # told once, for all of them
    assert {option for option in options - common if f"`{option}" not in section} == set()
    told = set(re.findall(r"(?m)^\| `(--[a-z-]+)", section))
    assert told <= options


def test_defaults_show_in_the_help() -> None:
    result = CliRunner().invoke(app, ["serve", "--help"], terminal_width=200)

    assert "[default: 8080]" in result.output


def test_without_a_command_it_shows_the_help() -> None:
    result = CliRunner().invoke(app, [])

    assert "serve" in result.output
    assert "doctor" in result.output


def test_version_prints_the_version(command: Command) -> None:
    output = command.run("version")

    assert (output.status, output.out) == (0, f"{__version__}\n")


def test_version_imports_nothing_heavy(command: Command) -> None:
    output = command.run("version", PYTHONPROFILEIMPORTTIME="1")

    imported = {line.rpartition("|")[2].strip() for line in output.err.splitlines()}
    assert imported
    assert not imported & set(QUICK_MODULES)
