"""What a text request asks of any engine: whether it calls tools, and when it is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from openworks.core.errors import ContextLengthExceededError, UnsupportedParameterError
from openworks.core.json import JsonObject
from openworks.ports.text import ChatRequest, Sampling


def must_call_tool(request: ChatRequest) -> bool:
    """Whether the answer has to be a call; it has no content then."""
    return bool(request.tools) and request.tool_choice not in {"auto", "none"}


def may_call_tool(request: ChatRequest) -> bool:
    """Whether the answer is a call or content, as the model likes."""
    return bool(request.tools) and request.tool_choice == "auto"


def callable_tools(request: ChatRequest) -> Sequence[JsonObject]:
    """Return the tools that the answer may call; of a named one, that alone.

    Raises:
        UnsupportedParameterError: The tool that has to be called is not among the tools.
    """
    if request.tool_choice == "none":
        return ()
    if request.tool_choice in {"auto", "required"} or not request.tools:
        return request.tools
    for tool in request.tools:
        function = tool.get("function")
        if isinstance(function, dict) and function.get("name") == request.tool_choice:
            return (tool,)
    raise UnsupportedParameterError(
        f"tool_choice names {request.tool_choice!r}, which is not among the tools.",
        code="invalid_value",
        param="tool_choice",
    )


def reasoning_args(request: ChatRequest, *, knows_effort: bool, knows_switch: bool) -> JsonObject:
    """Return what the chat template is told of the effort that a request asks for.

    Args:
        request: A conversation.
        knows_effort: The template takes `reasoning_effort`.
        knows_switch: The template takes `enable_thinking`.

    Raises:
        UnsupportedParameterError: The model does not reason.
    """
    effort = request.reasoning_effort
    if effort is None:
        return {}
    if knows_effort and effort in {"low", "medium", "high"}:
        return {"reasoning_effort": effort}
    if knows_switch:
        return {"enable_thinking": effort not in {"none", "minimal"}}
    raise UnsupportedParameterError(
        f"This model does not reason: reasoning_effort {effort!r} cannot be honoured.",
        param="reasoning_effort",
    )


def later_seed(sampling: Sampling, at: int) -> Sampling:
    """Seed the answers from number `at` on, so that none repeats the one before."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + at)


def too_long(param: str, prompt_tokens: int, context_tokens: int) -> ContextLengthExceededError:
    """Make the error of a prompt, in the field `param`, that the context does not hold."""
    return ContextLengthExceededError(
        f"This model's maximum context length is {context_tokens} tokens. However, your {param} "
        f"resulted in {prompt_tokens} tokens. Please reduce the length of the {param}.",
        param=param,
    )
