"""A chat request without a dialect: what OpenAI's body says, for those who say it otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from openworks.core.json import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Words."""

    text: str
    cache_control: JsonObject | None = None
    """A breakpoint of the provider's prompt cache, as Anthropic writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture: its bytes in base64, or where it is."""

    param: str
    """Where the caller put it, for errors."""
    media_type: str = ""
    data: str = ""
    url: str = ""
    cache_control: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A PDF in base64."""

    name: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """What the model thought in an earlier turn; `signature` vouches for it."""

    text: str = ""
    signature: str = ""
    redacted: str = ""
    """The encrypted form, in place of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """A call that the model made."""

    id: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a call returned."""

    call_id: str
    texts: tuple[str, ...]


Part: TypeAlias = Text | Image | Document | Thinking | ToolUse | ToolResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """All that one side said before the other spoke; never without parts."""

    role: Literal["user", "assistant"]
    parts: list[Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str | None
    parameters: JsonObject
    is_strict: bool
    cache_control: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """Which tools the model may or must call."""

    mode: Literal["auto", "any", "none", "tool"] = "auto"
    name: str = ""
    """With `tool`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSchema:
    """What the answer's JSON must look like."""

    name: str
    description: str | None
    schema: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatInput:
    """A chat request."""

    system: list[Text]
    turns: list[Turn]
    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    is_parallel: bool = True
    """Whether one turn may hold several calls."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = field(default_factory=list)
    effort: str | None = None
    """`reasoning_effort`, with `none` for no thinking."""
    schema: OutputSchema | None = None
    user: str | None = None
    service_tier: str | None = None
    """None for the provider's own choice."""
    is_stream: bool = False

    def has_calls(self) -> bool:
        """Whether a call or its result is in the conversation."""
        return any(
            isinstance(part, ToolUse | ToolResult) for turn in self.turns for part in turn.parts
        )

    def last_call_lacks_thinking(self) -> bool:
        """Whether calls are being answered whose turn came without the model's thinking."""
        if not any(isinstance(part, ToolResult) for part in self.turns[-1].parts):
            return False
        before = self.turns[-2].parts if len(self.turns) > 1 else []
        return not any(isinstance(part, Thinking) for part in before)
