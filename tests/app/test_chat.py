from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from tests.app.command import Command, Serving

PATIENCE_S = 60.0


def test_a_pipe_gets_one_answer_from_the_server_that_is_named(
    shared: Command, serving: Serving
) -> None:
    output = shared.run("chat", "--url", f"{serving.url}/v1", text="hi")

    assert output.status == 0
    assert output.err == ""
    assert "nonsense" in shared.run("usage").out


def test_without_a_server_one_is_started_for_the_answer(command: Command) -> None:
    (command.folder / "openworks.toml").write_text("[server]\nport = 9\n")

    output = command.run("chat", "--system", "You are kind.", text="hello")

    assert output.status == 0, output.err
    assert output.out.strip()
    assert "@openworks/tiny-chat" in command.run("usage").out


def test_its_own_server_takes_the_model_that_is_named(command: Command, weights: Path) -> None:
    (command.folder / "openworks.toml").write_text("[server]\nport = 9\n")

    output = command.run("chat", "--model", weights, text="hello")

    assert output.status == 0, output.err
    assert "nonsense" in command.run("usage").out


def test_its_own_server_works_beside_keys(command: Command) -> None:
    (command.folder / "openworks.toml").write_text("[server]\nport = 9\n")
    command.run("keys", "create", "--name", "me")

    output = command.run("chat", text="hello")

    assert output.status == 0, output.err


def test_a_server_that_wants_a_key_is_told_apart(command: Command, weights: Path) -> None:
    with command.serve("--model", weights, OPENWORKS_ACCESS_TOKEN="mine") as serving:
        url = f"{serving.url}/v1"
        without = command.run("chat", "--url", url, text="hi")
        with_key = command.run("chat", "--url", url, text="hi", OPENAI_API_KEY="mine")

    assert without.status == 1
    assert "asks for a key: pass --api-key, or set OPENAI_API_KEY" in without.err
    assert with_key.status == 0


def test_what_cannot_be_answered_is_one_line(shared: Command, serving: Serving) -> None:
    nowhere = shared.run("chat", "--url", "http://127.0.0.1:9/v1", text="hi")
    empty = shared.run("chat")
    unknown = shared.run("chat", "--url", f"{serving.url}/v1", "--model", "gpt-9", text="hi")

    for output, expected in ((nowhere, "openworks serve"), (empty, "empty"), (unknown, "'gpt-9'")):
        assert output.status == 1
        assert len(output.err.splitlines()) == 1
        assert expected in output.err


def test_in_a_terminal_it_talks_until_told_to_leave(shared: Command, serving: Serving) -> None:
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "openworks", "chat", "--url", f"{serving.url}/v1"]
    environment = {**os.environ, "HOME": str(shared.folder), "TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=side, stdout=side, stderr=side, cwd=shared.folder, env=environment
    ) as process:
        os.close(side)
        try:
            seen = read_until(terminal, "leaves.")
            assert "nonsense" in seen
            if "> " not in seen.partition("leaves.")[2]:  # the prompt may come with it, or after
                read_until(terminal, "> ")
            os.write(terminal, b"hello\n")
            read_until(terminal, "\r\n> ")
            os.write(terminal, b"/reset\n")
            read_until(terminal, "Forgotten.")
            os.write(terminal, b"/exit\n")
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            os.close(terminal)


def read_until(terminal: int, text: str) -> str:
    """Read what a program shows until it has shown `text`."""
    seen = ""
    end_s = time.monotonic() + PATIENCE_S
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(end_s - time.monotonic(), 0))
        assert ready, f"{text!r} did not come: {seen!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
