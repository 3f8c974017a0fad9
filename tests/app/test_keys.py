from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from pathlib import Path

from tests.app.command import Command, Serving

HONOURED_S = 3.0


def status(serving: Serving, secret: str | None = None) -> int:
    connection = HTTPConnection(serving.url.removeprefix("http://"), timeout=30)
    try:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        connection.request("GET", "/v1/models", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def settles_at(expected: int, serving: Serving, secret: str | None = None) -> bool:
    end_s = time.monotonic() + HONOURED_S
    while time.monotonic() < end_s:
        if status(serving, secret) == expected:
            return True
        time.sleep(0.1)
    return False


def test_a_running_server_honours_keys_as_they_are_made_and_revoked(
    command: Command, weights: Path
) -> None:
    with command.serve("--model", weights) as serving:
        assert status(serving) == 200
        first = json.loads(command.run("keys", "create", "--name", "first", "--json").out)
        second = command.run("keys", "create", "--name", "second").out.strip()

        assert settles_at(401, serving)
        assert status(serving, first["secret"]) == 200
        assert status(serving, second) == 200

        revoked = command.run("keys", "revoke", first["id"])

        assert revoked.out == f"Revoked {first['id']}.\n"
        assert settles_at(401, serving, first["secret"])
        assert status(serving, second) == 200


def test_create_prints_the_secret_alone_and_says_that_it_is_shown_once(command: Command) -> None:
    output = command.run("keys", "create", "--name", "me")

    assert output.out.startswith("sk-ow-")
    assert len(output.out.split()) == 1
    assert "cannot be shown again" in output.err
    assert "This is the first key: from now on every request needs one." in output.err
    assert output.out.strip() not in command.run("keys", "list").out
    assert "first key" not in command.run("keys", "create", "--name", "you").err


def test_list_tells_what_a_key_may_do(command: Command) -> None:
    made = json.loads(
        command.run(
            *("keys", "create", "--name", "ci", "--account", "team", "--expires", "2099-01-01"),
            *("--scope", "inference", "--scope", "admin", "--model", "gpt-4o", "--json"),
        ).out
    )
    listed = json.loads(command.run("keys", "list", "--json").out)
    table = command.run("keys", "list").out

    assert listed == [{key: value for key, value in made.items() if key != "secret"}]
    assert listed[0]["scopes"] == ["admin", "inference"]
    assert listed[0]["models"] == ["gpt-4o"]
    for cell in ("ci", "team", "active", "gpt-4o", "admin inference", "2099-01-01 00:00"):
        assert cell in table
    assert all(line == line.rstrip() for line in table.splitlines())


def test_revoking_the_last_key_warns_that_the_server_is_open(command: Command) -> None:
    key = json.loads(command.run("keys", "create", "--name", "me", "--json").out)

    output = command.run("keys", "revoke", key["id"])

    assert output.status == 0
    assert "No key is left" in output.err
    assert "revoked" in command.run("keys", "list").out


def test_create_warns_of_a_model_that_is_not_known(command: Command) -> None:
    output = command.run(
        *("keys", "create", "--name", "me", "--json"),
        *("--model", "gpt-4o-mini", "--model", "gpt-9"),
    )

    assert output.status == 0
    assert json.loads(output.out)["models"] == ["gpt-4o-mini", "gpt-9"]
    assert "No model 'gpt-9' is known here" in output.err
    assert "gpt-4o-mini" not in output.err


def test_create_does_not_warn_of_a_model_that_the_settings_will_fetch(command: Command) -> None:
    (command.folder / "openworks.toml").write_text('models = ["acme/model-GGUF"]\n')

    output = command.run("keys", "create", "--name", "me", "--model", "acme/model-GGUF")

    assert output.status == 0
    assert "known here" not in output.err


def test_what_cannot_be_done_with_keys_is_one_line(command: Command) -> None:
    unknown = command.run("keys", "revoke", "key_nope")
    past = command.run("keys", "create", "--name", "me", "--expires", "2020-01-01")
    vague = command.run("keys", "create", "--name", "me", "--expires", "soon")

    nameless = command.run("keys", "create", "--name", " ")

    assert (unknown.status, unknown.err) == (1, "Error: No key found with id 'key_nope'.\n")
    assert (past.status, past.err) == (1, "Error: 2020-01-01 has passed already.\n")
    assert vague.status == 1
    assert "12h or 30d" in vague.err
    assert nameless.status == 1
    assert "A key needs a name" in nameless.err
    assert command.run("keys", "list").out.startswith("No keys.")
