"""Stored chat completions: `store: true`, then list, retrieve, update, delete, messages."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion

from tests.api.asks import HELLO
from tests.api.raw import ask, post
from tests.server import ServerProcess


def store(client: OpenAI, metadata: dict[str, str] | None = None, **options: Any) -> ChatCompletion:
    answer = client.chat.completions.create(
        **{
            "model": "talker",
            "messages": HELLO,
            "max_tokens": 3,
            "store": True,
            "metadata": metadata or {},
            **options,
        }
    )
    assert isinstance(answer, ChatCompletion)
    return answer


@pytest.fixture
def series(client: OpenAI) -> tuple[dict[str, str], list[str]]:
    """Five completions with a pair of metadata of their own, oldest first."""
    metadata = {"series": uuid4().hex}
    ids = [store(client, {**metadata, "number": str(number)}).id for number in range(5)]
    return metadata, sorted(ids, key=lambda id_: client.chat.completions.retrieve(id_).created)


def test_stored_completion_is_retrieved_as_it_was_answered(client: OpenAI) -> None:
    answer = store(client, {"topic": "greeting"})

    again = client.chat.completions.retrieve(answer.id)

    assert again == answer
    assert again.metadata == {"topic": "greeting"}


def test_completion_is_not_kept_unless_it_is_asked_for(client: OpenAI) -> None:
    answer = store(client, store=False)

    with pytest.raises(openai.NotFoundError, match=answer.id):
        client.chat.completions.retrieve(answer.id)


def test_streamed_completion_is_kept_whole(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="talker", messages=HELLO, max_tokens=5, seed=1, store=True, stream=True
        )
    )
    whole = client.chat.completions.create(model="talker", messages=HELLO, max_tokens=5, seed=1)

    kept = client.chat.completions.retrieve(chunks[0].id)

    assert kept.choices[0].message.content == whole.choices[0].message.content
    assert kept.usage is not None
    assert kept.usage.completion_tokens == 5


def test_list_filters_by_metadata(client: OpenAI, series: tuple[dict[str, str], list[str]]) -> None:
    metadata, ids = series

    assert {each.id for each in client.chat.completions.list(metadata=metadata)} == set(ids)
    (only,) = client.chat.completions.list(metadata={**metadata, "number": "3"})
    assert only.metadata == {**metadata, "number": "3"}


def test_list_filters_by_model(client: OpenAI, series: tuple[dict[str, str], list[str]]) -> None:
    metadata, _ = series
    other = store(client, metadata, model="plain")

    assert [each.id for each in client.chat.completions.list(metadata=metadata, model="plain")] == [
        other.id
    ]


def test_list_filters_by_the_name_that_was_asked_for(
    client: OpenAI, series: tuple[dict[str, str], list[str]]
) -> None:
    metadata, ids = series
    asked = store(client, metadata, model="gpt-4o-mini")

    listed = client.chat.completions.list(metadata=metadata, model="gpt-4o-mini")

    assert {each.id for each in listed} == {asked.id, *ids}


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_pages_add_up_to_the_list(
    client: OpenAI, series: tuple[dict[str, str], list[str]], limit: int
) -> None:
    metadata, ids = series

    listed = [each.id for each in client.chat.completions.list(metadata=metadata, limit=limit)]

    assert len(listed) == len(set(listed)) == 5
    assert set(listed) == set(ids)


async def test_asynchronous_client_walks_the_pages(
    async_client: AsyncOpenAI, series: tuple[dict[str, str], list[str]]
) -> None:
    metadata, ids = series
    pages = await async_client.chat.completions.list(metadata=metadata, limit=2)

    assert {each.id async for each in pages} == set(ids)


def test_descending_order_is_the_ascending_one_reversed(
    client: OpenAI, series: tuple[dict[str, str], list[str]]
) -> None:
    metadata, _ = series
    up = [each.id for each in client.chat.completions.list(metadata=metadata, order="asc")]
    down = [each.id for each in client.chat.completions.list(metadata=metadata, order="desc")]

    assert down == up[::-1]


def test_page_says_where_it_begins_and_ends(
    server: ServerProcess, series: tuple[dict[str, str], list[str]]
) -> None:
    metadata, _ = series

    page = ask(
        server, "GET", f"/v1/chat/completions?metadata[series]={metadata['series']}&limit=3"
    ).json()

    assert page["object"] == "list"
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][2]["id"])
    assert page["has_more"] is True


def test_update_replaces_the_metadata(client: OpenAI) -> None:
    answer = store(client, {"old": "1"})

    changed = client.chat.completions.update(answer.id, metadata={"new": "2"})

    assert changed.metadata == {"new": "2"}
    assert client.chat.completions.retrieve(answer.id).metadata == {"new": "2"}


def test_deleted_completion_is_gone(client: OpenAI) -> None:
    answer = store(client)

    deleted = client.chat.completions.delete(answer.id)

    assert (deleted.id, deleted.deleted) == (answer.id, True)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.delete(answer.id)


def test_messages_are_those_of_the_request(client: OpenAI) -> None:
    answer = store(
        client, messages=[{"role": "system", "content": "Be kind."}, *HELLO, *HELLO, *HELLO]
    )

    messages = list(client.chat.completions.messages.list(answer.id, limit=2))

    assert [message.content for message in messages] == ["Be kind.", "Hello", "Hello", "Hello"]
    assert len({message.id for message in messages}) == 4


def test_messages_in_parts_keep_their_parts(client: OpenAI) -> None:
    parts = [{"type": "text", "text": "Hello"}]
    answer = store(client, messages=[{"role": "user", "content": parts}])

    (message,) = client.chat.completions.messages.list(answer.id)

    assert message.content is None
    assert [part.to_dict() for part in message.content_parts or []] == parts


def test_messages_are_listed_backwards(client: OpenAI) -> None:
    answer = store(client, messages=[{"role": "system", "content": "Be kind."}, *HELLO])

    messages = client.chat.completions.messages.list(answer.id, order="desc")

    assert [message.content for message in messages] == ["Hello", "Be kind."]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("order=up", "order"),
        ("after=chatcmpl-nobody", "after"),
    ],
)
def test_bad_pages_are_refused_by_name(server: ServerProcess, query: str, param: str) -> None:
    reply = ask(server, "GET", f"/v1/chat/completions?{query}")

    assert (reply.status, reply.error()["param"]) == (400, param)


@pytest.mark.parametrize("param", ["after", "before"])
def test_unknown_cursor_is_refused_alike_for_completions_and_messages(
    client: OpenAI, server: ServerProcess, param: str
) -> None:
    kept = store(client).id

    completions = ask(server, "GET", f"/v1/chat/completions?{param}=nobody")
    messages = ask(server, "GET", f"/v1/chat/completions/{kept}/messages?{param}=nobody")

    assert (messages.status, messages.error()) == (completions.status, completions.error())
    assert (messages.status, messages.error()["param"]) == (400, param)


def test_messages_before_one_are_those_that_end_there(
    client: OpenAI, server: ServerProcess
) -> None:
    kept = store(client, messages=[{"role": "user", "content": text} for text in "abcd"]).id
    path = f"/v1/chat/completions/{kept}/messages"
    last = ask(server, "GET", path).json()["last_id"]

    page = ask(server, "GET", f"{path}?before={last}&limit=2").json()

    assert [message["content"] for message in page["data"]] == ["b", "c"]
    assert page["has_more"] is True


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({str(number): "x" for number in range(17)}, "metadata"),
        ({"k" * 65: "x"}, "metadata"),
        ({"k": "x" * 513}, "metadata.k"),
        ({"k": 1}, "metadata.k"),
        ([], "metadata"),
    ],
)
def test_bad_metadata_is_refused_by_name(
    client: OpenAI, server: ServerProcess, metadata: Any, param: str
) -> None:
    kept = store(client).id
    create = {"model": "talker", "messages": HELLO, "store": True, "metadata": metadata}

    for path, body in (
        ("/v1/chat/completions", create),
        (f"/v1/chat/completions/{kept}", {"metadata": metadata}),
    ):
        reply = post(server, path, body)
        assert (reply.status, reply.error()["param"]) == (400, param)


def test_update_takes_metadata_alone(client: OpenAI, server: ServerProcess) -> None:
    reply = post(server, f"/v1/chat/completions/{store(client).id}", {"model": "other"})

    assert reply.status == 400
    assert "'metadata' alone" in reply.error()["message"]


def test_unknown_ids_are_404_everywhere(client: OpenAI) -> None:
    for call in (
        lambda: client.chat.completions.retrieve("chatcmpl-nobody"),
        lambda: client.chat.completions.update("chatcmpl-nobody", metadata={}),
        lambda: client.chat.completions.delete("chatcmpl-nobody"),
        lambda: client.chat.completions.messages.list("chatcmpl-nobody"),
    ):
        with pytest.raises(openai.NotFoundError, match=re.escape("'chatcmpl-nobody'")):
            call()
