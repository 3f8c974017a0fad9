"""The one way to a model: whatever the route, a call is admitted, run and recorded here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError, PermissionDeniedError
from openworks.gateway.gate import Gate
from openworks.gateway.meter import Meter
from openworks.ports.calls import Call, Usage
from openworks.ports.catalog import Deployment, Models, Task
from openworks.ports.engines import Engines
from openworks.ports.limits import Admission
from openworks.ports.recorder import Recorder
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
    TextChunk,
)


class Pipeline:
    """Runs model calls and leaves one record for each."""

    def __init__(
        self,
        *,
        models: Models,
        engines: Engines,
        recorders: Sequence[Recorder],
        gate: Gate | None = None,
        clock: Clock,
    ) -> None:
        self._gate = gate
        self._models = models
        self._engines = engines
        self._recorders = recorders
        self._clock = clock

    async def chat(self, call: Call, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        """Continue a conversation, as `ports.text.ChatModel.stream`."""
        async with (
            self._metered(call, "text-generation", _most_of_chat(request)) as (meter, deployment),
            aclosing(
                self._engines.chat(
                    deployment, call.principal.account_id, is_background=call.is_background
                ).stream(request)
            ) as chunks,
        ):
            async for chunk in chunks:
                meter.saw(chunk)
                yield chunk

    async def count_tokens(self, call: Call, request: ChatRequest) -> int:
        """Count a conversation's tokens, as `ports.text.TokenCounter`; nothing is recorded.

        Raises:
            AppError: As `resolve`.
        """
        deployment = await self.resolve(call, "text-generation")
        return await self._engines.token_counter(deployment).count_tokens(request)

    async def complete(
        self, call: Call, request: CompletionRequest
    ) -> AsyncGenerator[TextChunk, None]:
        """Continue a text, as `ports.text.CompletionModel.stream`."""
        async with (
            self._metered(call, "text-generation", _most(request)) as (meter, deployment),
            aclosing(
                self._engines.completions(
                    deployment, call.principal.account_id, is_background=call.is_background
                ).stream(request)
            ) as chunks,
        ):
            async for chunk in chunks:
                meter.saw(chunk)
                yield chunk

    async def embed(self, call: Call, request: EmbeddingRequest) -> EmbeddingResult:
        """Embed texts, as `ports.text.Embedder.embed`."""
        async with self._metered(call, "text-embeddings", _most_of_texts(request.inputs)) as (
            meter,
            deployment,
        ):
            embedder = self._engines.embedder(deployment, is_background=call.is_background)
            result = await embedder.embed(request)
            meter.usage = result.usage
            return result

    async def rerank(self, call: Call, request: RerankRequest) -> RerankResult:
        """Score documents, as `ports.text.Reranker.rerank`."""
        async with self._metered(call, "rerank", _most_of_texts(request.documents)) as (
            meter,
            deployment,
        ):
            result = await self._engines.reranker(deployment).rerank(request)
            meter.usage = result.usage
            return result

    @asynccontextmanager
    async def _metered(
        self, call: Call, task: Task, most: Usage
    ) -> AsyncIterator[tuple[Meter, Deployment]]:
        meter = Meter(call, self._clock)
        admission: Admission | None = None
        error: BaseException | None = None
        try:
            deployment = meter.deployment = await self.resolve(call, task)
            if self._gate is not None and call.observer is None:
                admission = await self._gate.admit(
                    call,
                    model=deployment.id,
                    tokens=most.prompt_tokens + most.completion_tokens,
                    cost_usd=meter.cost_usd(most),
                )
            yield meter, deployment
        except BaseException as exc:
            error = exc
            raise
        finally:
            record = meter.record(error)
            if admission is not None:
                usage = record.usage
                admission.settle(
                    tokens=usage.prompt_tokens + usage.completion_tokens, cost_usd=record.cost_usd
                )
            if call.observer is not None:
                call.observer(record)
            else:
                for recorder in self._recorders:
                    recorder.record(record)

    async def resolve(self, call: Call, task: Task) -> Deployment:
        """Return what would answer a call; nothing is asked of it, and nothing recorded.

        Raises:
            ModelNotFoundError: As `Models.deploy`.
            PermissionDeniedError: The caller may not use it.
            InvalidRequestError: It is for something else than `task`.
        """
        deployment = await self._models.deploy(call.model, call.principal.account_id)
        allowed = call.principal.allowed_models
        # Who may use a model may use it with adapters of the account.
        if allowed is not None and not {deployment.id, deployment.entry.id}.intersection(
            map(self._models.canonical, allowed)
        ):
            raise PermissionDeniedError(
                f"This key may not use the model {call.model!r}.",
                code="model_not_allowed",
                param="model",
            )
        if deployment.entry.task != task:
            raise InvalidRequestError(
                f"The model {call.model!r} is for {deployment.entry.task}, not for {task}.",
                code="wrong_task",
                param="model",
            )
        return deployment


_OPEN_END = 1024
"""What a budget sets aside for an answer of a length that the caller left open."""


def _most_of_chat(request: ChatRequest) -> Usage:
    """Return about what a conversation may take, for limits to set aside."""
    prompt = sum(len(str(message.get("content", ""))) for message in request.messages)
    return _of(prompt, request.sampling.max_tokens, request.n)


def _most(request: CompletionRequest) -> Usage:
    prompt = request.prompt
    length = len(prompt) if isinstance(prompt, str) else 4 * len(prompt)
    return _of(length, request.sampling.max_tokens, request.n)


def _most_of_texts(texts: Sequence[str | Sequence[int]]) -> Usage:
    return Usage(prompt_tokens=sum(len(text) for text in texts) // 4 + 1)


def _of(prompt_chars: int, max_tokens: int | None, n: int) -> Usage:
    return Usage(
        prompt_tokens=prompt_chars // 4 + 1,
        completion_tokens=n * (_OPEN_END if max_tokens is None else max_tokens),
    )
