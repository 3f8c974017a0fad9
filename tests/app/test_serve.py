from __future__ import annotations

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
