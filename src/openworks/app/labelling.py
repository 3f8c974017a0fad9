"""What the gateway asks of the embedded models: labels of texts, and vectors of questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from openworks.core.errors import AppError
from openworks.core.ids import NewId, RequestId
from openworks.gateway.pipeline import Pipeline
from openworks.ports.calls import Call, CallRecord, Principal
from openworks.ports.moderation import ModerationUnavailableError
from openworks.ports.text import ChatRequest, EmbeddingRequest, EmbeddingResult, Sampling
from openworks.services.keys import DEFAULT_ACCOUNT

MODEL = "@openworks/tiny-chat"
ENCODER = "@openworks/tiny-embed"
_MAX_TOKENS = 16


def make_asker(pipeline: Pipeline, new_id: NewId) -> Callable[[str], Awaitable[str]]:
    """Return what sends one prompt and gives the answer's text, decoded greedily.

    Its calls are no caller's, so they leave no record.
    """

    async def ask(prompt: str) -> str:
        call = _own_call(new_id("guard_"), "guardrails", MODEL)
        request = ChatRequest(
            messages=[{"role": "user", "content": prompt}],
            sampling=Sampling(temperature=0.0, max_tokens=_MAX_TOKENS),
        )
        try:
            return "".join([chunk.content async for chunk in pipeline.chat(call, request)])
        except AppError as error:
            raise ModerationUnavailableError(
                f"The model that labels texts gave no answer: {error.message}"
            ) from error

    return ask


class QuestionEmbedder:
    """The embedded encoder, for the semantic cache."""

    def __init__(self, pipeline: Pipeline, new_id: NewId) -> None:
        self._pipeline = pipeline
        self._new_id = new_id

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        call = _own_call(self._new_id("alike_"), "semantic_cache", ENCODER)
        return await self._pipeline.embed(call, request)


def _own_call(call_id: str, route: str, model: str) -> Call:
    return Call(
        request_id=RequestId(call_id),
        principal=Principal(account_id=DEFAULT_ACCOUNT),
        route=route,
        model=model,
        observer=_forget,
    )


def _forget(record: CallRecord) -> None:
    """Keep nothing."""
