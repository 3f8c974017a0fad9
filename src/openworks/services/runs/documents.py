"""Threads, messages, runs and steps as OpenAI shows them: in answers and in events alike."""

from __future__ import annotations

from collections.abc import Sequence

from openworks.core.json import JsonObject, JsonValue
from openworks.ports.calls import Usage
from openworks.ports.runs import FunctionCall, Run, RunError, RunStep
from openworks.ports.threads import Message, Thread


def thread_body(thread: Thread) -> JsonObject:
    """Return a `thread`."""
    return {
        "id": thread.id,
        "object": "thread",
        "created_at": int(thread.created_at_s),
        "metadata": dict(thread.metadata),
        "tool_resources": thread.tool_resources,
    }


def message_body(message: Message) -> JsonObject:
    """Return a `thread.message`."""
    ended_at_s = message.ended_at_s if message.run_id else message.created_at_s
    reason = message.incomplete_reason
    return {
        "id": message.id,
        "object": "thread.message",
        "created_at": int(message.created_at_s),
        "thread_id": message.thread_id,
        "role": message.role,
        "content": [*message.content],
        "attachments": [*message.attachments],
        "metadata": dict(message.metadata),
        "status": message.status,
        "completed_at": _at(ended_at_s if message.status == "completed" else None),
        "incomplete_at": _at(ended_at_s if message.status == "incomplete" else None),
        "incomplete_details": None if reason is None else {"reason": reason},
        "assistant_id": message.assistant_id,
        "run_id": message.run_id,
    }


def run_body(run: Run) -> JsonObject:
    """Return a `thread.run`."""
    settings, status = run.settings, run.status
    ended_at = _at(run.ended_at_s)
    truncation: JsonObject = {
        "type": "auto" if settings.last_messages is None else "last_messages",
        "last_messages": settings.last_messages,
    }
    return {
        "id": run.id,
        "object": "thread.run",
        "created_at": int(run.created_at_s),
        "thread_id": run.thread_id,
        "assistant_id": settings.assistant_id,
        "status": status,
        "required_action": _required_action(run),
        "last_error": _error(run.error),
        "incomplete_details": _incomplete_details(run),
        "expires_at": _at(run.expires_at_s) if run.is_active or status == "expired" else None,
        "started_at": _at(run.started_at_s),
        "cancelled_at": ended_at if status == "cancelled" else None,
        "failed_at": ended_at if status == "failed" else None,
        "completed_at": ended_at if status == "completed" else None,
        "model": settings.model,
        "instructions": settings.instructions,
        "tools": [*settings.tools],
        "tool_choice": settings.tool_choice,
        "parallel_tool_calls": settings.parallel_tool_calls,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "reasoning_effort": settings.reasoning_effort,
        "response_format": settings.response_format,
        "max_prompt_tokens": settings.max_prompt_tokens,
        "max_completion_tokens": settings.max_completion_tokens,
        "truncation_strategy": truncation,
        "metadata": dict(run.metadata),
        "usage": None if run.is_active else _usage(run.usage),
    }


def step_body(run: Run, step: RunStep) -> JsonObject:
    """Return a `thread.run.step`."""
    ended_at, status = _at(step.ended_at_s), step.status
    if step.message_id is not None:
        kind = "message_creation"
        what: JsonValue = {"message_id": step.message_id}
    else:
        kind = "tool_calls"
        what = [
            {**_call(call), "function": {**_function(call), "output": call.output}}
            for call in step.tool_calls
        ]
    return {
        "id": step.id,
        "object": "thread.run.step",
        "created_at": int(step.created_at_s),
        "run_id": step.run_id,
        "assistant_id": run.settings.assistant_id,
        "thread_id": run.thread_id,
        "type": kind,
        "status": status,
        "completed_at": ended_at if status == "completed" else None,
        "cancelled_at": ended_at if status == "cancelled" else None,
        "failed_at": ended_at if status == "failed" else None,
        "expired_at": ended_at if status == "expired" else None,
        "last_error": _error(step.error),
        "metadata": {},
        "step_details": {"type": kind, kind: what},
        "usage": None if status == "in_progress" else _usage(step.usage),
    }


def text_content(text: str) -> tuple[JsonObject, ...]:
    """Return the content of a message that says `text`."""
    return ({"type": "text", "text": {"value": text, "annotations": []}},)


def text_delta(message_id: str, piece: str) -> JsonObject:
    """Return a `thread.message.delta`."""
    text: JsonObject = {"value": piece, "annotations": []}
    return {
        "id": message_id,
        "object": "thread.message.delta",
        "delta": {"content": [{"index": 0, "type": "text", "text": text}]},
    }


def call_delta(step_id: str, index: int, call: FunctionCall) -> JsonObject:
    """Return the `thread.run.step.delta` with which a call begins."""
    function = {**_function(call), "output": None}
    return _step_delta(step_id, {"index": index, **_call(call), "function": function})


def arguments_delta(step_id: str, index: int, piece: str) -> JsonObject:
    """Return the `thread.run.step.delta` with more of a call's arguments."""
    function: JsonObject = {"arguments": piece}
    return _step_delta(step_id, {"index": index, "type": "function", "function": function})


def _step_delta(step_id: str, call: JsonObject) -> JsonObject:
    return {
        "id": step_id,
        "object": "thread.run.step.delta",
        "delta": {"step_details": {"type": "tool_calls", "tool_calls": [call]}},
    }


def _required_action(run: Run) -> JsonObject | None:
    if run.status != "requires_action":
        return None
    calls: Sequence[JsonObject] = [
        {**_call(call), "function": _function(call)} for call in run.open_calls
    ]
    return {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [*calls]}}


def _incomplete_details(run: Run) -> JsonObject | None:
    match run.incomplete_reason:
        case None:
            return None
        case "max_tokens":
            return {"reason": "max_completion_tokens"}
        case "max_prompt_tokens":
            return {"reason": "max_prompt_tokens"}
        case _:  # OpenAI's type has no word for it; the message's own details do
            return {"reason": None}


def _call(call: FunctionCall) -> JsonObject:
    return {"id": call.id, "type": "function"}


def _function(call: FunctionCall) -> JsonObject:
    return {"name": call.name, "arguments": call.arguments}


def _error(error: RunError | None) -> JsonObject | None:
    return None if error is None else {"code": error.code, "message": error.message}


def _usage(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _at(moment_s: float | None) -> int | None:
    return None if moment_s is None else int(moment_s)
