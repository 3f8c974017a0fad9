"""Threads and their messages, through the SDK and without it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.beta import Thread
from openai.types.beta.threads import Message, TextContentBlock

from tests.api.accounts import Accounts
from tests.api.raw import Reply, ask, bearer
from tests.conftest import open_async_client

# The SDK calls all of the Assistants API deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")

PNG = "data:image/png;base64,iVBORw0KGgo="
LONGEST = "x" * 256_000


@pytest.fixture
def thread(mine: OpenAI) -> Thread:
    return mine.beta.threads.create()


@pytest.fixture
def file_id(mine: OpenAI) -> str:
    return mine.files.create(file=("a.txt", b"Hello"), purpose="assistants").id


def say(client: OpenAI, thread: Thread, content: Any, **options: Any) -> Message:
    return client.beta.threads.messages.create(
        thread.id, **{"role": "user", "content": content, **options}
    )


def said(message: Message) -> str:
    (part,) = message.content
    assert isinstance(part, TextContentBlock)
    return part.text.value


def post(accounts: Accounts, secret: str, path: str, body: object = None) -> Reply:
    return ask(accounts.server, "POST", f"/v1/threads{path}", body, headers=bearer(secret))


def test_thread_of_nothing_is_made(accounts: Accounts, secret: str, mine: OpenAI) -> None:
    made = mine.beta.threads.create()

    assert made.id.startswith("thread_")
    assert mine.beta.threads.retrieve(made.id) == made
    bare = post(accounts, secret, "").json()
    assert {**bare, "id": made.id, "created_at": made.created_at} == made.to_dict()
    assert (bare["metadata"], bare["tool_resources"]) == ({}, {})


def test_thread_begins_with_its_messages(mine: OpenAI) -> None:
    made = mine.beta.threads.create(
        messages=[
            {"role": "user", "content": "Hello", "metadata": {"n": "1"}},
            {"role": "assistant", "content": [{"type": "text", "text": "Good day."}]},
            {"role": "user", "content": "Bye"},
        ],
        metadata={"k" * 64: "v" * 512},
        tool_resources={"file_search": {"vector_store_ids": []}},
    )

    messages = list(mine.beta.threads.messages.list(made.id, order="asc"))

    assert made.metadata == {"k" * 64: "v" * 512}
    assert [(each.role, said(each)) for each in messages] == [
        ("user", "Hello"),
        ("assistant", "Good day."),
        ("user", "Bye"),
    ]
    assert messages[0].metadata == {"n": "1"}
    assert {each.thread_id for each in messages} == {made.id}


def test_thread_update_replaces_what_it_names(mine: OpenAI) -> None:
    made = mine.beta.threads.create(
        metadata={"old": "1"}, tool_resources={"file_search": {"vector_store_ids": []}}
    )

    changed = mine.beta.threads.update(made.id, metadata={"new": "2"})
    assert changed.to_dict() == {**made.to_dict(), "metadata": {"new": "2"}}
    assert mine.beta.threads.update(made.id) == changed

    cleared = mine.beta.threads.update(made.id, metadata=None, tool_resources=None)
    assert cleared.to_dict() == {**made.to_dict(), "metadata": {}, "tool_resources": {}}
    assert mine.beta.threads.retrieve(made.id) == cleared


def test_threads_are_listed_newest_first(accounts: Accounts) -> None:
    with accounts.client() as client:
        made = [client.beta.threads.create().id for _ in range(3)]

        page = client.get("/threads?limit=2", cast_to=object)

    assert isinstance(page, dict)
    assert [thread["id"] for thread in page["data"]] == made[:0:-1]
    assert page["has_more"] is True


def test_deleted_thread_is_gone_with_its_messages(mine: OpenAI, thread: Thread) -> None:
    message = say(mine, thread, "Hello")

    deleted = mine.beta.threads.delete(thread.id)

    assert (deleted.id, deleted.deleted) == (thread.id, True)
    messages = mine.beta.threads.messages
    for call in (
        lambda: mine.beta.threads.retrieve(thread.id),
        lambda: mine.beta.threads.update(thread.id, metadata={}),
        lambda: mine.beta.threads.delete(thread.id),
        lambda: say(mine, thread, "Hello?"),
        lambda: messages.list(thread.id),
        lambda: messages.retrieve(message.id, thread_id=thread.id),
    ):
        with pytest.raises(openai.NotFoundError, match=thread.id):
            call()


def test_text_becomes_a_part(mine: OpenAI, thread: Thread) -> None:
    message = say(mine, thread, LONGEST, metadata={"a": "b"})

    assert message.id.startswith("msg_")
    assert message.to_dict() == {
        "id": message.id,
        "object": "thread.message",
        "created_at": message.created_at,
        "thread_id": thread.id,
        "role": "user",
        "content": [{"type": "text", "text": {"value": LONGEST, "annotations": []}}],
        "attachments": [],
        "metadata": {"a": "b"},
        "status": "completed",
        "completed_at": message.created_at,
        "incomplete_at": None,
        "incomplete_details": None,
        "assistant_id": None,
        "run_id": None,
    }
    assert mine.beta.threads.messages.retrieve(message.id, thread_id=thread.id) == message


def test_parts_of_all_kinds_are_kept_in_order(mine: OpenAI, thread: Thread, file_id: str) -> None:
    message = say(
        mine,
        thread,
        [
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            {"type": "text", "text": "What is it?"},
            {"type": "image_file", "image_file": {"file_id": file_id}},
        ],
        attachments=[{"file_id": file_id, "tools": [{"type": "file_search"}]}],
    )

    kept = mine.beta.threads.messages.retrieve(message.id, thread_id=thread.id)

    assert kept == message
    assert kept.to_dict()["content"] == [
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "text", "text": {"value": "What is it?", "annotations": []}},
        {"type": "image_file", "image_file": {"file_id": file_id, "detail": "auto"}},
    ]
    assert kept.to_dict()["attachments"] == [
        {"file_id": file_id, "tools": [{"type": "file_search"}]}
    ]


def test_files_must_be_the_callers_own(
    mine: OpenAI, theirs: OpenAI, thread: Thread, file_id: str
) -> None:
    other = theirs.files.create(file=("b.txt", b"Secret"), purpose="assistants").id
    tools: Any = [{"type": "file_search"}]

    for wanted in (other, "file-nobody"):
        attachments: Any = [{"file_id": each, "tools": tools} for each in (file_id, wanted)]
        with pytest.raises(openai.BadRequestError, match=wanted) as raised:
            say(mine, thread, "Hello", attachments=attachments)
        assert raised.value.param == "attachments[1].file_id"
        with pytest.raises(openai.BadRequestError, match=wanted) as raised:
            mine.beta.threads.create(
                messages=[
                    {"role": "user", "content": "Hello"},
                    {
                        "role": "user",
                        "content": [{"type": "image_file", "image_file": {"file_id": wanted}}],
                    },
                ]
            )
        assert raised.value.param == "messages[1].content[0].image_file.file_id"

    assert list(mine.beta.threads.messages.list(thread.id)) == []


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_add_up_to_the_thread(mine: OpenAI, thread: Thread, limit: int) -> None:
    texts = [str(number) for number in range(7)]
    for text in texts:
        say(mine, thread, text)

    messages = mine.beta.threads.messages
    assert [said(each) for each in messages.list(thread.id, limit=limit)] == texts[::-1]
    assert [said(each) for each in messages.list(thread.id, limit=limit, order="asc")] == texts


def test_page_before_a_message_ends_at_it(
    accounts: Accounts, secret: str, mine: OpenAI, thread: Thread
) -> None:
    ids = [say(mine, thread, text).id for text in "abcd"]

    page = ask(
        accounts.server,
        "GET",
        f"/v1/threads/{thread.id}/messages?before={ids[3]}&order=asc&limit=2",
        headers=bearer(secret),
    ).json()

    assert [row["id"] for row in page["data"]] == ids[1:3]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[1], ids[2], True)


def test_no_message_is_of_a_run_yet(mine: OpenAI, thread: Thread) -> None:
    say(mine, thread, "Hello")

    assert list(mine.beta.threads.messages.list(thread.id, run_id="run_1")) == []


async def test_asynchronous_client_does_it_all(accounts: Accounts, secret: str) -> None:
    async with open_async_client(accounts.server.url, key=secret) as client:
        threads = client.beta.threads
        thread = await threads.create(metadata={"a": "b"})
        made = [
            await threads.messages.create(thread.id, role="user", content=text) for text in "abc"
        ]
        changed = await threads.messages.update(
            made[0].id, thread_id=thread.id, metadata={"c": "d"}
        )
        gone = await threads.messages.delete(made[1].id, thread_id=thread.id)

        assert gone.deleted
        assert await threads.messages.retrieve(made[0].id, thread_id=thread.id) == changed
        listed = [each async for each in threads.messages.list(thread.id, limit=1)]
        assert listed == [made[2], changed]
        assert (await threads.update(thread.id, metadata={})).metadata == {}
        assert (await threads.delete(thread.id)).deleted


async def test_messages_that_come_together_keep_one_order(accounts: Accounts, secret: str) -> None:
    async with open_async_client(accounts.server.url, key=secret) as client:
        thread = await client.beta.threads.create()
        messages = client.beta.threads.messages

        async def talk(speaker: int) -> None:
            for number in range(5):
                await messages.create(thread.id, role="user", content=f"{speaker} {number}")

        await asyncio.gather(*(talk(speaker) for speaker in range(6)))
        up = [said(each) async for each in messages.list(thread.id, order="asc", limit=7)]
        down = [said(each) async for each in messages.list(thread.id, limit=100)]

    assert down == up[::-1]
    for speaker in range(6):
        own = [text for text in up if text.startswith(f"{speaker} ")]
        assert own == [f"{speaker} {number}" for number in range(5)]


def test_message_update_replaces_the_metadata(mine: OpenAI, thread: Thread) -> None:
    message = say(mine, thread, "Hello", metadata={"old": "1"})
    messages = mine.beta.threads.messages

    changed = messages.update(message.id, thread_id=thread.id, metadata={"new": "2"})
    assert changed.to_dict() == {**message.to_dict(), "metadata": {"new": "2"}}
    assert messages.update(message.id, thread_id=thread.id) == changed

    assert messages.update(message.id, thread_id=thread.id, metadata=None).metadata == {}


def test_deleted_message_is_gone_and_the_others_stay(mine: OpenAI, thread: Thread) -> None:
    first, second, third = (say(mine, thread, text) for text in "abc")
    messages = mine.beta.threads.messages

    deleted = messages.delete(second.id, thread_id=thread.id)

    assert (deleted.id, deleted.deleted) == (second.id, True)
    assert [each.id for each in messages.list(thread.id)] == [third.id, first.id]
    with pytest.raises(openai.NotFoundError, match=second.id):
        messages.delete(second.id, thread_id=thread.id)


def test_what_belongs_to_another_account_is_not_there(
    mine: OpenAI, theirs: OpenAI, thread: Thread
) -> None:
    message = say(mine, thread, "Hello")
    threads = theirs.beta.threads
    own = threads.create()

    for call in (
        lambda: threads.retrieve(thread.id),
        lambda: threads.update(thread.id, metadata={"a": "b"}),
        lambda: threads.delete(thread.id),
        lambda: say(theirs, thread, "Hello"),
        lambda: threads.messages.list(thread.id),
        lambda: threads.messages.retrieve(message.id, thread_id=thread.id),
        lambda: threads.messages.update(message.id, thread_id=thread.id, metadata={"a": "b"}),
        lambda: threads.messages.delete(message.id, thread_id=thread.id),
        lambda: threads.messages.retrieve(message.id, thread_id=own.id),
        lambda: threads.messages.delete(message.id, thread_id=own.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    with pytest.raises(openai.BadRequestError, match=f"after.*'{message.id}'"):
        threads.messages.list(own.id, after=message.id)
    assert list(mine.beta.threads.messages.list(thread.id)) == [message]


def test_message_of_another_thread_is_not_there(mine: OpenAI, thread: Thread) -> None:
    message = say(mine, thread, "Hello")
    other = mine.beta.threads.create()

    with pytest.raises(openai.NotFoundError, match=f"{message.id}.*{other.id}"):
        mine.beta.threads.messages.retrieve(message.id, thread_id=other.id)


TOO_LONG = "x" * 300_000
BAD_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"content": TOO_LONG}, "content"),
    ({"content": [{"type": "text", "text": TOO_LONG}]}, "content[0].text"),
    ({"content": ""}, "content"),
    ({"content": []}, "content"),
    ({"content": [{"type": "text", "text": ""}]}, "content[0].text"),
    ({"content": None}, "content"),
    ({"content": 7}, "content"),
    ({"content": [{"type": "text", "text": {"value": "x"}}]}, "content[0].text"),
    ({"content": [{"type": "video"}]}, "content[0].type"),
    (
        {"content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}]},
        "content[0].image_url.url",
    ),
    (
        {"content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]},
        "content[0].image_url.url",
    ),
    (
        {"content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "most"}}]},
        "content[0].image_url.detail",
    ),
    ({"role": "system"}, "role"),
    ({"role": None}, "role"),
    ({"metadata": {"k": "x" * 513}}, "metadata.k"),
    ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
    ({"attachments": {}}, "attachments"),
    ({"attachments": [{"tools": [{"type": "file_search"}]}]}, "attachments[0].file_id"),
    ({"attachments": [{"file_id": "file-1"}]}, "attachments[0].tools"),
    (
        {"attachments": [{"file_id": "file-1", "tools": [{"type": "code_interpreter"}]}]},
        "attachments[0].tools[0].type",
    ),
    ({"run_id": "run_1"}, "run_id"),
]


@pytest.mark.parametrize(
    ("fields", "param"), BAD_MESSAGES, ids=lambda value: json.dumps(value)[:60]
)
def test_bad_messages_are_refused_by_name_and_not_kept(
    accounts: Accounts,
    secret: str,
    mine: OpenAI,
    thread: Thread,
    fields: dict[str, Any],
    param: str,
) -> None:
    good = {"role": "user", "content": "Hello"}
    bad = {**good, **fields}

    one = post(accounts, secret, f"/{thread.id}/messages", bad)
    first = post(accounts, secret, "", {"messages": [good, bad]})

    assert (one.status, one.error()["param"]) == (400, param)
    assert (first.status, first.error()["param"]) == (400, f"messages[1].{param}")
    assert len(one.error()["message"]) < 500
    assert list(mine.beta.threads.messages.list(thread.id)) == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"tool_resources": {"file_search": {"vector_store_ids": ["vs_1"]}}}, None),
        ({"tool_resources": {"code_interpreter": {"file_ids": ["file-1"]}}}, None),
        ({"title": "x"}, "title"),
    ],
)
def test_bad_threads_are_refused_by_name(
    accounts: Accounts, secret: str, thread: Thread, fields: dict[str, Any], param: str | None
) -> None:
    for path in ("", f"/{thread.id}"):
        reply = post(accounts, secret, path, fields)
        assert reply.status == 400
        found = reply.error()["param"]
        assert found == param if param else found.startswith("tool_resources.")


@pytest.mark.parametrize("body", [b"null", b"[]", b"{", b'{"messages": {}}', b"\xff"])
def test_body_that_is_no_thread_is_refused(accounts: Accounts, secret: str, body: bytes) -> None:
    assert post(accounts, secret, "", body).status == 400


def test_message_update_takes_metadata_alone(
    accounts: Accounts, secret: str, mine: OpenAI, thread: Thread
) -> None:
    message = say(mine, thread, "Hello")

    reply = post(accounts, secret, f"/{thread.id}/messages/{message.id}", {"content": "Bye"})

    assert (reply.status, reply.error()["param"]) == (400, "content")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("order=up", "order"),
        ("after=msg_nobody", "after"),
        ("before=msg_nobody", "before"),
        ("after=a%00b", "after"),
    ],
)
def test_bad_pages_are_refused_by_name(
    accounts: Accounts, secret: str, thread: Thread, query: str, param: str
) -> None:
    path = f"/v1/threads/{thread.id}/messages?{query}"

    reply = ask(accounts.server, "GET", path, headers=bearer(secret))

    assert (reply.status, reply.error()["param"]) == (400, param)


@pytest.mark.parametrize("id_", ["thread_nobody", "a%00b", "x" * 5000])
def test_unknown_ids_are_404(accounts: Accounts, secret: str, thread: Thread, id_: str) -> None:
    hello = {"role": "user", "content": "Hello"}
    for method, path, body in (
        ("GET", f"/{id_}", None),
        ("POST", f"/{id_}", {"metadata": {}}),
        ("DELETE", f"/{id_}", None),
        ("GET", f"/{id_}/messages", None),
        ("POST", f"/{id_}/messages", hello),
        ("GET", f"/{thread.id}/messages/{id_}", None),
        ("POST", f"/{thread.id}/messages/{id_}", {"metadata": {}}),
        ("DELETE", f"/{thread.id}/messages/{id_}", None),
    ):
        reply = ask(accounts.server, method, f"/v1/threads{path}", body, headers=bearer(secret))
        assert (reply.status, reply.error()["code"]) == (404, "not_found")


def test_run_of_another_account_is_not_there(mine: OpenAI, theirs: OpenAI) -> None:
    assistant = mine.beta.assistants.create(model="talker")
    run = mine.beta.threads.create_and_run_poll(
        assistant_id=assistant.id,
        thread={"messages": [{"role": "user", "content": "Hello"}]},
        max_completion_tokens=1,
    )
    at: Any = {"thread_id": run.thread_id}
    runs = theirs.beta.threads.runs
    for ask_for in (
        lambda: runs.retrieve(run.id, **at),
        lambda: runs.update(run.id, metadata={}, **at),
        lambda: runs.cancel(run.id, **at),
        lambda: runs.submit_tool_outputs(run.id, tool_outputs=[], **at),
        lambda: runs.steps.list(run.id, **at),
        lambda: runs.list(run.thread_id),
        lambda: runs.create(run.thread_id, assistant_id=assistant.id),
    ):
        with pytest.raises(openai.NotFoundError):
            ask_for()


def test_key_that_may_not_use_a_model_begins_no_run_with_it(accounts: Accounts) -> None:
    with accounts.client(allowed_models=("plain",)) as client:
        assistant = client.beta.assistants.create(model="plain")
        thread = client.beta.threads.create()

        with pytest.raises(openai.PermissionDeniedError):
            client.beta.threads.runs.create(thread.id, assistant_id=assistant.id, model="talker")
