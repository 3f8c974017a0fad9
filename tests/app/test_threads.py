"""`openworks threads`: what was saved elsewhere is there for OpenAI's own client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.beta.threads import Message

from tests.app.command import Command

# The SDK calls all of the Assistants API deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")

PNG = "data:image/png;base64,iVBORw0KGgo="
SAVED: Any = {
    "assistants": [
        {
            "id": "asst_old",
            "object": "assistant",
            "created_at": 1_700_000_000,
            "model": "gpt-4o-mini",
            "name": "Helper",
            "instructions": "Be brief.",
            "tools": [{"type": "code_interpreter"}, {"type": "file_search"}],
            "metadata": {"team": "blue"},
        }
    ],
    "threads": [{"id": "thread_old", "object": "thread", "created_at": 1_700_000_001}],
    "messages": {
        "object": "list",
        "data": [
            {
                "id": "msg_2",
                "object": "thread.message",
                "created_at": 1_700_000_003,
                "thread_id": "thread_old",
                "role": "assistant",
                "assistant_id": "asst_old",
                "run_id": "run_old",
                "content": [{"type": "text", "text": {"value": "Grüße!", "annotations": []}}],
            },
            {
                "id": "msg_1",
                "object": "thread.message",
                "created_at": 1_700_000_002,
                "thread_id": "thread_old",
                "role": "user",
                "content": [
                    {"type": "text", "text": {"value": "Hello", "annotations": []}},
                    {"type": "image_url", "image_url": {"url": PNG}},
                    {"type": "image_file", "image_file": {"file_id": "file-gone"}},
                ],
                "attachments": [{"file_id": "file-gone", "tools": [{"type": "file_search"}]}],
            },
        ],
        "has_more": False,
    },
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "saved.json"
    file.write_text(json.dumps(SAVED))
    return file


def texts(messages: list[Message]) -> list[str]:
    return [
        part.text.value for message in messages for part in message.content if part.type == "text"
    ]


def exported(command: Command, *arguments: str) -> list[Any]:
    output = command.run("threads", "export", *arguments)
    assert output.status == 0, output.err
    return [json.loads(line) for line in output.out.splitlines()]


def test_what_was_saved_is_there_under_its_ids(command: Command, saved: Path) -> None:
    output = command.run("threads", "import", saved)

    assert output.status == 0, output.err
    assert "Kept: 1 assistants, 1 threads, 2 messages." in output.err
    left_out = output.err.partition("Left out: ")[2]
    for what in ("1 attachments", "1 tools of type 'code_interpreter'", "1 parts of type"):
        assert what in left_out
    with (
        command.serve() as serving,
        OpenAI(base_url=f"{serving.url}/v1", api_key="none") as client,
    ):
        assistant = client.beta.assistants.retrieve("asst_old")
        messages = client.beta.threads.messages.list("thread_old", order="asc").data
        newer = client.beta.threads.messages.create("thread_old", role="user", content="New")
        later = client.beta.threads.messages.list("thread_old", order="asc").data
    assert (assistant.name, assistant.instructions) == ("Helper", "Be brief.")
    assert assistant.metadata == {"team": "blue"}
    assert [tool.type for tool in assistant.tools] == ["file_search"]
    assert [message.id for message in messages] == ["msg_1", "msg_2"]
    assert texts(messages) == ["Hello", "Grüße!"]
    assert [part.type for part in messages[0].content] == ["text", "image_url"]
    assert messages[0].created_at == 1_700_000_002
    assert later[-1].id == newer.id


def test_second_import_changes_nothing(command: Command, saved: Path) -> None:
    command.run("threads", "import", saved)
    before = exported(command)

    output = command.run("threads", "import", "-", text=saved.read_text())

    assert "There already: 1 assistants, 1 threads." in output.err
    assert exported(command) == before


def test_export_brought_into_another_server_is_the_same(
    command: Command, saved: Path, tmp_path: Path
) -> None:
    command.run("threads", "import", saved)
    file = tmp_path / "moved.jsonl"
    assert command.run("threads", "export", file).status == 0
    elsewhere = ("--data-dir", str(tmp_path / "elsewhere"))

    assert command.run("threads", "import", file, *elsewhere).status == 0

    assert exported(command, *elsewhere) == exported(command)


def test_threads_become_conversations_and_come_back(command: Command, saved: Path) -> None:
    command.run("threads", "import", saved, "--as", "conversations")

    with (
        command.serve() as serving,
        OpenAI(base_url=f"{serving.url}/v1", api_key="none") as client,
    ):
        items = client.conversations.items.list("conv_old", order="asc").data
    assert [item.id for item in items] == ["msg_1", "msg_2"]
    back = exported(command, "--as", "threads")
    said = [
        part["text"]["value"]
        for found in back
        if found["object"] == "thread.message"
        for part in found["content"]
        if part["type"] == "text"
    ]
    assert said == ["Hello", "Grüße!"]
    assert [found["id"] for found in back if found["object"] == "thread"] == ["thread_old"]


def test_one_thread_can_be_taken_out_alone(command: Command, saved: Path) -> None:
    command.run("threads", "import", saved)

    found = exported(command, "--thread", "thread_old")

    assert [each["object"] for each in found] == ["thread", "thread.message", "thread.message"]
    missing = command.run("threads", "export", "--thread", "thread_none")
    assert missing.status == 1
    assert "thread_none" in missing.err


def test_file_that_is_there_is_not_written_over(command: Command, tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_text("precious")

    output = command.run("threads", "export", tmp_path / "there.jsonl")

    assert output.status == 1
    assert "there.jsonl" in output.err
    assert (tmp_path / "there.jsonl").read_text() == "precious"


def test_what_is_no_dump_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('[{"object": "thread"}]')

    output = command.run("threads", "import", tmp_path / "bad.json")

    assert output.status == 1
    assert "the file[0]" in output.err
