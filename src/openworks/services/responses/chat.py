"""The chat request of a response: its settings in the model's terms, cut to the context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, cast

from openworks.core.json import JsonObject
from openworks.ports.calls import Call, Usage
from openworks.ports.text import ChatRequest, JsonFormat, Sampling
from openworks.services.agent.loop import Model

Count = Callable[[ChatRequest], Awaitable[int]]

_SUMMARISE: Final = (
    "Summarise this conversation for somebody who will continue it without having read it: what "
    "was asked, what was answered, every name, number and decision that matters. Write nothing "
    "else."
)


def chat_request(settings: JsonObject, messages: Sequence[JsonObject], seed: int) -> ChatRequest:
    """Return what the model is asked.

    Args:
        settings: Of the response.
        messages: Those of its items.
        seed: Unless the settings have one.
    """
    text = cast("JsonObject", settings.get("text") or {})
    given_seed = settings.get("seed")
    tools, choice = _tools(settings)
    return ChatRequest(
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=settings["parallel_tool_calls"] is True,
        response_format=_format(cast("JsonObject", text.get("format") or {"type": "text"})),
        reasoning_effort=cast(
            "str | None", cast("JsonObject", settings.get("reasoning") or {}).get("effort")
        ),
        template_args=cast("JsonObject", settings.get("chat_template_kwargs") or {}),
        sampling=Sampling(
            max_tokens=cast("int | None", settings.get("max_output_tokens")),
            temperature=cast("float | None", settings.get("temperature")),
            top_p=cast("float | None", settings.get("top_p")),
            top_k=cast("int | None", settings.get("top_k")),
            min_p=cast("float | None", settings.get("min_p")),
            repeat_penalty=cast("float | None", settings.get("repeat_penalty")),
            seed=given_seed if isinstance(given_seed, int) else seed,
            top_logprobs=_top_logprobs(settings),
        ),
    )


def _tools(settings: JsonObject) -> tuple[list[JsonObject], str]:
    """Return the tools as chats have them, and which of them is to be called."""
    tools = cast("list[JsonObject]", settings["tools"])
    choice = settings["tool_choice"]
    if isinstance(choice, dict):
        if choice["type"] == "function":
            choice = str(choice["name"])
        else:
            allowed = {str(tool["name"]) for tool in cast("list[JsonObject]", choice["tools"])}
            tools = [tool for tool in tools if tool["name"] in allowed]
            choice = str(choice["mode"])
    assert isinstance(choice, str)
    functions: list[JsonObject] = [
        {
            "type": "function",
            "function": {
                name: tool[name]
                for name in ("name", "description", "parameters", "strict")
                if tool.get(name) is not None
            },
        }
        for tool in tools
    ]
    return functions, choice if tools else "auto"


def _format(wanted: JsonObject) -> JsonFormat | None:
    match wanted["type"]:
        case "json_schema":
            return JsonFormat(schema=cast("JsonObject", wanted["schema"]))
        case "json_object":
            return JsonFormat()
        case _:
            return None


def _top_logprobs(settings: JsonObject) -> int | None:
    rivals = settings.get("top_logprobs")
    is_wanted = "message.output_text.logprobs" in cast("list[str]", settings.get("include") or [])
    return (rivals if isinstance(rivals, int) else 0) if is_wanted or rivals else None


async def without_oldest(request: ChatRequest, *, most: int, count: Count) -> ChatRequest:
    """Return a request that fits, without as few of its oldest messages as possible.

    What the system says first stays, and so does the last message; a result goes with its call.
    A request that is still too long is returned as well: whoever is asked refuses it.

    Args:
        request: With the whole conversation.
        most: How many tokens its prompt may have.
        count: Counts them.
    """
    if await count(request) <= most:
        return request
    messages = request.messages
    kept = 1 if messages[0]["role"] == "system" else 0
    starts = [at for at in range(kept + 1, len(messages)) if messages[at]["role"] != "tool"]

    def cut(start: int) -> ChatRequest:
        return replace(request, messages=[*messages[:kept], *messages[start:]])

    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if await count(cut(starts[middle])) <= most:
            high = middle
        else:
            low = middle + 1
    return cut(starts[low]) if starts else request


async def summarise(model: Model, call: Call, request: ChatRequest) -> tuple[str, Usage]:
    """Have a model say in short what a conversation is about.

    Raises:
        AppError: As `ChatModel.stream`.
    """
    asked: JsonObject = {"role": "user", "content": _SUMMARISE}
    texts: list[str] = []
    usage = Usage()
    plain = ChatRequest(messages=[*request.messages, asked], sampling=request.sampling)
    async with aclosing(model.chat(call, plain)) as chunks:
        async for chunk in chunks:
            texts.append(chunk.content)
            usage = chunk.usage or usage
    return "".join(texts).strip(), usage
