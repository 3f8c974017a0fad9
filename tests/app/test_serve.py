from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from openai import OpenAI

from tests.app.command import Command, Serving


def ask(url: str, key: str = "none") -> str:
    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}], max_tokens=3
        )
    return answer.model


def test_serve_answers_as_openai_does(serving: Serving) -> None:
    assert ask(serving.url) == "nonsense"


def test_the_banner_says_what_is_served_and_how_to_ask(serving: Serving, shared: Command) -> None:
    assert "Chat        nonsense" in serving.banner
    assert f"curl {serving.url}/v1/chat/completions" in serving.banner
    assert "open to this machine" in serving.banner
    assert str(shared.folder / ".openworks") in serving.banner
    assert "demonstration" not in serving.banner


def test_the_example_of_the_banner_runs(serving: Serving) -> None:
    example = serving.banner[serving.banner.index("curl") :]

    done = subprocess.run(
        ["bash", "-c", example.replace("curl ", "curl --silent --fail ", 1)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert '"chat.completion"' in done.stdout


def test_the_embedded_model_is_called_a_demonstration_once(command: Command) -> None:
    with command.serve() as serving:
        assert serving.banner.count("tiny demonstration model") == 1
        assert "openworks serve --model Qwen/Qwen3-0.6B-GGUF" in serving.banner


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_and_nothing_lost(
    command: Command, weights: Path, number: signal.Signals
) -> None:
    with command.serve("--model", weights) as serving:
        ask(serving.url)
        assert serving.stop(number) == 0

    assert "Traceback" not in (command.folder / "serve.err").read_text()
    assert '"calls": 1' in command.run("usage", "--json").out


def test_it_does_not_listen_to_others_without_a_key(command: Command, weights: Path) -> None:
    output = command.run("serve", "--host", "0.0.0.0", "--port", "0", "--model", weights)

    assert output.status == 1
    assert "Refusing to listen on 0.0.0.0" in output.err
    assert "openworks keys create --name me" in output.err


def test_it_listens_to_others_with_an_access_token(command: Command, weights: Path) -> None:
    with command.serve(
        "--host", "0.0.0.0", "--model", weights, OPENWORKS_ACCESS_TOKEN="secret-of-mine"
    ) as serving:
        url = serving.url.replace("0.0.0.0", "127.0.0.1")
        assert f"curl {url}/v1/chat/completions -H 'Authorization" in serving.banner
        assert "secret-of-mine" not in serving.banner
        assert ask(url, "secret-of-mine") == "nonsense"


def test_a_taken_port_is_named_with_another(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = command.run("serve", "--port", str(port))

    assert output.status == 1
    assert f"Port {port} on 127.0.0.1 is in use" in output.err
    assert f"openworks serve --port {port + 1}" in output.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "missing.gguf"], "There is no file missing.gguf."),
        (["--model", "./nope.gguf"], "There is no file nope.gguf."),
        (["--model", "../nowhere/nope"], "There is no file ../nowhere/nope."),
        (["--model", "a--b/c"], "A Hub repository is named `owner/name`, got 'a--b/c'."),
        (["--model", "gpt-9"], "No model found with name 'gpt-9'"),
        (["--model", "acme/model-GGUF"], "could not be reached"),
        (["--model", "junk.gguf"], "is not a readable GGUF file"),
        (["--host", "192.0.2.1"], "192.0.2.1 is not an address of this machine"),
        (["--data-dir", "/dev/null/x"], "Cannot make the data folder /dev/null/x"),
    ],
)
def test_what_cannot_work_is_one_line_and_status_1(
    command: Command, arguments: list[str], expected: str
) -> None:
    (command.folder / "junk.gguf").write_bytes(b"junk")

    output = command.run("serve", "--port", "0", *arguments)

    assert output.status == 1
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert output.err.startswith("Error: ")
    assert expected in output.err


def test_weights_that_do_not_load_end_it_with_the_reason(command: Command, weights: Path) -> None:
    (command.folder / "half.gguf").write_bytes(weights.read_bytes()[:-20_000])

    output = command.run("serve", "--port", "0", "--model", "half.gguf")

    assert output.status == 1
    assert "Error: Model 'half' cannot be loaded" in output.err.splitlines()[-1]
    assert "Traceback" not in output.err


def test_files_of_the_same_name_are_refused_with_both_paths(
    command: Command, weights: Path
) -> None:
    paths = [command.folder / folder / "x.gguf" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(weights.read_bytes())

    output = command.run(
        *("serve", "--port", "0", "--model", "a/x.gguf", "--model", "./a/x.gguf"),
        *("--model", "b/x.gguf"),
    )

    assert output.status == 1
    assert output.err == (
        f"Error: Two models would both be served as 'x': {paths[0]} and {paths[1]}. "
        "Rename one of them.\n"
    )


def test_links_and_folders_are_served_under_their_own_names(
    command: Command, weights: Path
) -> None:
    (command.folder / "0a1b2c").write_bytes(weights.read_bytes())  # a blob of the Hub's cache
    (command.folder / "linked.gguf").symlink_to("0a1b2c")
    (command.folder / "Qwen2.5-0.5B").mkdir()
    (command.folder / "Qwen2.5-0.5B" / "model.gguf").write_bytes(weights.read_bytes())
    (command.folder / "openworks.toml").write_text('models = ["linked.gguf", "Qwen2.5-0.5B"]')

    output = command.run("models", "list", "--json")

    assert output.status == 0, output.err
    assert {"linked", "Qwen2.5-0.5B"} <= {row["id"] for row in json.loads(output.out)}


def test_data_folder_may_have_a_question_mark(command: Command) -> None:
    assert command.run("keys", "list", "--data-dir", "q?x").status == 0

    assert [path.name for path in command.folder.iterdir()] == ["q?x"]
    assert (command.folder / "q?x" / "openworks.db").is_file()


def test_database_that_is_none_is_named(command: Command) -> None:
    path = command.folder / "data" / "openworks.db"
    path.parent.mkdir()
    path.write_bytes(b"not a database, " * 500)

    output = command.run("serve", "--port", "0", "--data-dir", path.parent)

    assert output.status == 1
    assert output.err == f"Error: The database {path} failed: file is not a database.\n"


@pytest.mark.parametrize("name", ["serve", "doctor"])
def test_an_unknown_setting_in_the_file_is_named(command: Command, name: str) -> None:
    (command.folder / "openworks.toml").write_text("[server]\nprot = 1\n")

    output = command.run(name)

    assert output.status == 1
    assert "Unknown setting 'server.prot'. Did you mean 'port'?" in output.out + output.err


def test_a_wrong_value_in_the_file_is_named_with_what_was_expected(command: Command) -> None:
    (command.folder / "mine.toml").write_text('[server]\nport = "many"\n')

    output = command.run("serve", "--config", "mine.toml")

    assert output.status == 1
    assert "'server.port' cannot be 'many'" in output.err
    assert "integer" in output.err


def test_an_empty_access_token_is_refused_before_it_locks_everybody_out(command: Command) -> None:
    output = command.run("serve", "--port", "0", OPENWORKS_ACCESS_TOKEN="")

    assert output.status == 1
    assert "Setting 'access.token' cannot be empty" in output.err


def test_an_unknown_setting_in_the_environment_is_named(command: Command) -> None:
    output = command.run("serve", OPENWORKS_ENGINES__MAX_QUEU="3")

    assert output.status == 1
    assert "Unknown setting 'engines.max_queu'. Did you mean 'max_queue'?" in output.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--prot", "1"], "--port"),
        (["--port", "many"], "--port"),
        (["--port", "99999"], "65535"),
        (["--log-level", "loud"], "warning"),
    ],
)
def test_a_wrong_flag_is_named_with_what_was_expected(
    command: Command, arguments: list[str], expected: str
) -> None:
    output = command.run("serve", *arguments)

    assert output.status == 2
    assert arguments[0] in output.err
    assert expected in output.err


def test_flags_win_over_the_environment_and_that_over_the_file(
    command: Command, weights: Path
) -> None:
    (command.folder / "openworks.toml").write_text('data_dir = "of-file"\nmodels = ["no.gguf"]\n')

    with command.serve("--model", weights, OPENWORKS_DATA_DIR="of-environment") as serving:
        assert str(command.folder / "of-environment") in serving.banner
        assert "Chat        nonsense" in serving.banner
