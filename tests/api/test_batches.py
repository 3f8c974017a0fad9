"""Batches, through the SDK: every endpoint, what is refused, cancelled, and killed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from tests.api.accounts import Accounts
from tests.api.asks import HELLO, NO_END
from tests.api.raw import ask, bearer
from tests.api.weights import WIDTH, TestModels
from tests.conftest import open_client
from tests.server import SETTLE_S, ServerProcess, wait_until

CHAT: Final = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}
BODIES: Mapping[str, dict[str, Any]] = {
    CHAT: {"model": "talker", "messages": HELLO, "max_tokens": 5, "logit_bias": NO_END},
    "/v1/completions": {"model": "talker", "prompt": "Once", "max_tokens": 5, "logit_bias": NO_END},
    "/v1/embeddings": {"model": "encoder", "input": "Once", "encoding_format": "float"},
    "/v1/responses": {"model": "talker", "input": "Hello", "max_output_tokens": 16},
}


@pytest.fixture
def mine(accounts: Accounts) -> Iterator[OpenAI]:
    """A client of an account of the test's own."""
    with accounts.client() as client:
        yield client


def line(custom_id: str, url: str = CHAT, **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": BODIES[url], **fields}


def keep(client: OpenAI, *lines: object) -> str:
    """Upload lines; return the file's id."""
    data = "\n".join(map(json.dumps, lines)).encode()
    return client.files.create(file=("requests.jsonl", data), purpose="batch").id


def begin(client: OpenAI, *lines: object, endpoint: Any = CHAT, **options: Any) -> Batch:
    return client.batches.create(
        completion_window="24h",
        endpoint=endpoint,
        input_file_id=keep(client, *lines),
        **options,
    )


def ended(client: OpenAI, batch: Batch) -> Batch:
    """Poll until a batch is over, as callers do."""
    end_s = time.monotonic() + SETTLE_S
    while batch.status not in ENDED:
        assert time.monotonic() < end_s, batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def content(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of a file by their custom ids, of which none comes twice."""
    if file_id is None:
        return {}
    lines = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    found = {each["custom_id"]: each for each in lines}
    assert len(found) == len(lines)
    return found


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    given = batch.request_counts
    return given.total, given.completed, given.failed


@pytest.mark.parametrize("endpoint", BODIES)
def test_every_line_has_the_answer_of_its_route(mine: OpenAI, endpoint: str) -> None:
    names = [f"request-{number}" for number in range(7)]

    begun = begin(mine, *(line(name, endpoint) for name in names), endpoint=endpoint)
    done = ended(mine, begun)

    assert (begun.status, begun.endpoint, begun.completion_window) == (
        "validating",
        endpoint,
        "24h",
    )
    assert begun.expires_at == begun.created_at + 86_400
    assert (done.status, counts(done), done.error_file_id) == ("completed", (7, 7, 0), None)
    assert done.model == BODIES[endpoint]["model"]
    assert done.completed_at is not None
    output = content(mine, done.output_file_id)
    assert list(output) == names
    assert done.usage is not None
    total = 0
    for each in output.values():
        assert each["id"].startswith("batch_req_")
        assert (each["error"], each["response"]["status_code"]) == (None, 200)
        assert each["response"]["request_id"].startswith("req_")
        total += each["response"]["body"]["usage"]["total_tokens"]
    assert done.usage.total_tokens == total > 0


def test_answers_are_what_their_kind_needs(mine: OpenAI) -> None:
    url = "/v1/embeddings"
    chat = content(mine, ended(mine, begin(mine, line("a"))).output_file_id)["a"]
    vector = content(mine, ended(mine, begin(mine, line("a", url), endpoint=url)).output_file_id)[
        "a"
    ]

    assert chat["response"]["body"]["choices"][0]["message"]["content"]
    assert chat["response"]["body"]["usage"]["completion_tokens"] == 5
    assert len(vector["response"]["body"]["data"][0]["embedding"]) == WIDTH


def test_output_is_a_file_with_the_life_that_was_asked_for(mine: OpenAI) -> None:
    policy: Any = {"anchor": "created_at", "seconds": 3600}
    done = ended(mine, begin(mine, line("a"), output_expires_after=policy))

    assert done.output_file_id is not None
    file = mine.files.retrieve(done.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{done.id}_output.jsonl")
    assert file.expires_at == file.created_at + 3600
    assert file in mine.files.list(purpose="batch_output").data


def test_refused_lines_are_told_as_the_route_tells_them(mine: OpenAI) -> None:
    hot = {**BODIES[CHAT], "temperature": 9}
    long = {**BODIES[CHAT], "messages": [{"role": "user", "content": "word " * 5000}]}
    streamed = {**BODIES[CHAT], "stream": True}

    done = ended(
        mine,
        begin(
            mine,
            line("good"),
            line("hot", body=hot),
            line("long", body=long),
            line("streamed", body=streamed),
        ),
    )

    assert (done.status, counts(done)) == ("completed", (4, 1, 3))
    assert set(content(mine, done.output_file_id)) == {"good"}
    errors = content(mine, done.error_file_id)
    assert {
        name: (each["response"]["status_code"], each["response"]["body"]["error"]["param"])
        for name, each in errors.items()
    } == {"hot": (400, "temperature"), "long": (400, "messages"), "streamed": (400, "stream")}
    assert errors["long"]["response"]["body"]["error"]["code"] == "context_length_exceeded"


def test_response_in_the_background_is_no_line_of_a_batch(mine: OpenAI) -> None:
    url = "/v1/responses"
    later = {**BODIES[url], "background": True}

    done = ended(mine, begin(mine, line("later", url, body=later), endpoint=url))

    refused = content(mine, done.error_file_id)["later"]["response"]["body"]["error"]
    assert (refused["code"], refused["param"]) == ("unsupported_parameter", "background")


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (line("b", url="/v1/completions"), "invalid_url", "url"),
        (line("a"), "duplicate_custom_id", "custom_id"),
        (line("b", body={**BODIES[CHAT], "model": "plain"}), "model_mismatch", "body.model"),
        ({"custom_id": "b", "method": "POST", "url": CHAT}, "missing_required_parameter", "body"),
    ],
)
def test_bad_line_fails_the_batch_and_is_named(
    mine: OpenAI, bad: dict[str, Any], code: str, param: str
) -> None:
    done = ended(mine, begin(mine, line("a"), bad))

    assert (done.status, counts(done)) == ("failed", (0, 0, 0))
    assert done.failed_at is not None
    assert (done.output_file_id, done.error_file_id) == (None, None)
    assert done.errors is not None
    (error,) = done.errors.data or []
    assert (error.line, error.code, error.param) == (2, code, param)


def test_line_that_is_not_json_is_refused_when_it_comes(mine: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        mine.files.create(file=("a.jsonl", b'{"a": 1}\n{oops'), purpose="batch")

    assert caught.value.code == "invalid_jsonl"
    assert "line 2" in caught.value.message


@pytest.mark.parametrize(
    ("model", "code"), [("nobody", "model_not_found"), ("encoder", "wrong_task")]
)
def test_model_that_cannot_answer_fails_the_batch(mine: OpenAI, model: str, code: str) -> None:
    done = ended(mine, begin(mine, line("a", body={**BODIES[CHAT], "model": model})))

    assert done.errors is not None
    (error,) = done.errors.data or []
    assert (done.status, error.code, error.param, error.line) == ("failed", code, "body.model", 1)


def test_key_answers_only_with_models_that_it_may_use(accounts: Accounts) -> None:
    with accounts.client(allowed_models=("encoder",)) as client:
        done = ended(client, begin(client, line("a")))

    assert done.errors is not None
    assert [error.code for error in done.errors.data or []] == ["model_not_allowed"]


def test_account_whose_gateway_guards_what_is_said_has_no_batches(accounts: Accounts) -> None:
    client = open_client(accounts.server.url, key="the-operator's")
    gateway = {
        "id": "default",
        "cache_invalidate_on_update": False,
        "cache_ttl": 0,
        "collect_logs": True,
        "rate_limiting_interval": 0,
        "rate_limiting_limit": 0,
        "guardrails": {"prompt": {"P1": "BLOCK"}, "response": {}},
    }
    path = "/client/v4/accounts/default/ai-gateway/gateways"
    secret = bearer("the-operator's")
    reply = ask(accounts.server, "PUT", f"{path}/default", gateway, headers=secret)
    if reply.status == 404:
        reply = ask(accounts.server, "POST", path, gateway, headers=secret)
    assert reply.status == 200, reply.body
    time.sleep(2)  # so long do gateways take to be known everywhere

    with client:
        done = ended(client, begin(client, line("a")))

    assert done.errors is not None
    assert [error.code for error in done.errors.data or []] == ["gateway_guards"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"endpoint": "/v1/nothing"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-nobody"}, "input_file_id"),
        ({"input_file_id": "file\0"}, "input_file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
            "output_expires_after.seconds",
        ),
    ],
)
def test_request_that_is_wrong_is_refused_at_its_place(
    accounts: Accounts, changes: dict[str, Any], param: str
) -> None:
    secret = accounts.secret()
    with open_client(accounts.server.url, key=secret) as client:
        good = {
            "completion_window": "24h",
            "endpoint": CHAT,
            "input_file_id": keep(client, line("a")),
        }

    reply = ask(accounts.server, "POST", "/v1/batches", {**good, **changes}, headers=bearer(secret))

    assert (reply.status, reply.error()["param"]) == (400, param)


def test_file_for_something_else_is_no_input(mine: OpenAI) -> None:
    file = mine.files.create(file=("a.jsonl", b"{}"), purpose="user_data")

    with pytest.raises(openai.BadRequestError, match="'user_data'") as caught:
        mine.batches.create(completion_window="24h", endpoint=CHAT, input_file_id=file.id)
    assert caught.value.param == "input_file_id"


def test_batches_are_listed_newest_first_with_cursors(mine: OpenAI) -> None:
    made = [begin(mine, line("a"), metadata={"n": str(number)}).id for number in range(3)]

    assert {batch.id for batch in mine.batches.list()} == set(made)  # pages are followed
    first = mine.batches.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    rest = mine.batches.list(limit=2, after=first.data[-1].id)
    assert [batch.metadata for batch in [*first.data, *rest.data]] == [
        {"n": "2"},
        {"n": "1"},
        {"n": "0"},
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        mine.batches.list(after="batch_nobody")
    assert caught.value.param == "after"


def test_batch_of_another_account_is_not_there(mine: OpenAI, accounts: Accounts) -> None:
    batch = begin(mine, line("a"))
    with accounts.client() as theirs:
        for call in (theirs.batches.retrieve, theirs.batches.cancel):
            with pytest.raises(openai.NotFoundError, match=batch.id):
                call(batch.id)
        assert theirs.batches.list().data == []
        with pytest.raises(openai.BadRequestError):  # nor is its file
            theirs.batches.create(
                completion_window="24h", endpoint=CHAT, input_file_id=batch.input_file_id
            )


def test_cancelled_batch_keeps_what_was_answered(mine: OpenAI) -> None:
    long = {**BODIES[CHAT], "max_tokens": 3000}
    names = [f"long-{number}" for number in range(60)]
    batch = begin(mine, line("short"), *(line(name, body=long) for name in names))
    wait_until(lambda: counts(mine.batches.retrieve(batch.id))[1] > 0, what="the first answer")

    asked = mine.batches.cancel(batch.id)
    assert asked.status in {"cancelling", "cancelled"}
    assert mine.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
    done = ended(mine, asked)

    assert done.status == "cancelled"
    assert done.cancelling_at is not None
    assert done.cancelled_at is not None
    output, errors = content(mine, done.output_file_id), content(mine, done.error_file_id)
    assert output.keys().isdisjoint(errors)
    assert output.keys() | errors.keys() == {"short", *names}
    assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}
    assert counts(done) == (61, len(output), 0)


def test_batch_that_is_over_cannot_be_cancelled(mine: OpenAI) -> None:
    done = ended(mine, begin(mine, line("a")))

    with pytest.raises(openai.ConflictError, match="'completed'"):
        mine.batches.cancel(done.id)


def test_every_line_leaves_one_record_of_its_route(mine: OpenAI, accounts: Accounts) -> None:
    done = ended(mine, begin(mine, *(line(f"n{number}") for number in range(5))))

    for each in content(mine, done.output_file_id).values():
        record = accounts.server.record_of(each["response"]["request_id"])
        assert (record.route, record.model, record.outcome) == (CHAT, "talker", "ok")
        assert record.usage.completion_tokens == 5
        assert record.first_token_ms is None  # nobody waited for it


def test_killed_server_goes_on_where_it_was(models: TestModels, tmp_path: Path) -> None:
    names = [f"request-{number}" for number in range(400)]
    flags = {"models": [str(models.talker)], "jobs.lease_s": 0.5, "jobs.look_every_s": 0.1}
    server = ServerProcess(flags, tmp_path)
    with open_client(server.url) as client:
        batch = begin(client, *map(line, names))
    for at_least in (20, 200):
        seen = answered(server, batch, at_least)
        server.kill()
        server = ServerProcess(flags, tmp_path)
        assert answered(server, batch, 0) >= seen

    with open_client(server.url) as client:
        done = ended(client, batch)
        assert (done.status, counts(done)) == ("completed", (400, 400, 0))
        assert list(content(client, done.output_file_id)) == names
    assert server.stop() == 0


def answered(server: ServerProcess, batch: Batch, at_least: int) -> int:
    """Wait for so many answers; return how many there are."""
    with open_client(server.url) as client:

        def number() -> int:
            return counts(client.batches.retrieve(batch.id))[1]

        wait_until(lambda: number() >= at_least, what=f"{at_least} answers")
        return number()
