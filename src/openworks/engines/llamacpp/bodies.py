"""Our requests as the JSON that llama.cpp reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openworks.core.errors import UnsupportedParameterError
from openworks.core.json import JsonObject, JsonValue
from openworks.engines.llamacpp.schema import check_schema, check_tools
from openworks.engines.text_requests import callable_tools, may_call_tool, reasoning_args
from openworks.ports.text import ChatRequest, CompletionRequest, Sampling

_STREAMED: JsonObject = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "timings_per_token": True,  # running counts, so that a call that is cut off is counted too
    "return_progress": True,  # a callback between prompt batches, where a request can be cancelled
}


_RANDOM_SEED = 0xFFFF_FFFF
"""llama.cpp takes 32-bit seeds, of which this one asks for a random one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """What the loaded model and its chat template can do, from llama.cpp's `/props`."""

    tools: bool
    parallel_tools: bool
    reasoning_effort: bool
    thinking_switch: bool
    """The template knows `enable_thinking`."""
    vision: bool
    fill_in: tuple[int, int, int] | None
    """The ids of the prefix, suffix and middle tokens; None when the model has no such tokens."""


def chat_body(request: ChatRequest, traits: ModelTraits) -> JsonObject:
    """Return the body of a streamed chat request.

    Raises:
        UnsupportedParameterError: The model cannot honour a parameter.
        InvalidRequestError: A JSON Schema cannot be enforced.
    """
    _check_parts(request.messages, traits)
    body: JsonObject = {
        **_STREAMED,
        **sampling_body(request.sampling),
        "messages": list(request.messages),
        "n": request.n,
        "chat_template_kwargs": {**request.template_args, **_reasoning_args(request, traits)},
    }
    if request.sampling.top_logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = max(1, request.sampling.top_logprobs)
    if request.tools and request.tool_choice != "none":  # a model that sees tools may name them
        body |= _tool_body(request, traits)
    if (wanted := request.response_format) is not None:
        if wanted.schema is None:
            body["response_format"] = {"type": "json_object"}
        else:
            check_schema(wanted.schema, "response_format.json_schema.schema")
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"schema": wanted.schema},
            }
    return body


def completion_body(request: CompletionRequest, traits: ModelTraits) -> JsonObject:
    """Return the body of a streamed completion request; `echo` is left to the caller."""
    prompt: JsonValue = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    if request.suffix:
        if traits.fill_in is None:
            raise UnsupportedParameterError(
                "This model was not trained to fill in text: it has no tokens for 'suffix'.",
                param="suffix",
            )
        prefix_token, suffix_token, middle_token = traits.fill_in
        pieces = prompt if isinstance(prompt, list) else [prompt]
        prompt = [prefix_token, *pieces, suffix_token, request.suffix, middle_token]
    body = {
        **_STREAMED,
        **sampling_body(request.sampling),
        "prompt": prompt,
        "n": request.n,
    }
    if request.sampling.top_logprobs is not None:
        body["logprobs"] = max(1, request.sampling.top_logprobs)
    return body


def sampling_body(sampling: Sampling) -> JsonObject:
    """Return llama.cpp's sampling fields; what is None stays the model's own default.

    Stops are left to `ChunkReader`.
    """
    body: JsonObject = {
        "max_tokens": -1 if sampling.max_tokens is None else sampling.max_tokens,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
    }
    optional: JsonObject = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "seed": None if sampling.seed is None else sampling.seed % _RANDOM_SEED,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    if sampling.logit_bias:
        body["logit_bias"] = [[token, bias] for token, bias in sampling.logit_bias.items()]
    return body


def _tool_body(request: ChatRequest, traits: ModelTraits) -> JsonObject:
    if not traits.tools:
        raise UnsupportedParameterError("This model's chat template knows no tools.", param="tools")
    check_tools(request.tools)
    # One that is named is required, and the only one that the model sees.
    choice = "auto" if may_call_tool(request) else "required"
    return {
        "tools": list[JsonValue](callable_tools(request)),
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls and traits.parallel_tools,
    }


def _reasoning_args(request: ChatRequest, traits: ModelTraits) -> JsonObject:
    return reasoning_args(
        request, knows_effort=traits.reasoning_effort, knows_switch=traits.thinking_switch
    )


def _check_parts(messages: Sequence[JsonObject], traits: ModelTraits) -> None:
    """Refuse content that the model cannot take, and pictures that somebody else would fetch."""
    for at, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for index, part in enumerate(content):
            assert isinstance(part, dict)
            param = f"messages[{at}].content[{index}]"
            if part.get("type") == "image_url":
                _check_image(part, param, traits)
            elif part.get("type") not in {"text", "refusal"}:
                raise UnsupportedParameterError(
                    f"This model takes no content of type {part.get('type')!r}.", param=param
                )


def _check_image(part: JsonObject, param: str, traits: ModelTraits) -> None:
    if not traits.vision:
        raise UnsupportedParameterError("This model does not see images.", param=param)
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else None
    if not (isinstance(url, str) and url.startswith("data:image/")):
        raise UnsupportedParameterError(
            "Images must be sent as data URLs (data:image/...;base64,...): "
            "this server fetches nothing on a caller's behalf.",
            param=f"{param}.image_url.url",
        )
