"""The body of a request about a run, checked; what cannot be honoured is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Required, TypedDict, cast

from openai.types.beta import ThreadCreateAndRunParams
from openai.types.beta.threads import RunCreateParams
from openai.types.beta.threads.run_submit_tool_outputs_params import ToolOutput
from openai.types.shared_params import Metadata

from openworks.api.context import as_object
from openworks.api.openai import values
from openworks.api.openai.assistant_request import check_tools, response_format
from openworks.api.openai.message_request import parse_messages
from openworks.api.openai.tool_resources import tool_resources
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.assistants import Assistant
from openworks.ports.runs import RunSettings
from openworks.services.threads import NewMessage
from openworks.wire.openai.validate import RequestValidator


class _RunUpdate(TypedDict, total=False):
    """As the SDK's type, without the ids that are parts of the path."""

    metadata: Metadata | None


class _Outputs(TypedDict, total=False):
    """The same."""

    tool_outputs: Required[list[ToolOutput]]
    stream: bool | None


_RUN = RequestValidator(RunCreateParams)
_THREAD_AND_RUN = RequestValidator(ThreadCreateAndRunParams)
_RUN_UPDATE = RequestValidator(_RunUpdate, keep_nulls=True)
_OUTPUTS = RequestValidator(_Outputs)

_MAX_INSTRUCTIONS = 256_000
_INCLUDE = "step_details.tool_calls[*].file_search.results[*].content"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a caller says of a run; the rest is its assistant's."""

    assistant_id: str
    fields: JsonObject
    """The checked body."""
    messages: Sequence[NewMessage]
    """To be put into the thread first."""
    metadata: Mapping[str, str]
    stream: bool

    def settings(self, assistant: Assistant) -> RunSettings:
        """Return how the run is to be done.

        Raises:
            InvalidRequestError: A tool is to be called that neither has.
            UnsupportedParameterError: The assistant has a tool that this server does not.
        """
        fields, of_assistant = self.fields, assistant.settings
        tools = tuple(cast("Sequence[JsonObject]", fields.get("tools", of_assistant.tools)))
        for index, tool in enumerate(tools):
            if tool["type"] != "function":
                raise values.unsupported(
                    f"tools[{index}].type",
                    f"the tool {tool['type']!r} in runs: it has no vector stores yet. The tools "
                    "of a run replace its assistant's.",
                )
        parts = [
            str(fields.get("instructions", of_assistant.instructions) or ""),
            str(fields.get("additional_instructions") or ""),
        ]
        return RunSettings(
            assistant_id=assistant.id,
            model=str(fields.get("model", of_assistant.model)),
            instructions="\n".join(part for part in parts if part),
            tools=tools,
            tool_choice=_tool_choice(fields.get("tool_choice"), tools),
            parallel_tool_calls=fields.get("parallel_tool_calls") is not False,
            temperature=values.number(fields, "temperature", 0, 2, of_assistant.temperature),
            top_p=values.number(fields, "top_p", 0, 1, of_assistant.top_p),
            reasoning_effort=cast(
                "str | None", fields.get("reasoning_effort", of_assistant.reasoning_effort)
            ),
            response_format=response_format(
                fields.get("response_format", of_assistant.response_format)
            ),
            max_prompt_tokens=values.integer(fields, "max_prompt_tokens", 1),
            max_completion_tokens=values.integer(fields, "max_completion_tokens", 1),
            last_messages=_last_messages(as_object(fields.get("truncation_strategy") or {})),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRequest:
    """The thread that is to be made with a run."""

    messages: Sequence[NewMessage] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    tool_resources: JsonObject = field(default_factory=dict)


def parse_run(body: JsonValue) -> RunRequest:
    """Check the body of a new run.

    Raises:
        InvalidRequestError: It breaks OpenAI's types or limits; names the field and the value.
        UnsupportedParameterError: It asks for what this server does not have.
    """
    return _run(cast("JsonObject", _RUN.check(body)))


def parse_thread_and_run(body: JsonValue) -> tuple[ThreadRequest, RunRequest]:
    """Check the body of a new run on a new thread; errors as in `parse_run`."""
    fields = cast("JsonObject", _THREAD_AND_RUN.check(body))
    thread = as_object(fields.get("thread") or {})
    tool_resources(fields.get("tool_resources"))  # as there are no such tools, nothing is in it
    made = ThreadRequest(
        messages=parse_messages(thread.get("messages"), "thread.messages"),
        metadata=values.metadata(thread.get("metadata"), "thread.metadata"),
        tool_resources=tool_resources(thread.get("tool_resources")),
    )
    return made, _run(fields)


def parse_run_update(body: JsonValue) -> JsonObject:
    """Check the body of a change to a run; errors as in `parse_run`."""
    return cast("JsonObject", _RUN_UPDATE.check(body))


def parse_outputs(body: JsonValue) -> tuple[Mapping[str, str], bool]:
    """Check the outputs of tools; return them by call, and whether events are wanted.

    Raises:
        InvalidRequestError: As `parse_run`; or a call is answered twice.
    """
    fields = cast("JsonObject", _OUTPUTS.check(body))
    outputs: dict[str, str] = {}
    for index, output in enumerate(cast("list[JsonObject]", fields["tool_outputs"])):
        place = f"tool_outputs[{index}].tool_call_id"
        id_ = output.get("tool_call_id")
        if not id_:
            raise values.missing(place)
        if id_ in outputs:
            raise values.invalid(place, f"Invalid '{place}': {id_!r} is answered twice.")
        outputs[str(id_)] = str(output.get("output") or "")
    return outputs, fields.get("stream") is True


def check_include(query: Sequence[tuple[str, str]]) -> None:
    """Return if everything that the query wants to be included is known.

    It concerns searches in files, of which runs make none yet.

    Raises:
        InvalidRequestError: Something is not.
    """
    for name, value in query:
        if name in {"include", "include[]"} and value != _INCLUDE:
            raise values.invalid(
                "include", f"Invalid 'include': it must be {_INCLUDE!r}, got {value[:100]!r}."
            )


def _run(fields: JsonObject) -> RunRequest:
    for name in ("instructions", "additional_instructions"):
        values.check_length(fields.get(name), name, most=_MAX_INSTRUCTIONS)
    if "tools" in fields:
        check_tools(cast("list[JsonObject]", fields["tools"]))
    return RunRequest(
        assistant_id=str(fields["assistant_id"]),
        fields=fields,
        messages=parse_messages(fields.get("additional_messages"), "additional_messages"),
        metadata=values.metadata(fields.get("metadata")),
        stream=fields.get("stream") is True,
    )


def _tool_choice(choice: JsonValue, tools: Sequence[JsonObject]) -> JsonValue:
    if choice is None:
        return "auto"
    if choice in ("none", "auto"):
        return choice
    if isinstance(choice, str):
        if not tools:
            raise values.invalid("tool_choice", f"'tool_choice' {choice!r} needs 'tools'.")
        return choice
    named = as_object(choice)
    if named["type"] != "function":
        raise values.unsupported("tool_choice.type", f"the tool {named['type']!r} in runs.")
    if not named.get("function"):
        raise values.missing("tool_choice.function")
    name = as_object(named["function"])["name"]
    if name not in [as_object(tool["function"])["name"] for tool in tools]:
        raise values.invalid(
            "tool_choice.function.name",
            f"Invalid 'tool_choice.function.name': no tool of the run is called {name!r}.",
        )
    return choice


def _last_messages(strategy: JsonObject) -> int | None:
    place = "truncation_strategy.last_messages"
    count = strategy.get("last_messages")
    if strategy.get("type") != "last_messages":
        if count is not None:
            raise values.invalid(place, f"'{place}' may be sent only with the type of that name.")
        return None
    if count is None:
        raise values.missing(place)
    assert isinstance(count, int)
    if not 1 <= count <= values.MAX_INTEGER:
        raise values.invalid(place, f"Invalid '{place}': it must be at least 1, got {count}.")
    return count
