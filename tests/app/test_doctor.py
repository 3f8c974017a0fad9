from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.app.command import Command


def marks(output: str) -> dict[str, str]:
    return {finding["name"]: finding["mark"] for finding in json.loads(output)}


def test_a_healthy_machine_can_serve(command: Command, weights: Path) -> None:
    output = command.run("doctor", "--json", "--model", weights, OPENWORKS_SERVER__PORT="0")

    found = marks(output.out)
    assert output.status == 0, output.out
    for name in ("Python", "llama.cpp", "data folder", "database", "chat model", "port"):
        assert found[name] == "ok", output.out
    assert found["Hub"] == "off"
    assert found["keys"] == "off"


def test_the_embedded_models_load(command: Command) -> None:
    output = command.run("doctor")

    assert output.status == 0, output.out
    assert "@openworks/tiny-chat loads; first token after" in output.out
    assert "@openworks/tiny-embed loads; first vector after" in output.out
    assert "openworks can serve" in output.out


def test_a_model_that_does_not_load_makes_serving_impossible(
    command: Command, weights: Path
) -> None:
    (command.folder / "half.gguf").write_bytes(weights.read_bytes()[:-20_000])

    output = command.run("doctor", "--model", "half.gguf")

    assert output.status == 1
    assert "✗ chat model" in output.out
    assert "openworks cannot serve: see chat model above." in output.out


def test_a_data_folder_that_cannot_be_made_makes_serving_impossible(command: Command) -> None:
    output = command.run("doctor", "--json", "--data-dir", "/dev/null/x")

    assert output.status == 1
    assert marks(output.out)["data folder"] == "bad"


def test_a_database_that_is_none_makes_serving_impossible(command: Command) -> None:
    (command.folder / ".openworks").mkdir()
    (command.folder / ".openworks" / "openworks.db").write_bytes(b"no database" * 100)

    output = command.run("doctor", "--json")

    assert output.status == 1
    assert marks(output.out)["database"] == "bad"


def test_a_host_that_others_reach_needs_a_key(command: Command) -> None:
    open_to_all = command.run("doctor", "--json", OPENWORKS_SERVER__HOST="0.0.0.0")
    guarded = command.run(
        "doctor", "--json", OPENWORKS_SERVER__HOST="0.0.0.0", OPENWORKS_ACCESS_TOKEN="mine"
    )

    assert (open_to_all.status, marks(open_to_all.out)["keys"]) == (1, "bad")
    assert (guarded.status, marks(guarded.out)["keys"]) == (0, "ok")


def test_a_taken_port_is_no_obstacle(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = command.run("doctor", "--json", OPENWORKS_SERVER__PORT=str(port))

    assert output.status == 0
    assert marks(output.out)["port"] == "off"


def test_weights_that_are_elsewhere_are_not_fetched(command: Command) -> None:
    output = command.run("doctor", "--model", "acme/elsewhere-GGUF")

    assert output.status == 0
    assert "openworks models pull acme/elsewhere-GGUF" in output.out


def test_it_can_be_read_where_only_ascii_can_be_written(command: Command) -> None:
    output = command.run("doctor", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert output.status == 0, output.err
    assert output.out.isascii()
