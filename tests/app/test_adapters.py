from __future__ import annotations

import json
from pathlib import Path

from tests.adapters import TINY_CHAT, adapter_config, write_adapter
from tests.app.command import Command


def add(
    command: Command, folder: Path, *options: str | Path, name: str = "pirate"
) -> dict[str, object]:
    output = command.run(
        "adapters", "add", folder, "--model", TINY_CHAT, "--name", name, "--json", *options
    )
    assert output.status == 0, output.err
    found: dict[str, object] = json.loads(output.out)
    return found


def test_adapter_is_added_listed_and_removed(command: Command, tmp_path: Path) -> None:
    made = add(command, write_adapter(tmp_path / "mine"))

    assert (made["model"], made["state"]) == (f"{TINY_CHAT}+pirate", "ready")
    assert f"{TINY_CHAT}+pirate" in command.run("adapters", "list").out
    assert json.loads(command.run("adapters", "list", "--json").out) == [made]

    removed = command.run("adapters", "rm", "pirate")

    assert removed.out == f"Removed {TINY_CHAT}+pirate.\n"
    assert json.loads(command.run("adapters", "list", "--json").out) == []
    assert "No adapters" in command.run("adapters", "list").out


def test_adapter_belongs_to_its_account(command: Command, tmp_path: Path) -> None:
    add(command, write_adapter(tmp_path / "mine"), "--account", "acme", "--public")

    assert json.loads(command.run("adapters", "list", "--json").out) == []
    listed = json.loads(command.run("adapters", "list", "--account", "acme", "--json").out)
    assert [item["state"] for item in listed] == ["public"]
    assert command.run("adapters", "rm", "pirate").status == 1


def test_adapter_that_is_refused_leaves_nothing(command: Command, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "mine")
    (folder / "adapter_config.json").write_bytes(adapter_config(use_dora=True))

    output = command.run("adapters", "add", folder, "--model", TINY_CHAT, "--name", "x")

    assert (output.status, "'use_dora'" in output.err) == (1, True)
    assert json.loads(command.run("adapters", "list", "--json").out) == []


def test_missing_file_is_named(command: Command, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "mine")
    (folder / "adapter_model.safetensors").unlink()

    output = command.run("adapters", "add", folder, "--model", TINY_CHAT, "--name", "x")

    assert output.status == 1
    assert "adapter_model.safetensors" in output.err.replace("\n", "")
    assert json.loads(command.run("adapters", "list", "--json").out) == []
