"""Assistants: create, list, retrieve, update, delete, through the SDK and without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.beta import Assistant

from tests.api.accounts import Accounts
from tests.api.raw import Reply, ask, bearer
from tests.conftest import open_async_client, open_client

# The SDK calls all of the Assistants API deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")

PATH = "/v1/assistants"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    },
}
COLOUR = {
    "type": "json_schema",
    "json_schema": {"name": "colour", "strict": True, "schema": {"type": "object"}},
}


@pytest.fixture
def secret(accounts: Accounts) -> str:
    return accounts.secret()


@pytest.fixture
def mine(accounts: Accounts, secret: str) -> Iterator[OpenAI]:
    """A client of the account of `secret`."""
    with open_client(accounts.server.url, key=secret) as client:
        yield client


@pytest.fixture
def theirs(accounts: Accounts) -> Iterator[OpenAI]:
    """A client of another account."""
    with accounts.client() as client:
        yield client


def make(client: OpenAI, **options: Any) -> Assistant:
    return client.beta.assistants.create(**{"model": "talker", **options})


def test_assistant_is_retrieved_as_it_was_made(mine: OpenAI) -> None:
    made = make(
        mine,
        name="Grüße, 世界 🌍",
        description="Says what the weather is.",
        instructions="x" * 256_000,
        tools=[
            WEATHER,
            {
                "type": "file_search",
                "file_search": {"max_num_results": 50, "ranking_options": {"score_threshold": 1}},
            },
        ],
        tool_resources={"file_search": {"vector_store_ids": []}},
        metadata={"k" * 64: "v" * 512},
        temperature=2,
        top_p=0,
        reasoning_effort="low",
        response_format=COLOUR,
    )

    assert made.id.startswith("asst_")
    assert mine.beta.assistants.retrieve(made.id) == made
    assert made.name == "Grüße, 世界 🌍"
    assert made.instructions == "x" * 256_000
    assert made.tools[0].to_dict() == WEATHER
    assert made.metadata == {"k" * 64: "v" * 512}
    assert (made.temperature, made.top_p) == (2.0, 0.0)
    assert made.to_dict()["reasoning_effort"] == "low"
    assert made.to_dict()["response_format"] == COLOUR


def test_assistant_of_a_model_alone_has_openais_defaults(mine: OpenAI) -> None:
    body = make(mine).to_dict()

    assert isinstance(body.pop("created_at"), int)
    del body["id"]
    assert body == {
        "object": "assistant",
        "model": "talker",
        "name": None,
        "description": None,
        "instructions": None,
        "tools": [],
        "tool_resources": {},
        "metadata": {},
        "temperature": None,
        "top_p": None,
        "reasoning_effort": None,
        "response_format": "auto",
    }


def test_model_is_kept_by_the_name_that_was_given(mine: OpenAI) -> None:
    assert make(mine, model="gpt-4o-mini").model == "gpt-4o-mini"


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_pages_add_up_to_the_list(mine: OpenAI, limit: int) -> None:
    ids = [make(mine, name=str(number)).id for number in range(5)]

    assert [each.id for each in mine.beta.assistants.list(limit=limit)] == ids[::-1]
    assert [each.id for each in mine.beta.assistants.list(limit=limit, order="asc")] == ids


def test_page_says_where_it_begins_and_ends(accounts: Accounts, mine: OpenAI, secret: str) -> None:
    ids = [make(mine).id for _ in range(4)]

    def page(query: str) -> Any:
        return ask(accounts.server, "GET", f"{PATH}?{query}", headers=bearer(secret)).json()

    first, before = page("limit=3"), page(f"order=asc&limit=2&before={ids[3]}")

    assert first["object"] == "list"
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[3], ids[1], True)
    assert ([row["id"] for row in before["data"]], before["has_more"]) == (ids[1:3], True)


def test_empty_list_has_no_ends(accounts: Accounts, secret: str) -> None:
    assert ask(accounts.server, "GET", PATH, headers=bearer(secret)).json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


async def test_asynchronous_client_does_it_all(accounts: Accounts, secret: str) -> None:
    async with open_async_client(accounts.server.url, key=secret) as client:
        assistants = client.beta.assistants
        made = [await assistants.create(model="talker", name=str(number)) for number in range(3)]
        changed = await assistants.update(made[0].id, name="other")
        gone = await assistants.delete(made[1].id)

        assert await assistants.retrieve(made[0].id) == changed
        assert gone.deleted
        listed = [each.id async for each in assistants.list(limit=1)]
        assert listed == [made[2].id, made[0].id]


def test_update_replaces_what_it_names(mine: OpenAI) -> None:
    made = make(mine, name="old", description="stays", tools=[WEATHER], metadata={"old": "1"})

    changed = mine.beta.assistants.update(
        made.id, name="new", tools=[{"type": "file_search"}], metadata={"new": "2"}
    )

    expected = {
        **made.to_dict(),
        "name": "new",
        "tools": [{"type": "file_search"}],
        "metadata": {"new": "2"},
    }
    assert changed.to_dict() == expected
    assert mine.beta.assistants.retrieve(made.id).to_dict() == expected


def test_null_clears_what_can_be_cleared(mine: OpenAI) -> None:
    bare = make(mine).to_dict()
    made = make(
        mine,
        name="n",
        description="d",
        instructions="i",
        metadata={"a": "b"},
        temperature=1,
        top_p=1,
        reasoning_effort="low",
        response_format={"type": "json_object"},
    )

    changed = mine.beta.assistants.update(
        made.id,
        name=None,
        description=None,
        instructions=None,
        metadata=None,
        temperature=None,
        top_p=None,
        reasoning_effort=None,
        response_format=None,
        tool_resources=None,
    )

    ends = {"id": made.id, "created_at": made.created_at}
    assert changed.to_dict() == {**bare, **ends}


def test_update_of_nothing_changes_nothing(accounts: Accounts, mine: OpenAI, secret: str) -> None:
    made = make(mine, name="n")

    assert mine.beta.assistants.update(made.id) == made
    bare = ask(accounts.server, "POST", f"{PATH}/{made.id}", headers=bearer(secret))
    assert bare.json() == made.to_dict()


def test_deleted_assistant_is_gone(mine: OpenAI) -> None:
    made = make(mine)

    deleted = mine.beta.assistants.delete(made.id)

    assert (deleted.id, deleted.deleted) == (made.id, True)
    assert list(mine.beta.assistants.list()) == []
    for call in (
        mine.beta.assistants.retrieve,
        mine.beta.assistants.update,
        mine.beta.assistants.delete,
    ):
        with pytest.raises(openai.NotFoundError, match=made.id):
            call(made.id)


def test_assistant_of_another_account_is_not_there(mine: OpenAI, theirs: OpenAI) -> None:
    made = make(mine)

    for call in (
        theirs.beta.assistants.retrieve,
        theirs.beta.assistants.update,
        theirs.beta.assistants.delete,
    ):
        with pytest.raises(openai.NotFoundError, match=made.id):
            call(made.id)
    assert list(theirs.beta.assistants.list()) == []
    with pytest.raises(openai.BadRequestError, match=f"after.*'{made.id}'"):
        theirs.beta.assistants.list(after=made.id)
    assert mine.beta.assistants.retrieve(made.id) == made


def post(accounts: Accounts, secret: str, body: object, path: str = PATH) -> Reply:
    return ask(accounts.server, "POST", path, body, headers=bearer(secret))


DEEP: dict[str, Any] = {}
for _ in range(200):
    DEEP = {"a": DEEP}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": 7}, "model"),
    ({"name": "x" * 257}, "name"),
    ({"name": 7}, "name"),
    ({"description": "x" * 513}, "description"),
    ({"instructions": "x" * 256_001}, "instructions"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"reasoning_effort": "much"}, "reasoning_effort"),
    ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
    ({"metadata": {"k" * 65: "x"}}, "metadata"),
    ({"metadata": {"k": "x" * 513}}, "metadata.k"),
    ({"metadata": {"k": 1}}, "metadata.k"),
    ({"metadata": []}, "metadata"),
    ({"tools": [WEATHER] * 129}, "tools"),
    ({"tools": WEATHER}, "tools"),
    ({"tools": [WEATHER, {"type": "code_interpreter"}]}, "tools[1].type"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]},
        "tools[0].function.parameters",
    ),
    (
        {"tools": [{"type": "file_search", "file_search": {"max_num_results": 51}}]},
        "tools[0].file_search.max_num_results",
    ),
    (
        {
            "tools": [
                {
                    "type": "file_search",
                    "file_search": {"ranking_options": {"score_threshold": 1.5}},
                }
            ]
        },
        "tools[0].file_search.ranking_options.score_threshold",
    ),
    (
        {"tool_resources": {"code_interpreter": {"file_ids": ["file-1"]}}},
        "tool_resources.code_interpreter.file_ids",
    ),
    (
        {"tool_resources": {"file_search": {"vector_store_ids": ["vs_1"]}}},
        "tool_resources.file_search.vector_store_ids[0]",
    ),
    ({"tool_resources": {"browser": {}}}, "tool_resources.browser"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "no spaces"}}},
        "response_format.json_schema.name",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": DEEP}}},
        "response_format.json_schema.schema",
    ),
    ({"file_ids": []}, "file_ids"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=lambda value: json.dumps(value)[:60])
def test_bad_values_are_refused_by_name_and_change_nothing(
    accounts: Accounts, mine: OpenAI, secret: str, fields: dict[str, Any], param: str
) -> None:
    made = make(mine)

    for path, body in ((PATH, {"model": "talker", **fields}), (f"{PATH}/{made.id}", fields)):
        reply = post(accounts, secret, body, path)
        assert (reply.status, reply.error()["param"]) == (400, param), reply.body[:500]
        assert len(reply.error()["message"]) < 500

    assert [each.to_dict() for each in mine.beta.assistants.list()] == [made.to_dict()]


def test_vector_store_to_be_made_is_refused_by_name(accounts: Accounts, secret: str) -> None:
    resources: dict[str, Any] = {"file_search": {"vector_stores": [{"file_ids": []}]}}

    reply = post(accounts, secret, {"model": "talker", "tool_resources": resources})

    assert (reply.status, reply.error()["code"]) == (400, "unsupported_parameter")
    assert reply.error()["param"] == "tool_resources.file_search.vector_stores"


def test_model_is_required(accounts: Accounts, secret: str) -> None:
    reply = post(accounts, secret, {})

    assert (reply.status, reply.error()["param"]) == (400, "model")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'"x"', b'{"name": "\\ud800"}'])
def test_body_that_is_no_object_is_refused(accounts: Accounts, secret: str, body: bytes) -> None:
    assert post(accounts, secret, body).status == 400


@pytest.mark.parametrize("name", ["no-such-model", "x" * 10_000, "", "talker+nobodys"])
def test_model_that_nobody_knows_is_a_404_that_names_it(mine: OpenAI, name: str) -> None:
    made = make(mine)
    calls: list[Callable[[], Assistant]] = [
        lambda: make(mine, model=name),
        lambda: mine.beta.assistants.update(made.id, model=name),
    ]

    for call in calls:
        with pytest.raises(openai.NotFoundError, match="does not exist") as raised:
            call()
        assert raised.value.param == "model"


def test_model_that_cannot_converse_is_refused(mine: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="text-embeddings") as raised:
        make(mine, model="encoder")

    assert raised.value.code == "wrong_task"


def test_model_that_the_key_may_not_use_is_a_403(accounts: Accounts) -> None:
    with accounts.client(allowed_models=("talker",)) as limited:
        made = make(limited)
        with pytest.raises(openai.PermissionDeniedError, match="'plain'"):
            make(limited, model="plain")
        with pytest.raises(openai.PermissionDeniedError, match="'plain'"):
            limited.beta.assistants.update(made.id, model="plain")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("order=up", "order"),
        ("after=asst_nobody", "after"),
        ("before=asst_nobody", "before"),
        ("after=a%00b", "after"),
    ],
)
def test_bad_pages_are_refused_by_name(
    accounts: Accounts, secret: str, query: str, param: str
) -> None:
    reply = ask(accounts.server, "GET", f"{PATH}?{query}", headers=bearer(secret))

    assert (reply.status, reply.error()["param"]) == (400, param)


@pytest.mark.parametrize("id_", ["asst_nobody", "a%00b", "%2e%2e", "x" * 5000, "%F0%9F%8C%8D"])
def test_unknown_ids_are_404(accounts: Accounts, secret: str, id_: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        reply = ask(accounts.server, method, f"{PATH}/{id_}", headers=bearer(secret))
        assert (reply.status, reply.error()["code"]) == (404, "not_found")


@pytest.mark.parametrize("version", ["assistants=v2", "responses=v1, assistants=v2", "other", ""])
def test_version_2_is_what_callers_get(accounts: Accounts, secret: str, version: str) -> None:
    headers = {**bearer(secret), "OpenAI-Beta": version}

    assert ask(accounts.server, "GET", PATH, headers=headers).status == 200


def test_another_version_is_refused_by_name(accounts: Accounts, secret: str) -> None:
    headers = {**bearer(secret), "OpenAI-Beta": "assistants=v1"}

    reply = ask(accounts.server, "GET", PATH, headers=headers)

    assert (reply.status, reply.error()["code"]) == (400, "invalid_beta")
    assert "'assistants=v1'" in reply.error()["message"]


def test_without_a_key_nothing_is_told(accounts: Accounts) -> None:
    for method, path in (("GET", PATH), ("POST", PATH), ("GET", "/v1/threads/thread_1")):
        assert ask(accounts.server, method, path).status == 401
