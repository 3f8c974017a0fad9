from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openworks.core.errors import InvalidRequestError
from openworks.gateway.compat.anthropic import AnthropicChat
from openworks.gateway.compat.bedrock import BedrockChat
from openworks.gateway.compat.embeddings import read_embedding
from openworks.gateway.compat.workers_run import run_embeddings, run_text
from tests.fakes import CountingIds, FakeClock

_WORDS = ["user", "assistant", "tool", "system", "function", "text", "image_url", "file", "auto",
          "required", "allowed_tools", "json_schema", "high", "data:image/png;base64,AA", "{}",
          "END", "flex"]  # fmt: skip
_LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 2000) | st.floats(0, 2) | st.sampled_from(_WORDS)
)


def _object(*names: str, of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, of))


_INNER = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=2)
        | _object(
            "type", "name", "function", "arguments", "schema", "tools", "mode", "url", of=inner
        )
    ),
    max_leaves=6,
)
_PART = _object("type", "text", "image_url", "file", "refusal", "cache_control", of=_INNER)
_MESSAGE = _object(
    "role", "tool_calls", "tool_call_id", "thinking_blocks", "refusal", "audio", of=_INNER
).flatmap(lambda message: (_INNER | st.lists(_PART, max_size=2)).map(
    lambda content: {**message, "content": content}
))  # fmt: skip
_FIELDS = [
    "tools", "tool_choice", "response_format", "stop", "max_tokens", "temperature", "user",
    "service_tier", "reasoning_effort", "stream", "stream_options", "n", "prompt", "raw",
    "functions", "text", "input", "parallel_tool_calls", "top_k", "dimensions",
]  # fmt: skip
_HI = {"role": "user", "content": "Hi"}
_TOOLS = [{"type": "function", "function": {"name": "f"}}]
_BODY = st.builds(
    lambda good, fields, messages: {**good, **fields, "messages": messages},
    st.sampled_from([{}, {"tools": _TOOLS}, {"input": "a"}]),
    st.dictionaries(st.sampled_from(_FIELDS), _INNER, min_size=1, max_size=1),
    st.just([_HI]) | _MESSAGE.map(lambda message: [_HI, message]),
)


def _translate_anthropic(body: dict[str, Any]) -> object:
    chat = AnthropicChat(model="claude-sonnet-4-5", clock=FakeClock())
    chat.stream(body)
    return chat.request(body)


def _translate_bedrock(body: dict[str, Any]) -> object:
    chat = BedrockChat(model="anthropic.claude-x", clock=FakeClock(), new_id=CountingIds())
    chat.stream(body)
    return chat.request(body)


@pytest.mark.parametrize(
    "translate",
    [
        _translate_anthropic,
        _translate_bedrock,
        read_embedding,
        lambda body: run_text("m", body),
        lambda body: run_embeddings("m", body),
    ],
    ids=["anthropic", "bedrock", "embeddings", "run", "run-embeddings"],
)
@given(body=_BODY)
@settings(max_examples=200)
def test_a_request_of_any_shape_is_translated_or_refused_by_name(
    translate: Callable[[dict[str, Any]], object], body: dict[str, Any]
) -> None:
    try:
        translate(body)
    except InvalidRequestError as error:
        refused = error
    else:
        return
    assert refused.param
    assert refused.message
