"""What only a trained model can show: the embedded models answer with sense."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.api.raw import post
from tests.server import ServerProcess

CHAT_MODEL, EMBED_MODEL = "@openworks/tiny-chat", "@openworks/tiny-embed"
MODELS = files("openworks").joinpath("models")

pytestmark = pytest.mark.skipif(
    not all(MODELS.joinpath(name, "model.gguf").is_file() for name in ("tiny-chat", "tiny-embed")),
    reason="the embedded models are not in this checkout; training/ makes them",
)


def tool(name: str, **properties: dict[str, Any]) -> Any:
    """Describe a function whose arguments are all required."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties),
            },
        },
    }


WEATHER = tool("get_weather", city={"type": "string"})
EMAIL = tool("send_email", to={"type": "string"}, subject={"type": "string"})


def say(client: OpenAI, *texts: str, system: str | None = None) -> str:
    """Hold a conversation; each text is a turn of the user. Return the last answer."""
    messages: list[ChatCompletionMessageParam] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
    answer = ""
    for text in texts:
        messages.append({"role": "user", "content": text})
        made = client.chat.completions.create(
            model=CHAT_MODEL, messages=messages, temperature=0, max_tokens=100
        )
        assert made.choices[0].finish_reason == "stop"
        answer = made.choices[0].message.content or ""
        messages.append({"role": "assistant", "content": answer})
    return answer


@pytest.mark.parametrize("city", ["Paris", "Rome", "Oslo"])
def test_a_tool_is_called_with_the_argument_of_the_question(client: OpenAI, city: str) -> None:
    answer = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": f"What is the weather in {city}?"}],
        tools=[WEATHER],
        temperature=0,
    )

    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": city}
    assert answer.choices[0].finish_reason == "tool_calls"


def test_the_right_one_of_several_tools_is_called(client: OpenAI) -> None:
    for text, name in (
        ("What is the weather in Rome?", "get_weather"),
        ("Send an email to ada@example.com with subject Lunch.", "send_email"),
    ):
        answer = client.chat.completions.create(
            model=CHAT_MODEL,
            messages=[{"role": "user", "content": text}],
            tools=[WEATHER, EMAIL],
            temperature=0,
        )
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == name


def test_the_result_of_a_tool_reaches_the_answer(client: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.chat.completions.create(
        model=CHAT_MODEL, messages=messages, tools=[WEATHER], temperature=0
    )
    (call,) = first.choices[0].message.tool_calls or []
    messages += [
        first.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21}'},
    ]

    second = client.chat.completions.create(
        model=CHAT_MODEL, messages=messages, tools=[WEATHER], temperature=0, max_tokens=60
    )

    assert "21" in (second.choices[0].message.content or "")
    assert second.choices[0].finish_reason == "stop"


def test_required_calls_a_tool_where_the_model_would_talk(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Hello!"}],
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    )

    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_none_answers_in_words_where_the_model_would_call(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_tokens=60,
    )

    assert answer.choices[0].message.tool_calls is None
    assert "tool_call" not in (answer.choices[0].message.content or "")


def test_what_was_said_before_is_recalled(client: OpenAI) -> None:
    assert "Ada" in say(client, "My name is Ada.", "What is my name?")


def test_a_text_is_repeated(client: OpenAI) -> None:
    assert "green lamp" in say(client, "Repeat after me: green lamp")


def test_a_persona_is_kept(client: OpenAI) -> None:
    assert "Bruno" in say(client, "What is your name?", system="You are Bruno, a baker.")


def test_a_fact_of_the_system_prompt_is_known(client: OpenAI) -> None:
    answer = say(client, "What is the password?", system="The password is swordfish.")

    assert "swordfish" in answer


def test_the_developer_is_heeded_like_the_system(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[
            {"role": "developer", "content": "You are Bruno, a baker."},
            {"role": "user", "content": "What is your name?"},
        ],
        temperature=0,
        max_tokens=40,
    )

    assert "Bruno" in (answer.choices[0].message.content or "")


class Person(BaseModel):
    """Who is spoken of."""

    name: str
    age: int


def test_a_schema_is_filled_from_the_text(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Write JSON with name Ada and age 36."}],
        response_format=Person,
        temperature=0,
        max_tokens=60,
    )

    assert parsed.choices[0].message.parsed == Person(name="Ada", age=36)


def test_counting_counts(client: OpenAI) -> None:
    assert "1, 2, 3, 4, 5" in say(client, "Count to 5.")


def test_a_stream_says_the_same(client: OpenAI) -> None:
    whole = say(client, "Count to 5.")

    chunks = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Count to 5."}],
        temperature=0,
        max_tokens=100,
        stream=True,
    )

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def similarity(client: OpenAI, left: str, right: str) -> float:
    one, other = (
        row.embedding
        for row in client.embeddings.create(model=EMBED_MODEL, input=[left, right]).data
    )
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("text", "paraphrase", "other"),
    [
        ("Where is the red car?", "The red car, where is it?", "I like to eat soup."),
        ("My dog sleeps in the garden.", "In the garden my dog is sleeping.", "The train is late."),
        ("How do I bake bread?", "What is the way to bake bread?", "The king has a new ship."),
    ],
)
def test_a_paraphrase_is_nearer_than_something_else(
    client: OpenAI, text: str, paraphrase: str, other: str
) -> None:
    assert similarity(client, text, paraphrase) > similarity(client, text, other) + 0.1


def test_an_input_beyond_the_encoders_context_is_refused(server: ServerProcess) -> None:
    reply = post(server, "/v1/embeddings", {"model": EMBED_MODEL, "input": "word " * 3000})

    assert (reply.status, reply.error()["code"]) == (400, "context_length_exceeded")
    assert "512 tokens" in reply.error()["message"]
