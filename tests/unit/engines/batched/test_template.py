from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import openworks
from openworks.core.errors import (
    InvalidRequestError,
    ModelUnavailableError,
    UnsupportedParameterError,
)
from openworks.core.json import JsonObject
from openworks.engines.batched.template import ChatTemplate, load_template
from openworks.engines.text_requests import reasoning_args
from openworks.ports.text import ChatRequest
from tests.fakes import FakeClock
from tests.unit.engines.batched.templates import (
    CALL,
    CHATML,
    LLAMA,
    MISTRAL,
    SYSTEM,
    TOKENS,
    TOOL,
    TURNS,
)

USER: JsonObject = {"role": "user", "content": "Hi"}
EMBEDDED = Path(openworks.__file__).parent / "models" / "tiny-chat"


def template(source: str, **options: Any) -> ChatTemplate:
    return ChatTemplate(source, TOKENS, clock=FakeClock(), **options)


def as_transformers_wants(message: JsonObject) -> dict[str, Any]:
    """The same message as its documentation shows them: arguments are objects, nothing is null."""
    shaped: dict[str, Any] = {name: value for name, value in message.items() if value is not None}
    shaped.setdefault("content", "")
    if "tool_calls" in shaped:
        function: Any = CALL["function"]
        arguments = json.loads(function["arguments"])
        shaped["tool_calls"] = [{**CALL, "function": {**function, "arguments": arguments}}]
    return shaped


@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["no tools", "tools"])
@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (CHATML, TURNS),
        (CHATML, [SYSTEM, *TURNS]),
        (LLAMA, [SYSTEM, *TURNS]),
        (MISTRAL, TURNS),
    ],
    ids=["chatml", "chatml with system", "llama", "mistral"],
)
def test_conversation_is_rendered_as_transformers_does(
    source: str,
    messages: list[JsonObject],
    tools: list[JsonObject],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer(tokenizer_object=Tokenizer(models.BPE()), **TOKENS)  # it has no types
    source = source.replace("strftime_now('%d %b %Y')", "'20 Nov 2026'")  # it asks the real clock
    expected = tokenizer.apply_chat_template(
        [as_transformers_wants(message) for message in messages],
        chat_template=source,
        tools=tools or None,
        tokenize=False,
        add_generation_prompt=True,
    )
    assert template(source).render(messages, tools=tools) == expected
    assert "naïve & <so>" in expected


def test_embedded_template_shows_a_past_call_in_the_way_the_model_makes_them() -> None:
    loaded = load_template(EMBEDDED, clock=FakeClock())
    assert loaded is not None
    assert '<tool_call>\n{"name": "look_up", "arguments": {"word": "na' in loaded.render(TURNS)


def test_day_is_that_of_the_clock() -> None:
    source = "{{ strftime_now('%Y-%m') }}"
    clock = FakeClock(now_s=1_800_000_000.0)
    assert ChatTemplate(source, {}, clock=clock).render([USER]) == "2027-01"


def test_template_arguments_reach_the_template() -> None:
    rendered = template(CHATML).render([USER], template_args={"enable_thinking": False})
    assert rendered.endswith("assistant\n<think>\n\n</think>\n\n")


def test_template_arguments_cannot_replace_the_conversation() -> None:
    source = "{{ messages[0].content }}"
    assert template(source).render([USER], template_args={"messages": []}) == "Hi"


def test_documents_reach_the_template() -> None:
    source = "{% for each in documents %}{{ each.text }}{% endfor %}"
    assert template(source).render([USER], documents=[{"text": "a"}, {"text": "b"}]) == "ab"


def test_generation_prompt_can_be_left_out() -> None:
    assert template(CHATML).render([USER], add_generation_prompt=False).endswith("<|im_end|>\n")


def test_text_parts_are_joined_by_lines() -> None:
    parts: list[Any] = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    source = "{{ messages[0].content }}"
    assert template(source).render([{"role": "user", "content": parts}]) == "a\nb"


def test_part_that_is_no_text_is_refused_by_its_place() -> None:
    parts: list[Any] = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]
    with pytest.raises(UnsupportedParameterError, match="image_url") as refused:
        template(CHATML).render([USER, {"role": "user", "content": parts}])
    assert refused.value.param == "messages[1].content[1]"


@pytest.mark.parametrize(
    ("source", "messages", "message"),
    [
        (MISTRAL, [USER, USER], "refuses this conversation: Roles must alternate."),
        (MISTRAL, [SYSTEM, USER], "refuses this conversation: System role not supported."),
        ("{{ messages[0].name.first }}", [USER], "no attribute 'name'"),
        ("{{ 'a' + messages }}", [USER], "can only concatenate"),
    ],
)
def test_conversation_that_the_template_refuses_is_an_invalid_request(
    source: str, messages: list[JsonObject], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        template(source).render(messages)
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__ }}{{ messages.append(1) }}",
    ],
)
def test_template_cannot_leave_its_sandbox(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="refuses"):
        template(source).render([USER])


def test_broken_template_makes_the_model_unavailable() -> None:
    with pytest.raises(ModelUnavailableError, match="broken"):
        template("{% if %}")


def test_tools_are_refused_by_a_template_that_knows_none() -> None:
    with pytest.raises(UnsupportedParameterError, match="no tools"):
        template("{{ messages }}").render([USER], tools=[TOOL])


def test_developers_speak_as_the_system_where_the_template_knows_no_developers() -> None:
    messages: list[JsonObject] = [{"role": "developer", "content": "Be brief."}]
    assert template("{{ messages[0].role }}").render(messages) == "system"
    source = "{{ messages[0].role }}{# developer #}"
    assert template(source).render(messages) == "developer"


@pytest.mark.parametrize(
    "shown", ["{{ 'x' + call.function.arguments }}", "{{ call.function.arguments }}"]
)
def test_arguments_stay_text_for_a_template_that_wants_text(shown: str) -> None:
    source = "{% for call in messages[-1].tool_calls %}" + shown + "{% endfor %}"
    called: JsonObject = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    function: Any = CALL["function"]
    assert template(source).render([called]).endswith(function["arguments"])


def test_arguments_that_are_no_json_object_stay_text() -> None:
    source = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"
    call: JsonObject = {"id": "abcdefghi", "function": {"name": "f", "arguments": "[1"}}
    assert template(source).render([{"role": "assistant", "tool_calls": [call]}]) == '"[1"'


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_past_reasoning_is_found_by_every_name(name: str) -> None:
    source = "{{ messages[0].thinking }}{{ messages[0].reasoning_content }}"
    message: JsonObject = {"role": "assistant", "content": "a", name: "Hm."}
    assert template(source).render([message]) == "Hm.Hm."


def test_traits_are_found_in_the_source() -> None:
    traits = template(CHATML).traits
    assert traits.tools
    assert traits.thinking_switch
    assert not traits.reasoning_effort
    assert not traits.text_arguments
    assert not template("{{ messages }}").traits.tools


@pytest.mark.parametrize(
    ("source", "effort", "args"),
    [
        ("{{ reasoning_effort }}", "low", {"reasoning_effort": "low"}),
        ("{{ enable_thinking }}", "none", {"enable_thinking": False}),
        ("{{ enable_thinking }}", "high", {"enable_thinking": True}),
        ("{{ messages }}", None, {}),
    ],
)
def test_effort_becomes_what_the_template_knows(
    source: str, effort: str | None, args: JsonObject
) -> None:
    assert told(source, effort) == args


def told(source: str, effort: str | None) -> JsonObject:
    traits = template(source).traits
    return reasoning_args(
        ChatRequest(messages=[], reasoning_effort=effort),
        knows_effort=traits.reasoning_effort,
        knows_switch=traits.thinking_switch,
    )


def test_effort_is_refused_by_a_model_that_does_not_reason() -> None:
    with pytest.raises(UnsupportedParameterError, match="does not reason"):
        told("{{ messages }}", "low")


def write_config(folder: Path, **fields: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def test_special_tokens_come_from_the_tokenizers_configuration(tmp_path: Path) -> None:
    source = "{{ bos_token }}{{ eos_token }}"
    write_config(tmp_path, bos_token={"content": "<s>"}, eos_token="</s>", chat_template=source)
    loaded = load_template(tmp_path, clock=FakeClock())
    assert loaded is not None
    assert loaded.render([USER]) == "<s></s>"


def test_template_of_its_own_file_is_preferred(tmp_path: Path) -> None:
    write_config(tmp_path, chat_template="old")
    (tmp_path / "chat_template.jinja").write_text("new")
    loaded = load_template(tmp_path, clock=FakeClock())
    assert loaded is not None
    assert loaded.render([USER]) == "new"


def test_named_template_for_tools_is_used_with_tools_only(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools[0].function.name }}"},
    ]
    write_config(tmp_path, chat_template=named)
    loaded = load_template(tmp_path, clock=FakeClock())
    assert loaded is not None
    assert loaded.render([USER]) == "plain"
    assert loaded.render([USER], tools=[TOOL]) == "look_up"


def test_model_without_a_template_has_none(tmp_path: Path) -> None:
    write_config(tmp_path, eos_token="</s>")
    assert load_template(tmp_path, clock=FakeClock()) is None


def test_configuration_that_is_not_json_makes_the_model_unavailable(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelUnavailableError, match="is not JSON"):
        load_template(tmp_path, clock=FakeClock())
