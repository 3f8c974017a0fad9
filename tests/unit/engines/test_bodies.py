from __future__ import annotations

import pytest

from openworks.core.errors import InvalidRequestError, UnsupportedParameterError
from openworks.core.json import JsonObject
from openworks.engines.llamacpp.bodies import (
    ModelTraits,
    chat_body,
    completion_body,
    sampling_body,
)
from openworks.ports.text import ChatRequest, CompletionRequest, JsonFormat, Sampling

HI: list[JsonObject] = [{"role": "user", "content": "hi"}]
TOOLS: list[JsonObject] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("one", "two")
]


def traits(**changes: bool) -> ModelTraits:
    known = {"tools", "parallel_tools", "reasoning_effort", "thinking_switch", "vision"}
    assert set(changes) <= known
    return ModelTraits(fill_in=None, **{name: changes.get(name, False) for name in known})


def test_what_is_not_set_stays_the_models_own_default() -> None:
    assert set(sampling_body(Sampling())) == {
        "max_tokens",
        "frequency_penalty",
        "presence_penalty",
    }


@pytest.mark.parametrize("seed", [-1, -(2**63), 0xFFFF_FFFF, 2**63 - 1])
def test_no_seed_becomes_the_one_that_means_random(seed: int) -> None:
    sent = sampling_body(Sampling(seed=seed))["seed"]
    assert isinstance(sent, int)
    assert 0 <= sent < 0xFFFF_FFFF


def test_named_tool_is_the_only_one_and_required() -> None:
    request = ChatRequest(messages=HI, tools=TOOLS, tool_choice="two")
    body = chat_body(request, traits(tools=True))
    assert body["tools"] == [TOOLS[1]]
    assert body["tool_choice"] == "required"


def test_named_tool_that_is_not_there_is_refused() -> None:
    request = ChatRequest(messages=HI, tools=TOOLS, tool_choice="three")
    with pytest.raises(InvalidRequestError, match="'three'"):
        chat_body(request, traits(tools=True))


def test_tools_are_refused_by_a_template_without_them() -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        chat_body(ChatRequest(messages=HI, tools=TOOLS), traits())
    assert caught.value.param == "tools"


def test_reasoning_effort_reaches_a_template_that_only_switches() -> None:
    request = ChatRequest(messages=HI, reasoning_effort="none")
    body = chat_body(request, traits(thinking_switch=True))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_reasoning_effort_is_refused_by_a_model_that_does_not_reason() -> None:
    with pytest.raises(UnsupportedParameterError, match="'high'"):
        chat_body(ChatRequest(messages=HI, reasoning_effort="high"), traits())


def test_picture_is_refused_by_a_blind_model_at_its_place() -> None:
    part: JsonObject = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    request = ChatRequest(messages=[*HI, {"role": "user", "content": [part]}])
    with pytest.raises(UnsupportedParameterError) as caught:
        chat_body(request, traits())
    assert caught.value.param == "messages[1].content[0]"
    chat_body(request, traits(vision=True))


@pytest.mark.parametrize("url", ["https://example.com/a.png", "file:///etc/passwd", "a.png"])
def test_picture_that_the_server_would_have_to_fetch_is_refused(url: str) -> None:
    part: JsonObject = {"type": "image_url", "image_url": {"url": url}}
    request = ChatRequest(messages=[{"role": "user", "content": [part]}])
    with pytest.raises(UnsupportedParameterError, match="data URLs"):
        chat_body(request, traits(vision=True))


def test_schema_that_cannot_be_enforced_is_refused() -> None:
    schema: JsonObject = {"type": "object", "minProperties": 2}
    request = ChatRequest(messages=HI, response_format=JsonFormat(schema=schema))
    with pytest.raises(InvalidRequestError, match="minProperties"):
        chat_body(request, traits())


def test_suffix_needs_a_model_with_tokens_for_it() -> None:
    request = CompletionRequest(prompt="def f(", suffix="return x")
    with pytest.raises(UnsupportedParameterError):
        completion_body(request, traits())
    able = ModelTraits(
        tools=False,
        parallel_tools=False,
        reasoning_effort=False,
        thinking_switch=False,
        vision=False,
        fill_in=(7, 8, 9),
    )
    assert completion_body(request, able)["prompt"] == [7, "def f(", 8, "return x", 9]
