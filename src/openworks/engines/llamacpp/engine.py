"""The llama.cpp engine: requests run on threads that wait inside llama.cpp for their slot."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import xllamacpp

from openworks.core.errors import InvalidRequestError, ModelUnavailableError
from openworks.core.gguf import GgufHeader, read_header
from openworks.core.ids import new_id
from openworks.core.json import JsonObject
from openworks.engines.llamacpp.bodies import ModelTraits, chat_body, completion_body
from openworks.engines.llamacpp.chunks import ChunkReader, error_of
from openworks.engines.llamacpp.control import Control
from openworks.engines.llamacpp.params import common_params
from openworks.ports.calls import Usage
from openworks.ports.catalog import Deployment
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
    Sampling,
    TextChunk,
)

_MAX_THREADS = 1024
"""More than the server ever admits; a thread is made when one is needed."""

_Handle = Callable[[bytes, Callable[[bytes], bool]], None]


def load(deployment: Deployment) -> LlamaCppEngine:
    """Load a GGUF file; blocks until it is ready.

    Raises:
        ModelUnavailableError: llama.cpp cannot load the file.
    """
    folder = Path(tempfile.mkdtemp(prefix="openworks-"))  # 0700: nobody else reaches the socket
    socket = folder / "llamacpp.sock"
    try:
        server = xllamacpp.Server(common_params(deployment, socket))
    except RuntimeError as exc:
        raise ModelUnavailableError(
            f"llama.cpp cannot load {deployment.weights}: {exc}", code="model_load_failed"
        ) from exc
    props = Control(socket).props()
    return LlamaCppEngine(server, Control(socket), deployment, props)


class LlamaCppEngine:
    """One GGUF model with its slots. Requests beyond the slots wait in llama.cpp's own queue."""

    def __init__(
        self, server: xllamacpp.Server, control: Control, deployment: Deployment, props: JsonObject
    ) -> None:
        settings = cast("dict[str, Any]", props["default_generation_settings"])
        self.context_tokens: int = settings["n_ctx"]
        self._server = server
        self._control = control
        self._parallel = deployment.parallel
        self._task = deployment.entry.task
        self._traits = traits_of(props, read_header(deployment.weights))
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="request")

    async def chat(self, request: ChatRequest) -> AsyncGenerator[TextChunk, None]:
        self._require("text-generation")
        async for chunk in self._in_rounds(
            request.n,
            lambda n, at: self._run(
                self._server.handle_chat_completions,
                chat_body(
                    replace(request, n=n, sampling=_later_seed(request.sampling, at)), self._traits
                ),
                top_logprobs=request.sampling.top_logprobs,
            ),
        ):
            yield chunk

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[TextChunk, None]:
        self._require("text-generation")
        if request.echo:
            text = await self._prompt_text(request)
            for index in range(request.n):
                yield TextChunk(index=index, content=text)
        async for chunk in self._in_rounds(
            request.n,
            lambda n, at: self._run(
                self._server.handle_completions,
                completion_body(
                    replace(request, n=n, sampling=_later_seed(request.sampling, at)), self._traits
                ),
                top_logprobs=request.sampling.top_logprobs,
            ),
        ):
            yield chunk

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        self._require("text-embeddings")
        body: JsonObject = {
            "input": [text if isinstance(text, str) else list(text) for text in request.inputs],
            "encoding_format": "base64",
        }
        answer = await self._ask(self._server.handle_embeddings, body)
        rows = sorted(answer["data"], key=lambda row: cast("int", row["index"]))
        return EmbeddingResult(
            vectors=[base64.b64decode(row["embedding"]) for row in rows],
            usage=Usage(prompt_tokens=answer["usage"]["prompt_tokens"]),
        )

    async def rerank(self, request: RerankRequest) -> RerankResult:
        self._require("rerank")
        body: JsonObject = {"query": request.query, "documents": list(request.documents)}
        answer = await self._ask(self._server.handle_rerank, body)
        scores = [0.0] * len(request.documents)
        for row in answer["results"]:
            scores[row["index"]] = row["relevance_score"]
        return RerankResult(
            scores=scores, usage=Usage(prompt_tokens=answer["usage"]["prompt_tokens"])
        )

    def _require(self, task: str) -> None:
        if self._task != task:
            raise InvalidRequestError(
                f"This model is for {self._task}, not for {task}.", param="model"
            )

    async def _prompt_text(self, request: CompletionRequest) -> str:
        if isinstance(request.prompt, str):
            return request.prompt
        return await asyncio.to_thread(self._control.detokenize, list(request.prompt))

    async def _in_rounds(
        self, n: int, run: Callable[[int, int], AsyncGenerator[TextChunk, None]]
    ) -> AsyncGenerator[TextChunk, None]:
        """Make `n` answers, at most one for each slot at a time: llama.cpp takes no more."""
        before = Usage()
        for at in range(0, n, self._parallel):
            usage = Usage()
            async with aclosing(run(min(self._parallel, n - at), at)) as chunks:
                async for chunk in chunks:
                    usage = chunk.usage or usage
                    yield replace(chunk, index=chunk.index + at, usage=_sum(before, usage))
            before = _sum(before, usage)

    async def _run(
        self, handle: _Handle, body: JsonObject, *, top_logprobs: int | None
    ) -> AsyncGenerator[TextChunk, None]:
        reader = ChunkReader(new_id=new_id, top_logprobs=top_logprobs)
        async with aclosing(self._events(handle, body)) as events:
            async for event in events:
                for chunk in reader.read(event):
                    yield chunk

    async def _events(
        self, handle: _Handle, body: JsonObject
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield llama.cpp's events; when closed, llama.cpp drops the request at its next one."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        cancelled = threading.Event()

        def on_event(event: bytes) -> bool:
            if not cancelled.is_set():
                loop.call_soon_threadsafe(queue.put_nowait, event)
            return cancelled.is_set()

        def work() -> None:
            try:
                handle(orjson.dumps(body), on_event)
            except RuntimeError as exc:  # what llama.cpp throws while it reads the request
                loop.call_soon_threadsafe(queue.put_nowait, exc)
            else:
                loop.call_soon_threadsafe(queue.put_nowait, None)

        self._threads.submit(work)
        try:
            while (event := await queue.get()) is not None:
                if isinstance(event, Exception):
                    raise InvalidRequestError(f"The engine refused the request: {event}")
                yield orjson.loads(event)
        finally:
            cancelled.set()

    async def _ask(self, handle: Callable[[bytes], bytes], body: JsonObject) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        try:
            data = await loop.run_in_executor(self._threads, handle, orjson.dumps(body))
        except RuntimeError as exc:
            raise InvalidRequestError(f"The engine refused the request: {exc}") from exc
        answer = cast("dict[str, Any]", orjson.loads(data))
        if (error := answer.get("error")) is not None:
            raise error_of(error)
        return answer


def _later_seed(sampling: Sampling, at: int) -> Sampling:
    """Seed the answers from number `at` on, so that no round repeats the one before."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + at)


def _sum(before: Usage, now: Usage) -> Usage:
    """Add up rounds: every round reads the same prompt, which counts once."""
    return replace(now, completion_tokens=before.completion_tokens + now.completion_tokens)


def traits_of(props: JsonObject, header: GgufHeader) -> ModelTraits:
    """Read what the model can do from llama.cpp's `/props` and from its file."""
    prefix, suffix, middle = (
        header.integer(f"tokenizer.ggml.fim_{part}_token_id") for part in ("pre", "suf", "mid")
    )
    caps = cast("dict[str, bool]", props.get("chat_template_caps") or {})
    modalities = cast("dict[str, bool]", props.get("modalities") or {})
    template = str(props.get("chat_template") or "")
    return ModelTraits(
        tools=caps.get("supports_tools", False),
        parallel_tools=caps.get("supports_parallel_tool_calls", False),
        reasoning_effort=caps.get("supports_reasoning_effort", False),
        thinking_switch="enable_thinking" in template,
        vision=modalities.get("vision", False),
        fill_in=(prefix, suffix, middle) if prefix and suffix and middle else None,
    )
