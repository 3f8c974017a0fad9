"""Text models: chat, completions, embeddings and reranking.

The streaming protocols have one method each, so that whatever the gateway does around a call has
the shape of the call itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from openworks.core.json import JsonObject
from openworks.ports.calls import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. None leaves the choice to the model's own defaults."""

    max_tokens: int | None = None
    """None: until the model ends or its context is full."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Texts that end the answer; never part of it, whatever tokens they fall on."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id → value added to its logit, -100..100."""
    top_logprobs: int | None = None
    """None: no log probabilities. 0: those of the chosen tokens. n: and of the n likeliest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonFormat:
    """The answer must be JSON: any object, or what `schema` describes."""

    schema: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One conversation to be continued `n` times."""

    messages: Sequence[JsonObject]
    """OpenAI's message objects, oldest first; at least one."""
    tools: Sequence[JsonObject] = ()
    """OpenAI's tool objects, of type function."""
    tool_choice: Literal["none", "auto", "required"] | str = "auto"
    """Any other string is the name of the one function to call."""
    parallel_tool_calls: bool = True
    response_format: JsonFormat | None = None
    reasoning_effort: str | None = None
    template_args: JsonObject = field(default_factory=dict)
    """Extra variables for the model's chat template."""
    sampling: Sampling = Sampling()
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One prompt to be continued `n` times, without a chat template."""

    prompt: str | Sequence[int]
    """Text, or token ids of the model's own vocabulary."""
    suffix: str | None = None
    """The text that follows the gap to be filled; only for models trained on it."""
    echo: bool = False
    """Begin the answer with the prompt."""
    sampling: Sampling = Sampling()
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token with its log probability and, for a chosen token, its likeliest rivals."""

    token: str
    bytes: tuple[int, ...]
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of a tool call; `id` and `name` come once, with the first piece."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChunk:
    """A step of one answer. Pieces of one `index` concatenate to that answer.

    The last chunk of an answer carries its `finish_reason`. `usage` holds the running totals of
    the whole request, so that a call that is cut off has been counted as well.
    """

    index: int = 0
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class ChatModel(Protocol):
    """Continues conversations."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        """Decode; closing the iterator stops the engine within one step.

        Raises:
            ContextLengthExceededError: The conversation is longer than the context.
            UnsupportedParameterError: This model cannot honour a parameter.
            EngineOverloadedError: The waiting queue is full; retryable.
            ModelLoadingError: The weights are being loaded; retryable.
            EngineCrashedError: The engine died; may come between two chunks.
        """
        ...


class TokenCounter(Protocol):
    """Says how long a conversation is."""

    async def count_tokens(self, request: ChatRequest) -> int:
        """Return the tokens of the prompt with its tools, template and generation prompt.

        It is exactly what `usage.prompt_tokens` of `ChatModel.stream` would be; a conversation
        that the context does not hold is counted as well.

        Raises:
            UnsupportedParameterError: This model cannot honour a parameter.
            InvalidRequestError: The template refuses the conversation.
        """
        ...


class CompletionModel(Protocol):
    """Continues plain text; the contract is that of `ChatModel`."""

    def stream(self, request: CompletionRequest) -> AsyncGenerator[TextChunk, None]:
        """Decode; closing the iterator stops the engine within one step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts to be turned into vectors."""

    inputs: Sequence[str | Sequence[int]]
    """Each a text or token ids; at least one, none empty."""
    dimensions: int | None = None
    """Cut the vectors to this width and renormalise them; None for the model's own width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingResult:
    """One unit vector per input, in the order of the inputs."""

    vectors: Sequence[bytes]
    """Little-endian float32, 4 bytes times the width."""
    usage: Usage


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Embed every input.

        Raises:
            ContextLengthExceededError: An input is longer than the model reads.
            InvalidRequestError: The model's vectors have fewer dimensions than are wanted.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """Documents to be scored against a query."""

    query: str
    documents: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    """One relevance score per document, in the order of the documents; higher is better."""

    scores: Sequence[float]
    usage: Usage


class Reranker(Protocol):
    """Scores documents against a query."""

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Score every document."""
        ...
