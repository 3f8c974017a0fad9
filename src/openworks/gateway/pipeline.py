"""The one way to a model: whatever the route, a call is admitted, run and recorded here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from openworks.core.clock import Clock
from openworks.core.errors import InvalidRequestError, PermissionDeniedError
from openworks.gateway.meter import Meter
from openworks.ports.calls import Call, CallRecord
from openworks.ports.catalog import Deployment, Models, Task
from openworks.ports.engines import Engines
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
    TextChunk,
)


class Recorder(Protocol):
    """Takes the record of every call that ends."""

    async def record(self, record: CallRecord) -> None:
        """Take a record; waits while the recorder is full, and never drops one."""
        ...


class Pipeline:
    """Runs model calls and leaves one record for each."""

    def __init__(
        self, *, models: Models, engines: Engines, recorders: Sequence[Recorder], clock: Clock
    ) -> None:
        self._models = models
        self._engines = engines
        self._recorders = recorders
        self._clock = clock

    async def chat(self, call: Call, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        """Continue a conversation, as `ports.text.ChatModel.stream`."""
        async with (
            self._metered(call, "text-generation") as (meter, deployment),
            aclosing(self._engines.chat(deployment).stream(request)) as chunks,
        ):
            async for chunk in chunks:
                meter.saw(chunk)
                yield chunk

    async def complete(
        self, call: Call, request: CompletionRequest
    ) -> AsyncGenerator[TextChunk, None]:
        """Continue a text, as `ports.text.CompletionModel.stream`."""
        async with (
            self._metered(call, "text-generation") as (meter, deployment),
            aclosing(self._engines.completions(deployment).stream(request)) as chunks,
        ):
            async for chunk in chunks:
                meter.saw(chunk)
                yield chunk

    async def embed(self, call: Call, request: EmbeddingRequest) -> EmbeddingResult:
        """Embed texts, as `ports.text.Embedder.embed`."""
        async with self._metered(call, "text-embeddings") as (meter, deployment):
            result = await self._engines.embedder(deployment).embed(request)
            meter.usage = result.usage
            return result

    async def rerank(self, call: Call, request: RerankRequest) -> RerankResult:
        """Score documents, as `ports.text.Reranker.rerank`."""
        async with self._metered(call, "rerank") as (meter, deployment):
            result = await self._engines.reranker(deployment).rerank(request)
            meter.usage = result.usage
            return result

    @asynccontextmanager
    async def _metered(self, call: Call, task: Task) -> AsyncIterator[tuple[Meter, Deployment]]:
        meter = Meter(call, self._clock)
        error: BaseException | None = None
        try:
            meter.deployment = self._admit(call, task)
            yield meter, meter.deployment
        except BaseException as exc:
            error = exc
            raise
        finally:
            record = meter.record(error)
            for recorder in self._recorders:
                await recorder.record(record)

    def _admit(self, call: Call, task: Task) -> Deployment:
        deployment = self._models.resolve(call.model)
        allowed = call.principal.allowed_models
        if allowed is not None and deployment.id not in map(self._models.canonical, allowed):
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
