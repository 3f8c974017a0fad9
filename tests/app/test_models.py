from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.command import Command
from tests.hub_server import HubRepo, HubServer

REPO = "acme/nonsense-GGUF"


@pytest.fixture
def hub(weights: Path) -> Iterator[HubServer]:
    content = weights.read_bytes()
    files = {"nonsense-Q4_K_M.gguf": content, "nonsense-Q8_0.gguf": content + bytes(8)}
    with HubServer({REPO: HubRepo(files)}) as server:
        yield server


@pytest.fixture
def fetching(tmp_path: Path, hub: HubServer) -> Command:
    """The command line with a Hub that answers."""
    return Command(tmp_path, {"HF_ENDPOINT": hub.url})


def test_list_shows_what_can_be_served_and_the_defaults(command: Command) -> None:
    output = command.run("models", "list")

    assert output.status == 0
    assert "text-generation\n  @openworks/tiny-chat *" in output.out
    assert "@openworks/tiny-embed *" in output.out
    assert "@cf/" not in output.out


def test_list_all_shows_the_catalogue_with_what_is_here(command: Command) -> None:
    rows = json.loads(command.run("models", "list", "--all", "--json").out)
    table = command.run("models", "list", "--all").out

    known = {row["id"]: row for row in rows}
    assert known["@openworks/tiny-chat"]["here"] is True
    assert known["@openworks/tiny-chat"]["from"] == "this package"
    llama = known["@cf/meta/llama-3.1-8b-instruct"]
    assert (llama["here"], llama["task"], llama["context_tokens"]) == (
        False,
        "text-generation",
        131072,
    )
    assert all(row["id"] in table for row in rows)
    assert "unserved" in table


def test_list_includes_the_models_of_the_settings_and_fetches_none(
    command: Command, weights: Path
) -> None:
    models = json.dumps([str(weights), "acme/elsewhere-GGUF"])
    (command.folder / "openworks.toml").write_text(f"models = {models}\n")

    output = command.run("models", "list")

    assert output.status == 0
    assert "nonsense *" in output.out
    assert "elsewhere" not in output.out


def test_pull_brings_a_repository_that_list_shows_and_rm_removes(fetching: Command) -> None:
    pulled = fetching.run("models", "pull", REPO)

    assert pulled.status == 0
    assert "Fetching nonsense-Q4_K_M.gguf: 100% of" in pulled.err
    assert f"{REPO} is complete: " in pulled.out
    assert f"openworks serve --model {REPO}" in pulled.out
    assert REPO in fetching.run("models", "list").out

    removed = fetching.run("models", "rm", REPO)

    assert removed.out.startswith(f"Removed {REPO}, ")
    assert REPO not in fetching.run("models", "list").out
    assert fetching.run("models", "rm", REPO).err == (
        f"Error: Nothing of {REPO} is on this machine.\n"
    )


def test_pull_says_when_there_is_nothing_to_do(fetching: Command, hub: HubServer) -> None:
    fetching.run("models", "pull", REPO)
    seen = len(hub.downloads())

    output = fetching.run("models", "pull", REPO)

    assert output.status == 0
    assert f"{REPO} is complete already" in output.out
    assert len(hub.downloads()) == seen
    assert "tiny-chat is complete already" in fetching.run("models", "pull", "tiny-chat").out


def test_pull_goes_on_where_ctrl_c_stopped_it(fetching: Command, hub: HubServer) -> None:
    hub.repos[REPO].files["nonsense-Q4_K_M.gguf"] = bytes(8_000_000)
    hub.stalls_after = 5_000_000
    with fetching.started("models", "pull", REPO) as process:
        assert process.stderr is not None
        while not re.search(r": [5-9]\d%", process.stderr.readline()):
            pass  # until a half is here
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "Stopped; the same command goes on from here.\n"
        hub.go_on.set()  # a silent connection would be waited for until its own time is up
        assert process.wait(30) == 130
        assert process.stderr.read() == ""
    hub.stalls_after = None

    again = fetching.run("models", "pull", REPO)

    assert again.status == 0, again.err
    assert hub.downloads()[-1].range is not None


def test_a_quantisation_can_be_pulled_and_served(fetching: Command, hub: HubServer) -> None:
    name = f"{REPO}:Q8_0"

    pulled = fetching.run("models", "pull", name)

    assert pulled.status == 0, pulled.err
    assert "nonsense-Q8_0.gguf" in pulled.out
    seen = len(hub.seen)
    with fetching.serve("--model", name) as serving:
        assert f"Chat        {name}" in serving.banner
    assert len(hub.seen) == seen


def test_serve_fetches_what_is_missing(fetching: Command) -> None:
    with fetching.serve("--model", REPO) as serving:
        assert f"Chat        {REPO}" in serving.banner

    assert "Fetching nonsense-Q4_K_M.gguf: 100%" in (fetching.folder / "serve.err").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pull", f"{REPO}:Q2_K"], "has no GGUF file for 'Q2_K'"),
        (["pull", "acme/nothing"], "acme/nothing"),
        (["pull", "gpt-9"], "No model found with name 'gpt-9'"),
        (["pull", "@cf/openai/whisper"], "no engine of this release runs it yet"),
        (["rm", "tiny-chat"], "part of this package"),
        (["rm", f"{REPO}:Q8_0"], f"openworks models rm {REPO}"),
    ],
)
def test_what_cannot_be_done_with_models_is_one_line(
    fetching: Command, arguments: list[str], expected: str
) -> None:
    output = fetching.run("models", *arguments)

    assert output.status == 1
    assert len(output.err.splitlines()) == 1
    assert expected in output.err
