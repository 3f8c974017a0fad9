"""The Responses API on the embedded model, through the SDK and without it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseFunctionToolCall,
    ResponseStreamEvent,
)
from pydantic import BaseModel

from tests.api.accounts import Accounts
from tests.api.raw import Reply, ask, bearer, connected, request_bytes, reset
from tests.api.test_meaning import CHAT_MODEL
from tests.api.test_meaning import pytestmark as needs_models
from tests.api.weights import TestModels
from tests.conftest import ClientFor, StartServer
from tests.documents import pdf
from tests.scripted_model import REASONING_TEMPLATE, write_scripted_model
from tests.server import ServerProcess, wait_until

pytestmark = needs_models

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmM"
    "IQAAAABJRU5ErkJggg=="
)


def respond(client: OpenAI, given: Any = "Hello", **options: Any) -> Response:
    response = client.responses.create(
        **{"model": CHAT_MODEL, "input": given, "temperature": 0, **options}
    )
    assert isinstance(response, Response)
    return response


def stream(client: OpenAI, text: Any = "Hello", **options: Any) -> list[ResponseStreamEvent]:
    return list(
        client.responses.create(
            **{"model": CHAT_MODEL, "input": text, "temperature": 0, "stream": True, **options}
        )
    )


def call_of(response: Response) -> ResponseFunctionToolCall:
    (call,) = response.output
    assert isinstance(call, ResponseFunctionToolCall)
    return call


def id_of(events: list[ResponseStreamEvent]) -> str:
    assert isinstance(events[0], ResponseCreatedEvent)
    return events[0].response.id


def last_of(events: list[ResponseStreamEvent]) -> Response:
    assert isinstance(events[-1], ResponseCompletedEvent)
    return events[-1].response


def post(accounts: Accounts, secret: str, body: object) -> Reply:
    return ask(accounts.server, "POST", "/v1/responses", body, headers=bearer(secret))


def settled(client: OpenAI, response_id: str) -> Response:
    """Return a response in the background once it has ended."""
    found: list[Response] = []

    def is_over() -> bool:
        found[:] = [client.responses.retrieve(response_id)]
        return found[0].status not in {"queued", "in_progress"}

    wait_until(is_over, what=f"the end of {response_id}")
    return found[0]


def test_answer_can_be_fetched_again(mine: OpenAI) -> None:
    response = respond(mine, metadata={"a": "b"}, user="me", max_output_tokens=50)

    assert response.id.startswith("resp_")
    assert response.output_text.startswith("Hello")
    assert (response.status, response.metadata, response.user) == ("completed", {"a": "b"}, "me")
    assert response.usage is not None
    assert response.usage.output_tokens > 0
    assert mine.responses.retrieve(response.id) == response


def test_response_goes_on_from_the_one_before(mine: OpenAI) -> None:
    first = respond(mine, "My name is Anna.")

    second = respond(mine, "What is my name?", previous_response_id=first.id)

    assert "Anna" in second.output_text
    assert second.previous_response_id == first.id
    (item,) = mine.responses.input_items.list(second.id).data
    assert item.type == "message"
    assert respond(mine, "What is my name?").output_text != second.output_text


def test_function_is_called_and_its_result_is_used(mine: OpenAI) -> None:
    first = respond(mine, "What is the weather in Paris?", tools=[WEATHER])
    call = call_of(first)
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})

    second = respond(
        mine,
        [{"type": "function_call_output", "call_id": call.call_id, "output": "snow"}],
        previous_response_id=first.id,
        tools=[WEATHER],
    )

    assert "snow" in second.output_text


def test_function_is_called_over_the_items_themselves(mine: OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = respond(mine, asked, tools=[WEATHER], store=False)

    result = {
        "type": "function_call_output",
        "call_id": call_of(first).call_id,
        "output": [{"type": "input_text", "text": "hail"}],
    }
    again = [*asked, *(item.to_dict() for item in first.output), result]
    second = respond(mine, again, tools=[WEATHER], store=False)

    assert "hail" in second.output_text


@pytest.mark.parametrize("options", [{}, {"tools": [WEATHER], "tool_choice": "required"}])
def test_stream_equals_the_whole(mine: OpenAI, options: dict[str, Any]) -> None:
    whole = respond(mine, "Weather in Paris?", **options)

    events = stream(mine, "Weather in Paris?", **options)

    assert [event.sequence_number for event in events] == list(range(len(events)))
    streamed = last_of(events)
    for left, right in zip(streamed.output, whole.output, strict=True):
        named = {"id", "call_id"}
        assert left.model_dump(exclude=named) == right.model_dump(exclude=named)
    deltas = [
        event.delta
        for event in events
        if event.type in ("response.output_text.delta", "response.function_call_arguments.delta")
    ]
    (item,) = streamed.output
    text = item.arguments if item.type == "function_call" else streamed.output_text
    assert "".join(deltas) == text
    assert mine.responses.retrieve(streamed.id) == streamed


def test_sdk_s_stream_helper_ends_with_the_response(mine: OpenAI) -> None:
    with mine.responses.stream(model=CHAT_MODEL, input="Hello", temperature=0) as events:
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()

    assert "".join(texts) == final.output_text


def test_parsed_answer_fits_its_schema(mine: OpenAI) -> None:
    class City(BaseModel):
        city: str
        is_large: bool

    parsed = mine.responses.parse(
        model=CHAT_MODEL, input="Paris is large.", text_format=City, temperature=0
    )

    assert isinstance(parsed.output_parsed, City)
    json.loads(respond(mine, "JSON", text={"format": {"type": "json_object"}}).output_text)


def test_named_function_is_called(mine: OpenAI) -> None:
    other = {**WEATHER, "name": "get_time"}
    choice = {"type": "function", "name": "get_time"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [choice]}
    for tool_choice in (choice, allowed):
        called = respond(mine, "Paris?", tools=[WEATHER, other], tool_choice=tool_choice)
        assert call_of(called).name == "get_time"


def test_log_probabilities_are_told_when_they_are_wanted(mine: OpenAI) -> None:
    include = ["message.output_text.logprobs"]
    events = stream(mine, include=include, top_logprobs=2)

    (item,) = last_of(events).output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert "".join(each.token for each in part.logprobs).startswith(part.text)
    assert {len(each.top_logprobs) for each in part.logprobs} == {2}
    told = [e for e in events if e.type == "response.output_text.delta"]
    assert all(each.logprobs for each in told)


def test_answer_that_was_cut_off_says_so(mine: OpenAI) -> None:
    events = stream(mine, max_output_tokens=2)

    assert events[-1].type == "response.incomplete"
    cut = mine.responses.retrieve(id_of(events))
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_input_beyond_the_context_is_refused_or_cut(mine: OpenAI, is_streamed: bool) -> None:
    long = [
        *({"role": "user", "content": f"{number} " + "words " * 400} for number in range(40)),
        {"role": "user", "content": "What is the capital of France?"},
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        respond(mine, long, stream=is_streamed)
    assert caught.value.code == "context_length_exceeded"

    options: dict[str, Any] = {"truncation": "auto", "max_output_tokens": 50}
    if is_streamed:
        assert stream(mine, long, **options)[-1].type != "response.failed"
    else:
        assert respond(mine, long, **options).output


def test_what_is_not_stored_cannot_be_fetched(mine: OpenAI) -> None:
    response = respond(mine, store=False)

    with pytest.raises(openai.NotFoundError):
        mine.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        respond(mine, previous_response_id=response.id)


def test_background_response_is_fetched_when_it_is_there(mine: OpenAI) -> None:
    begun = respond(mine, background=True)
    assert (begun.status, begun.background, begun.output) == ("queued", True, [])

    done = settled(mine, begun.id)

    assert done.status == "completed"
    assert done.output_text == respond(mine).output_text
    assert mine.responses.cancel(begun.id) == done


def test_stream_is_taken_up_behind_any_event(mine: OpenAI) -> None:
    events = stream(mine, background=True)
    id_ = id_of(events)

    assert [event.type for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert list(mine.responses.retrieve(id_, stream=True)) == events
    for after in range(len(events)):
        again = mine.responses.retrieve(id_, stream=True, starting_after=after)
        assert list(again) == events[after + 1 :]
    with mine.responses.stream(response_id=id_, starting_after=3) as rest:
        assert rest.get_final_response().output_text == last_of(events).output_text


def test_deleted_response_is_gone(mine: OpenAI) -> None:
    first = respond(mine)
    second = respond(mine, previous_response_id=first.id)

    mine.responses.delete(first.id)

    with pytest.raises(openai.NotFoundError):
        mine.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        mine.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        respond(mine, previous_response_id=second.id)
    assert first.id in caught.value.message


def test_other_account_finds_nothing(mine: OpenAI, theirs: OpenAI) -> None:
    first = respond(mine, background=True)
    item_id = settled(mine, first.id).output[0].id

    for attempt in (
        lambda: theirs.responses.retrieve(first.id),
        lambda: theirs.responses.retrieve(first.id, stream=True),
        lambda: theirs.responses.cancel(first.id),
        lambda: theirs.responses.delete(first.id),
        lambda: theirs.responses.input_items.list(first.id),
        lambda: respond(theirs, previous_response_id=first.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.BadRequestError):
        respond(theirs, [{"type": "item_reference", "id": item_id}])
    assert mine.responses.retrieve(first.id).status == "completed"


def test_input_items_come_in_pages(mine: OpenAI) -> None:
    texts = ["One.", "Two.", "Three."]
    asked = [{"role": "user", "content": text} for text in texts]
    response = respond(mine, asked)

    items = mine.responses.input_items.list(response.id, order="asc", limit=2)
    found = [item.to_dict()["content"] for item in items]

    assert found == [[{"type": "input_text", "text": text}] for text in texts]
    newest = mine.responses.input_items.list(response.id, limit=1).data
    assert [item.id for item in newest] == [list(items)[-1].id]


def test_tokens_of_an_input_are_those_of_its_answer(mine: OpenAI) -> None:
    first = respond(mine, "My name is Anna.")
    options: dict[str, Any] = {
        "model": CHAT_MODEL,
        "input": "Weather?",
        "tools": [WEATHER],
        "instructions": "Be brief.",
        "previous_response_id": first.id,
    }

    counted = mine.responses.input_tokens.count(**options)

    response = mine.responses.create(**options)
    assert response.usage is not None
    assert counted.input_tokens == response.usage.input_tokens


def test_compaction_takes_the_place_of_what_it_compacts(mine: OpenAI) -> None:
    first = respond(mine, "My name is Anna.")

    compacted = mine.responses.compact(model=CHAT_MODEL, previous_response_id=first.id)

    (item,) = compacted.output
    assert item.type == "compaction"
    assert compacted.usage.output_tokens > 0
    asked = [item.to_dict(), {"role": "user", "content": "Hello"}]
    assert respond(mine, asked).status == "completed"


def test_text_of_a_file_is_read(mine: OpenAI) -> None:
    file = mine.files.create(file=("note.txt", b"My name is Anna."), purpose="user_data")
    plain = respond(mine, "What is my name?")

    content = [
        {"type": "input_file", "file_id": file.id},
        {"type": "input_text", "text": "What is my name?"},
    ]
    read = respond(mine, [{"role": "user", "content": content}])

    assert read.usage is not None
    assert plain.usage is not None
    assert read.usage.input_tokens > plain.usage.input_tokens


def test_document_is_read_as_its_text_is(mine: OpenAI) -> None:
    text = "My name is Anna."
    data = b64encode(pdf([text])).decode()
    name = "note.pdf"

    def tokens(data: str) -> int:
        part = {"type": "input_file", "filename": name, "file_data": data}
        item: Any = {"role": "user", "content": [part]}
        return mine.responses.input_tokens.count(model=CHAT_MODEL, input=[item]).input_tokens

    as_text = tokens(b64encode(text.encode()).decode())
    assert abs(tokens(f"data:application/pdf;base64,{data}") - as_text) <= 3  # line ends


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": [{"role": "user", "content": []}]}, "input[0].content"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "web_search_call", "id": "x", "status": "completed"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "input[0].call_id",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://a/b.png"}],
                    }
                ]
            },
            "input[0].content[0].image_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "x"}]}]},
            "input[0].content[0].file_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "?"}]}]},
            "input[0].content[0].file_data",
        ),
        (
            {"input": [{"type": "compaction", "encrypted_content": "x"}]},
            "input[0].encrypted_content",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [{**WEATHER, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice.type"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"background": True, "store": False}, "background"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"prompt": {"id": "pmpt_x"}}, "prompt"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"truncation": "middle"}, "truncation"),
        ({"previous_response_id": "a", "conversation": "b"}, "previous_response_id"),
        ({"no_such_field": 1}, "no_such_field"),
    ],
)
def test_bad_field_is_named(
    accounts: Accounts, secret: str, fields: dict[str, Any], param: str
) -> None:
    body = {"model": CHAT_MODEL, "input": "Hello", **fields}
    reply = post(accounts, secret, {k: v for k, v in body.items() if v is not None})

    assert reply.status == 400, reply.body
    assert reply.error()["param"].startswith(param)


def test_unknown_model_is_an_error_of_the_request(mine: OpenAI) -> None:
    for options in ({}, {"stream": True}, {"background": True}):
        with pytest.raises(openai.NotFoundError) as caught:
            mine.responses.create(model="nobody", input="Hello", **options)  # type: ignore[call-overload] # each of them is right
        assert caught.value.code == "model_not_found"


def test_wrong_number_of_an_event_is_refused(accounts: Accounts, secret: str, mine: OpenAI) -> None:
    id_ = id_of(stream(mine, background=True))
    for query in (
        "stream=true&starting_after=x",
        "stream=true&starting_after=999",
        "starting_after=1",
    ):
        path = f"/v1/responses/{id_}?{query}"
        reply = ask(accounts.server, "GET", path, headers=bearer(secret))
        assert (reply.status, reply.error()["param"]) == (400, "starting_after")


def test_picture_is_refused_by_a_model_that_cannot_see(mine: OpenAI) -> None:
    content = [{"type": "input_image", "image_url": PIXEL}, {"type": "input_text", "text": "?"}]

    with pytest.raises(openai.BadRequestError):
        respond(mine, [{"role": "user", "content": content}])


def test_account_s_path_of_workers_ai_answers_as_well(accounts: Accounts) -> None:
    operator = bearer("the-operator's")
    for path in (
        "/client/v4/accounts/default/ai/v1/responses",
        "/gateway/v1/default/default/workers-ai/v1/responses",
    ):
        body = {"model": CHAT_MODEL, "input": "Hello", "temperature": 0}
        reply = ask(accounts.server, "POST", path, body, headers=operator)
        assert reply.status == 200, reply.body
        answer = reply.json()
        assert answer["output"][0]["content"][0]["text"].startswith("Hello")
        kept = ask(accounts.server, "GET", f"/v1/responses/{answer['id']}", headers=operator)
        assert kept.json() == answer

        streamed = ask(accounts.server, "POST", path, {**body, "stream": True}, headers=operator)
        assert streamed.body.startswith(b"event: response.created\ndata: ")
        assert b"event: response.completed\n" in streamed.body


def test_batch_of_responses_is_answered(mine: OpenAI) -> None:
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"model": CHAT_MODEL, "input": "Hello", "temperature": 0},
    }
    file = mine.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = mine.batches.create(
        input_file_id=file.id, endpoint="/v1/responses", completion_window="24h"
    )
    wait_until(
        lambda: mine.batches.retrieve(batch.id).status in {"completed", "failed"},
        what="the end of the batch",
    )

    done = mine.batches.retrieve(batch.id)
    assert done.output_file_id is not None
    answer = json.loads(mine.files.content(done.output_file_id).text)
    text = answer["response"]["body"]["output"][0]["content"][0]["text"]
    assert text == respond(mine).output_text


def test_reasoning_is_an_item_of_its_own(
    start_server: StartServer, client_for: ClientFor, tmp_path: Path
) -> None:
    path = tmp_path / "thinker.gguf"
    script = ["<think>", "\nHm", ".\n", "</think>", "\n\n", "Yes"]
    write_scripted_model(path, script, template=REASONING_TEMPLATE)
    client = client_for(start_server({"models": [str(path)]}))
    options: dict[str, Any] = {"model": "thinker", "include": ["reasoning.encrypted_content"]}

    events = stream(client, "Really?", **options)

    items: list[Any] = [item.to_dict() for item in last_of(events).output]
    first, second = items
    assert (first["type"], second["type"]) == ("reasoning", "message")
    (thought,) = first["content"]
    assert (thought["type"], thought["text"].strip()) == ("reasoning_text", "Hm.")
    assert last_of(events).output_text == "Yes"
    kinds = [event.type for event in events]
    assert kinds.index("response.reasoning_text.done") < kinds.index("response.output_text.delta")
    del first["content"]
    again = [
        {"role": "user", "content": "Really?"},
        first,
        second,
        {"role": "user", "content": "?"},
    ]
    assert respond(client, again, **options).output_text == "Yes"


def test_caller_who_hangs_up_cancels_the_response(
    start_server: StartServer, client_for: ClientFor, models: TestModels
) -> None:
    server = start_server({"models": [str(models.slow)]})
    client = client_for(server)
    body = {"model": "slow", "input": "Hello", "stream": True, "max_output_tokens": 2000}
    with connected(server) as connection:
        connection.sendall(request_bytes("/v1/responses", body))
        head = b""
        while b"response.output_text.delta" not in head:
            head += connection.recv(65536)
        reset(connection)
    id_ = json.loads(head.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]

    assert settled(client, id_).status == "cancelled"
    assert server.in_flight() == 0


def test_background_responses_survive_a_killed_server(
    client_for: ClientFor, models: TestModels, tmp_path: Path
) -> None:
    flags = {"models": [str(models.slow)], "jobs.lease_s": 1.0}
    options: dict[str, Any] = {"model": "slow", "input": "Hello", "max_output_tokens": 150}
    with serving(flags, tmp_path) as server:
        client = client_for(server)
        plain = client.responses.create(**options, background=True)
        told = client.responses.create(**options, background=True, stream=True)
        events = list(islice(told, 20))
        listened_to = client.responses.create(**options, stream=True)
        lost_id = id_of([next(listened_to)])
        server.kill()

    with serving(flags, tmp_path) as server:
        client = client_for(server)
        assert settled(client, plain.id).status in {"completed", "incomplete"}
        again = list(client.responses.retrieve(id_of(events), stream=True))
        assert again[: len(events)] == events
        deltas = [event.delta for event in again if event.type == "response.output_text.delta"]
        assert "".join(deltas) == client.responses.retrieve(id_of(events)).output_text
        assert settled(client, lost_id).status == "failed"


@contextmanager
def serving(flags: dict[str, Any], folder: Path) -> Iterator[ServerProcess]:
    """Run a server on a folder, which another one may have left."""
    server = ServerProcess(flags, folder)
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()
