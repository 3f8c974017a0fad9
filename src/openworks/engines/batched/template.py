"""Hugging Face chat templates: a conversation as the text that a model was taught to continue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from openworks.core.clock import Clock
from openworks.core.errors import (
    InvalidRequestError,
    ModelUnavailableError,
    UnsupportedParameterError,
)
from openworks.core.json import JsonObject, JsonValue
from openworks.engines.batched.template_environment import template_environment
from openworks.engines.batched.template_messages import template_messages

_RENDER_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template does with data that it was not written for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTraits:
    """What a template's source shows that it can use."""

    tools: bool
    thinking_switch: bool
    """It knows `enable_thinking`."""
    reasoning_effort: bool
    developer_role: bool
    """It tells developers from the system; otherwise their messages are the system's."""
    text_arguments: bool
    """It wants the arguments of past calls as JSON text, not as an object."""


class ChatTemplate:
    """A compiled template, in a sandbox: it comes with the weights, and nobody has read it."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        *,
        clock: Clock,
        tool_source: str | None = None,
    ) -> None:
        """Compile.

        Args:
            source: The template.
            special_tokens: Variables for it, such as `bos_token` → `<s>`.
            clock: What `strftime_now` asks; the time is given in the local zone.
            tool_source: Another template, for conversations with tools.

        Raises:
            ModelUnavailableError: It is no template.
        """
        environment = template_environment(clock)
        self.source = source if tool_source is None else f"{source}\n{tool_source}"
        """All that the model's makers wrote; shows its formats."""
        self._special_tokens = dict(special_tokens)
        self._plain = _compiled(environment, source)
        self._for_tools = self._plain
        if tool_source is not None:
            self._for_tools = _compiled(environment, tool_source)
        self.traits = TemplateTraits(
            tools="tools" in self.source,
            thinking_switch="enable_thinking" in self.source,
            reasoning_effort="reasoning_effort" in self.source,
            developer_role="developer" in self.source,
            text_arguments=self._wants_text_arguments(),
        )

    def render(
        self,
        messages: Sequence[JsonObject],
        *,
        tools: Sequence[JsonObject] = (),
        template_args: JsonObject | None = None,
        documents: Sequence[JsonObject] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Return the prompt of a conversation.

        Args:
            messages: OpenAI's message objects.
            tools: OpenAI's tool objects that the model is told of.
            template_args: Further variables; those named here as arguments win.
            documents: Texts to be consulted, for templates that know them.
            add_generation_prompt: End with what opens the model's answer.

        Raises:
            UnsupportedParameterError: A part of a message is no text, or there are tools and the
                template knows none.
            InvalidRequestError: The template refuses the conversation.
        """
        if tools and not self.traits.tools:
            raise UnsupportedParameterError(
                "This model's chat template knows no tools.", param="tools"
            )
        shaped = template_messages(
            messages,
            developer_role=self.traits.developer_role,
            text_arguments=self.traits.text_arguments,
        )
        variables: JsonObject = {
            **self._special_tokens,
            **(template_args or {}),
            "messages": list[JsonValue](shaped),
            "tools": list[JsonValue](tools) or None,
            "documents": None if documents is None else list[JsonValue](documents),
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return (self._for_tools if tools else self._plain).render(variables)
        except _RENDER_ERRORS as exc:
            raise InvalidRequestError(
                f"The model's chat template refuses this conversation: {str(exc).rstrip('.')}.",
                param="messages",
            ) from exc

    def _wants_text_arguments(self) -> bool:
        """Try a past call: templates for texts fail on an object, or write it as Python does."""
        as_object = self._try_call({"word": "a"})
        failed = as_object is None or "{'word': 'a'}" in as_object
        return failed and self._try_call('{"word": "a"}') is not None

    def _try_call(self, arguments: JsonValue) -> str | None:
        """Render a conversation with one call; None where that fails."""
        call: JsonObject = {
            "id": "call00000",  # nine letters and digits, as Mistral's templates insist
            "type": "function",
            "function": {"name": "lookup", "arguments": arguments},
        }
        messages: list[JsonValue] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        variables: JsonObject = {**self._special_tokens, "messages": messages}
        try:
            return self._for_tools.render(variables)
        except _RENDER_ERRORS:
            return None


def load_template(folder: Path, *, clock: Clock) -> ChatTemplate | None:
    """Return the chat template of a model's folder; None where the model has none.

    `chat_template.jinja` is asked before `tokenizer_config.json`, whose template may be one text
    or a list of named ones: `default`, and `tool_use` for conversations with tools.

    Raises:
        ModelUnavailableError: A file cannot be read, or is no template.
    """
    config = _read_config(folder / "tokenizer_config.json")
    sources = _sources(folder, config)
    default = sources.get("default", sources.get("tool_use"))
    if default is None:
        return None
    return ChatTemplate(
        default, _special_tokens(config), clock=clock, tool_source=sources.get("tool_use")
    )


def _sources(folder: Path, config: JsonObject) -> dict[str, str]:
    """Return the templates of a folder by their names."""
    named = config.get("chat_template")
    found: dict[str, str] = {}
    if isinstance(named, str):
        found["default"] = named
    elif isinstance(named, list):
        for each in named:
            match each:
                case {"name": str(name), "template": str(source)}:
                    found[name] = source
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = _read_text(path)
    if (path := folder / "chat_template.jinja").exists():
        found["default"] = _read_text(path)
    return found


def _special_tokens(config: JsonObject) -> dict[str, str]:
    """Return `bos_token` and its like; each may be written as a text or as an object."""
    tokens: dict[str, str] = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _read_config(path: Path) -> JsonObject:
    if not path.exists():
        return {}
    try:
        config = json.loads(_read_text(path))
    except ValueError as exc:
        raise ModelUnavailableError(f"{path.name} is not JSON: {exc}.") from exc
    if not isinstance(config, dict):
        raise ModelUnavailableError(f"{path.name} is not a JSON object.")
    return config


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ModelUnavailableError(f"{path.name} cannot be read: {exc}.") from exc


def _compiled(environment: ImmutableSandboxedEnvironment, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError) as exc:
        raise ModelUnavailableError(f"The model's chat template is broken: {exc}.") from exc
