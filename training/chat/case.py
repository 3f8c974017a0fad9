"""A conversation with a known good answer: what every skill generates, for training and tests."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
Tool = dict[str, Any]
Match = Literal["exact", "contains"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One conversation; its last message is the answer that the model should give."""

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    match: Match = "exact"
    """How a text answer is judged; tool calls must always agree in name and arguments."""
    needles: tuple[str, ...] = ()
    """What a `contains` answer must hold, whatever the case."""

    def accepts(self, answer: Message) -> bool:
        """Whether a model's message does what this case asks."""
        expected = self.messages[-1]
        if calls_of(expected) or calls_of(answer):
            return calls_of(expected) == calls_of(answer)
        text = str(answer.get("content") or "").strip()
        if self.match == "contains":
            return all(contains(text, needle) for needle in self.needles)
        return text == str(expected["content"]).strip()


def contains(text: str, needle: str) -> bool:
    """Whether `needle` stands in `text` as a whole word, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(needle)}(?!\w)", text, re.IGNORECASE) is not None


def calls_of(message: Message) -> list[tuple[str, Any]]:
    """The tool calls of a message as comparable pairs of name and arguments."""
    calls = []
    for call in message.get("tool_calls") or []:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                arguments = {"unreadable": arguments}
        calls.append((call["function"]["name"], arguments))
    return calls


def user(text: str) -> Message:
    """A user's turn."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant's turn."""
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    """A system turn."""
    return {"role": "system", "content": text}


def calling(*calls: tuple[str, dict[str, Any]]) -> Message:
    """An assistant's turn that calls tools."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ],
    }


def tool_result(text: str) -> Message:
    """What a tool returned."""
    return {"role": "tool", "content": text}
