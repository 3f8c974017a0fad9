"""Assistants at work on threads: with the embedded model, through each of the SDK's helpers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from typing import Any

import httpx2
import openai
import pytest
from openai import AssistantEventHandler, OpenAI
from openai.types.beta import Assistant, AssistantStreamEvent
from openai.types.beta.threads import Message, Run, TextContentBlock
from typing_extensions import override

from tests.api.raw import Reply, ask
from tests.conftest import StartServer, open_client
from tests.server import ServerProcess, wait_until

MODEL = "@openworks/tiny-chat"

pytestmark = [
    # The SDK calls all of the Assistants API deprecated.
    pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning"),
    pytest.mark.skipif(
        not files("openworks").joinpath("models", "tiny-chat", "model.gguf").is_file(),
        reason="the embedded models are not in this checkout; training/ makes them",
    ),
]

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK_WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
LONG: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "numbers",
        "schema": {
            "type": "array",
            "minItems": 40,
            "items": {"type": "array", "minItems": 40, "items": {"type": "integer"}},
        },
    },
}
"""What takes noise long to write."""
HOT = '{"temperature": 21}'


@pytest.fixture(scope="module")
def weather_man(client: OpenAI) -> Assistant:
    return client.beta.assistants.create(model=MODEL, tools=[WEATHER], temperature=0)


@pytest.fixture(scope="module")
def talker(client: OpenAI) -> Assistant:
    return client.beta.assistants.create(model=MODEL, temperature=0)


@pytest.fixture
def endless(client: OpenAI) -> Iterator[Run]:
    """A run that writes until it is cancelled."""
    assistant = client.beta.assistants.create(model="talker", response_format=LONG)
    run = client.beta.threads.create_and_run(
        assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": "Hello"}]}
    )
    yield run
    with suppress(openai.NotFoundError):
        client.beta.threads.delete(run.thread_id)


def thread_of(client: OpenAI, *texts: str) -> str:
    messages: Any = [{"role": "user", "content": text} for text in texts]
    return client.beta.threads.create(messages=messages).id


def said(message: Message) -> str:
    (part,) = message.content
    assert isinstance(part, TextContentBlock)
    return part.text.value


def last_said(client: OpenAI, run: Run) -> str:
    assert run.status == "completed", run.last_error
    return said(next(iter(client.beta.threads.messages.list(run.thread_id, run_id=run.id))))


def outputs_of(run: Run) -> Any:
    assert run.required_action is not None
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": HOT} for call in calls]


def test_tool_is_called_with_the_right_argument_and_its_result_is_used(
    client: OpenAI, weather_man: Assistant
) -> None:
    thread_id = thread_of(client, "What is the weather in Paris?")
    runs = client.beta.threads.runs

    run = runs.create_and_poll(thread_id=thread_id, assistant_id=weather_man.id)
    assert run.status == "requires_action"
    assert run.required_action is not None
    (call,) = run.required_action.submit_tool_outputs.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert run.usage is None

    run = runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=thread_id, tool_outputs=outputs_of(run)
    )

    assert "21" in last_said(client, run)
    assert run.usage is not None
    steps = list(runs.steps.list(run.id, thread_id=thread_id, order="asc", limit=1))
    assert [step.type for step in steps] == ["tool_calls", "message_creation"]
    assert steps == [
        runs.steps.retrieve(step.id, run_id=run.id, thread_id=thread_id) for step in steps
    ]
    assert sum(step.usage.total_tokens for step in steps if step.usage) == run.usage.total_tokens


def test_earlier_message_of_the_thread_is_recalled(client: OpenAI, talker: Assistant) -> None:
    thread_id = thread_of(client, "My name is Ada.")
    runs = client.beta.threads.runs
    runs.create_and_poll(thread_id=thread_id, assistant_id=talker.id)
    client.beta.threads.messages.create(thread_id, role="user", content="What is my name?")

    run = runs.create_and_poll(thread_id=thread_id, assistant_id=talker.id)

    assert "Ada" in last_said(client, run)
    listed = list(runs.list(thread_id, limit=1))
    assert len(listed) == 2
    assert listed[0] == run


class Handler(AssistantEventHandler):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.text = ""
        self.arguments = ""
        self.ended = 0

    @override
    def on_event(self, event: AssistantStreamEvent) -> None:
        self.events.append(event.event)

    @override
    def on_text_delta(self, delta: Any, snapshot: Any) -> None:
        self.text += delta.value
        assert snapshot.value == self.text

    @override
    def on_tool_call_done(self, tool_call: Any) -> None:
        self.arguments = tool_call.function.arguments

    @override
    def on_end(self) -> None:
        self.ended += 1


def test_event_handlers_hear_a_run_from_its_beginning_to_its_end(
    client: OpenAI, weather_man: Assistant
) -> None:
    first = Handler()
    with client.beta.threads.create_and_run_stream(
        assistant_id=weather_man.id, thread={"messages": ASK_WEATHER}, event_handler=first
    ) as stream:
        stream.until_done()
        run = stream.get_final_run()

    assert first.events[:4] == [
        "thread.created",
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
    ]
    assert first.events[-1] == "thread.run.requires_action"
    assert json.loads(first.arguments) == {"city": "Paris"}
    assert first.ended == 1

    second = Handler()
    with client.beta.threads.runs.submit_tool_outputs_stream(
        run_id=run.id,
        thread_id=run.thread_id,
        tool_outputs=outputs_of(run),
        event_handler=second,
    ) as stream:
        stream.until_done()

    assert second.events[-1] == "thread.run.completed"
    (message,) = second.get_final_messages()
    assert second.text == said(message)
    assert "21" in second.text
    assert [step.status for step in second.get_final_run_steps()] == ["in_progress"]
    run = client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)
    assert second.get_final_run() == run


def test_plain_streams_end_with_the_run(client: OpenAI, talker: Assistant) -> None:
    thread_id = thread_of(client, "Repeat after me: green lamp")

    with client.beta.threads.runs.stream(thread_id=thread_id, assistant_id=talker.id) as stream:
        text = "".join(stream.text_deltas)
    assert "green lamp" in text

    client.beta.threads.messages.create(thread_id, role="user", content="Repeat after me: red box")
    events = list(client.beta.threads.runs.create(thread_id, assistant_id=talker.id, stream=True))
    assert events[-1].event == "thread.run.completed"


def test_run_overrides_its_assistant(client: OpenAI, talker: Assistant) -> None:
    run = client.beta.threads.create_and_run_poll(
        assistant_id=talker.id,
        thread={"messages": ASK_WEATHER},
        instructions="One.",
        tools=[WEATHER],
        tool_choice="none",
        temperature=0.5,
        top_p=0.5,
        max_completion_tokens=1,
        max_prompt_tokens=500,
        truncation_strategy={"type": "last_messages", "last_messages": 1},
        metadata={"a": "b"},
        response_format={"type": "text"},
        parallel_tool_calls=False,
    )

    assert run.status == "incomplete"
    assert run.incomplete_details is not None
    assert run.incomplete_details.reason == "max_completion_tokens"
    assert run.usage is not None
    assert run.usage.completion_tokens == 1
    assert (run.instructions, run.temperature, run.top_p) == ("One.", 0.5, 0.5)
    assert (run.tool_choice, run.metadata) == ("none", {"a": "b"})
    (message,) = client.beta.threads.messages.list(run.thread_id, run_id=run.id)
    assert message.status == "incomplete"
    changed = client.beta.threads.runs.update(run.id, thread_id=run.thread_id, metadata={"c": "d"})
    assert changed.to_dict() == {**run.to_dict(), "metadata": {"c": "d"}}


def test_additional_instructions_and_messages_come_behind_the_others(
    client: OpenAI, talker: Assistant
) -> None:
    run = client.beta.threads.runs.create_and_poll(
        thread_id=thread_of(client, "My name is Ada."),
        assistant_id=talker.id,
        instructions="One.",
        additional_instructions="Two.",
        additional_messages=[{"role": "user", "content": "What is my name?"}],
    )

    assert run.instructions == "One.\nTwo."
    assert "Ada" in last_said(client, run)
    messages = client.beta.threads.messages.list(run.thread_id, order="asc")
    assert [each.role for each in messages] == ["user", "user", "assistant"]


def test_cancelled_run_keeps_what_it_wrote_and_frees_its_thread(
    client: OpenAI, endless: Run
) -> None:
    thread_id = endless.thread_id
    with pytest.raises(openai.BadRequestError, match=endless.id):
        client.beta.threads.messages.create(thread_id, role="user", content="Stop")
    with pytest.raises(openai.BadRequestError, match=endless.id):
        client.beta.threads.runs.create(thread_id, assistant_id=endless.assistant_id)

    run = client.beta.threads.runs.cancel(endless.id, thread_id=thread_id)
    assert run.status == "cancelling"
    run = client.beta.threads.runs.poll(endless.id, thread_id)

    assert run.status == "cancelled"
    client.beta.threads.messages.create(thread_id, role="user", content="Thanks")
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.beta.threads.runs.cancel(endless.id, thread_id=thread_id)


def test_stream_of_a_run_that_is_cancelled_ends_with_it(client: OpenAI) -> None:
    assistant = client.beta.assistants.create(model="talker", response_format=LONG)
    handler = Handler()
    with client.beta.threads.create_and_run_stream(
        assistant_id=assistant.id,
        thread={"messages": [{"role": "user", "content": "Hello"}]},
        event_handler=handler,
    ) as stream:
        for event in stream:
            if event.event == "thread.message.delta":
                run = stream.current_run
                assert run is not None
                client.beta.threads.runs.cancel(run.id, thread_id=run.thread_id)
                break
        stream.until_done()

    assert handler.events[-4:] == [
        "thread.run.cancelling",
        "thread.message.incomplete",
        "thread.run.step.cancelled",
        "thread.run.cancelled",
    ]
    (message,) = handler.get_final_messages()
    assert said(message) == handler.text


def test_thread_that_is_deleted_ends_its_run(
    client: OpenAI, endless: Run, server: ServerProcess
) -> None:
    client.beta.threads.delete(endless.thread_id)

    with pytest.raises(openai.NotFoundError):
        client.beta.threads.runs.retrieve(endless.id, thread_id=endless.thread_id)
    wait_until(lambda: server.in_flight() == 0, what="the end of the run")


def test_listener_hears_that_the_thread_was_deleted(client: OpenAI) -> None:
    assistant = client.beta.assistants.create(model="talker", response_format=LONG)
    stream = client.beta.threads.create_and_run(
        assistant_id=assistant.id,
        thread={"messages": [{"role": "user", "content": "Hello"}]},
        stream=True,
    )
    for event in stream:
        if event.event == "thread.run.in_progress":
            client.beta.threads.delete(event.data.thread_id)
            break

    with pytest.raises(openai.APIError, match="was deleted"):
        list(stream)


def post(server: ServerProcess, path: str, body: object) -> Reply:
    return ask(server, "POST", f"/v1/threads/{path}", body)


def test_outputs_that_are_not_wanted_are_refused_by_name(
    client: OpenAI, server: ServerProcess, weather_man: Assistant
) -> None:
    run = client.beta.threads.create_and_run_poll(
        assistant_id=weather_man.id, thread={"messages": ASK_WEATHER}
    )
    (good,) = outputs_of(run)
    path = f"{run.thread_id}/runs/{run.id}/submit_tool_outputs"
    for outputs, param, named in (
        ([], "tool_outputs", good["tool_call_id"]),
        ([good, good], "tool_outputs[1].tool_call_id", good["tool_call_id"]),
        ([good, {"tool_call_id": "call_x"}], "tool_outputs", "call_x"),
        ([{"output": "x"}], "tool_outputs[0].tool_call_id", "tool_call_id"),
    ):
        reply = post(server, path, {"tool_outputs": outputs})
        assert reply.status == 400
        assert reply.error()["param"] == param
        assert named in reply.error()["message"]
    other = post(server, f"{run.thread_id}/runs/run_x/submit_tool_outputs", {"tool_outputs": []})
    assert (other.status, "run_x" in other.error()["message"]) == (404, True)

    done = client.beta.threads.runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=run.thread_id, tool_outputs=[good]
    )
    assert done.status == "completed"
    late = post(server, path, {"tool_outputs": [good]})
    assert (late.status, late.error()["code"]) == (400, "invalid_run_state")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, None),
        ({"truncation_strategy": {"type": "last_messages"}}, None),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"additional_messages": [{"role": "user", "content": ""}]}, None),
        ({"assistant_id": 5}, "assistant_id"),
    ],
)
def test_field_that_cannot_be_honoured_is_named(
    client: OpenAI,
    server: ServerProcess,
    talker: Assistant,
    fields: dict[str, Any],
    param: str | None,
) -> None:
    thread_id = thread_of(client, "Hi")

    reply = post(server, f"{thread_id}/runs", {"assistant_id": talker.id, **fields})

    assert reply.status in {400, 404}
    assert (reply.error()["param"] or "").startswith(param or next(iter(fields)))
    assert not client.beta.threads.runs.list(thread_id).data


def test_what_is_not_there_is_a_404(
    client: OpenAI, server: ServerProcess, talker: Assistant
) -> None:
    thread_id = thread_of(client, "Hi")
    body = {"assistant_id": talker.id}
    assert post(server, "thread_x/runs", body).status == 404
    assert post(server, f"{thread_id}/runs", {"assistant_id": "asst_x"}).status == 404
    for path in ("thread_x/runs", f"{thread_id}/runs/run_x", f"{thread_id}/runs/run_x/steps"):
        assert ask(server, "GET", f"/v1/threads/{path}").status == 404


def test_prompt_that_is_too_long_drops_its_oldest_messages(
    client: OpenAI, talker: Assistant
) -> None:
    texts = [f"{number} " + "word " * 3000 for number in range(3)]
    thread_id = thread_of(client, *texts, "Repeat after me: green lamp")

    run = client.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=talker.id)

    assert "green lamp" in last_said(client, run)


def test_message_that_is_too_long_by_itself_fails_the_run(
    client: OpenAI, talker: Assistant
) -> None:
    run = client.beta.threads.runs.create_and_poll(
        thread_id=thread_of(client, "word " * 20_000), assistant_id=talker.id
    )

    assert run.status == "failed"
    assert run.last_error is not None
    assert run.last_error.code == "invalid_prompt"
    assert "context length" in run.last_error.message


def events_of(server: ServerProcess, run: Run, query: str = "") -> list[tuple[int, str, bytes]]:
    """Return the numbers, names and data of a run's events."""
    path = f"/v1/threads/{run.thread_id}/runs/{run.id}/events{query}"
    found = []
    for block in ask(server, "GET", path).body.split(b"\n\n")[:-1]:
        name, number, data = block.split(b"\n")
        found.append((int(number[4:]), name[7:].decode(), data[6:]))
    return found


def test_events_are_streamed_again_from_any_place(
    client: OpenAI, server: ServerProcess, talker: Assistant
) -> None:
    run = client.beta.threads.create_and_run_poll(
        assistant_id=talker.id, thread={"messages": [{"role": "user", "content": "Hello!"}]}
    )

    everything = events_of(server, run)

    assert [number for number, _, _ in everything] == list(range(len(everything)))
    assert everything[0][1] == "thread.created"
    assert everything[-1][1:] == ("done", b"[DONE]")
    assert events_of(server, run, "?starting_after=4") == everything[5:]
    wrong = ask(server, "GET", f"/v1/threads/{run.thread_id}/runs/{run.id}/events?starting_after=x")
    assert (wrong.status, wrong.error()["param"]) == (400, "starting_after")


def test_run_survives_a_server_that_is_killed_in_its_middle(start_server: StartServer) -> None:
    flags = {"jobs.lease_s": 0.5}
    server = start_server(flags)
    heard: list[str] = []
    with open_client(server.url) as client:
        assistant = client.beta.assistants.create(model=MODEL, temperature=0)
        story = "Repeat after me: green lamp red box blue door green lamp red box blue door"
        with client.beta.threads.create_and_run_stream(
            assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": story}]}
        ) as stream:
            while not heard or heard[-1] != "thread.message.delta":
                heard.append(next(stream).event)
            server.kill()
            with suppress(httpx2.TransportError, openai.APIConnectionError):
                heard += [event.event for event in stream]
        run = stream.current_run
        assert run is not None

    again = ServerProcess(flags, server.log.parent)
    try:
        with open_client(again.url) as client:
            run = client.beta.threads.runs.poll(run.id, run.thread_id)
            messages = list(client.beta.threads.messages.list(run.thread_id, order="asc"))
        everything = events_of(again, run)
    finally:
        assert again.stop() == 0

    assert run.status == "completed"
    assert [each.role for each in messages] == ["user", "assistant"]
    assert [number for number, _, _ in everything] == list(range(len(everything)))
    assert heard == [name for _, name, _ in everything][: len(heard)]
    deltas = [json.loads(data) for _, name, data in everything if name == "thread.message.delta"]
    pieces = [delta["delta"]["content"][0]["text"]["value"] for delta in deltas]
    assert "".join(pieces) == said(messages[1])
