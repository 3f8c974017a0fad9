"""A conversation over the HTTP API: with the server that is there, or with one started for it."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import openai
from openai.types.chat import ChatCompletionMessageParam

from openworks.app.cli.launch import DEMONSTRATION_MODEL, EXAMPLE_MODEL
from openworks.app.cli.private_server import private_server
from openworks.app.cli.terminal import hide_logs
from openworks.app.settings import Settings
from openworks.core.errors import AuthenticationError, ModelNotFoundError, ProviderError
from openworks.services.keys import AccessConfig

_PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer as it comes."""

    text: str
    is_reasoning: bool = False


@dataclass(slots=True, kw_only=True)
class Conversation:
    """What was said, and the model that goes on with it."""

    client: openai.OpenAI
    model: str
    system: str | None
    messages: list[ChatCompletionMessageParam] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    @property
    def is_demonstration(self) -> bool:
        """Whether the model is the one that this package carries."""
        return self.model == DEMONSTRATION_MODEL

    def reset(self) -> None:
        """Forget everything but the instructions."""
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def answer(self, text: str) -> Generator[Piece, None, None]:
        """Yield the model's answer to `text`; what came before an early end is remembered.

        Raises:
            ProviderError: The server refused or failed; `text` is not remembered.
        """
        self.messages.append({"role": "user", "content": text})
        said = ""
        try:
            with self.client.chat.completions.create(
                model=self.model, messages=self.messages, stream=True
            ) as stream:
                for chunk in stream:
                    if not chunk.choices:
                        continue
                    delta = chunk.choices[0].delta
                    if reasoning := getattr(delta, "reasoning_content", None):
                        yield Piece(str(reasoning), is_reasoning=True)
                    if delta.content:
                        said += delta.content
                        yield Piece(delta.content)
        except openai.OpenAIError as exc:
            raise ProviderError(reason(exc)) from exc
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": said})
            else:
                self.messages.pop()


@contextmanager
def open_chat(
    settings: Settings,
    *,
    model: str | None,
    url: str | None,
    system: str | None,
    api_key: str | None,
) -> Iterator[Conversation]:
    """Connect to the server at `url`, or at the settings' address, or else to one started here.

    Raises:
        ProviderError: Nothing answers at `url`.
        AuthenticationError: The server asks for another key.
    """
    usual = url or f"http://{settings.server.host}:{settings.server.port}/v1"
    with ExitStack() as stack:
        client = stack.enter_context(_client(usual, api_key))
        names = _chat_models(client, usual, must_answer=url is not None)
        if names is None:
            token = secrets.token_urlsafe()
            own = replace(
                settings,
                models=(*settings.models, *([model] if model else [])),
                access=AccessConfig(token=token),
            )
            hide_logs()
            base_url = stack.enter_context(private_server(own))
            client = stack.enter_context(_client(base_url, token))
            names = _chat_models(client, base_url, must_answer=True)
            model = None  # it is the default of its task there, whatever its id became
        if model is None and not names:
            raise ModelNotFoundError(
                f"No chat model is served at {client.base_url}. Try: "
                f"openworks chat --model {EXAMPLE_MODEL}"
            )
        yield Conversation(client=client, model=model or (names or [""])[0], system=system)


def reason(error: openai.OpenAIError) -> str:
    """Say in one line why a call failed."""
    if isinstance(error, openai.APIStatusError) and isinstance(error.body, dict):
        return str(error.body.get("message") or error.message)
    if isinstance(error, openai.APIConnectionError):
        return "The server does not answer any more."
    return str(error)


def _client(url: str, api_key: str | None) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=api_key or "none")


def _chat_models(client: openai.OpenAI, url: str, *, must_answer: bool) -> list[str] | None:
    """List the chat models, the default first; None when no such server is there."""
    try:
        models = client.with_options(timeout=_PROBE_TIMEOUT_S, max_retries=0).models.list().data
    except openai.AuthenticationError as exc:
        raise AuthenticationError(
            f"The server at {url} asks for a key: pass --api-key, or set OPENAI_API_KEY. "
            f"It says: {reason(exc)}"
        ) from exc
    except openai.OpenAIError as exc:
        if not must_answer:
            return None
        raise ProviderError(
            f"No OpenAI-compatible server answers at {url}. Start one with `openworks serve`, or "
            "leave --url out to have one started for this chat."
        ) from exc
    # `task` is this server's own field; others list what they have.
    return [model.id for model in models if _task(model) == "text-generation"]


def _task(model: openai.types.Model) -> str:
    return str((model.model_extra or {}).get("task", "text-generation"))
