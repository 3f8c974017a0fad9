"""The llama.cpp engine: requests run on threads that wait inside llama.cpp for their slot."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson
import xllamacpp

from openworks.core.errors import InternalError, InvalidRequestError, ModelUnavailableError
from openworks.core.gguf import GgufHeader, read_header
from openworks.core.ids import new_id
from openworks.core.json import JsonObject
from openworks.engines.base import Origin, Sink, Waiter
from openworks.engines.llamacpp.bodies import (
    ModelTraits,
    chat_body,
    completion_body,
)
from openworks.engines.llamacpp.chunks import ChunkReader, error_of
from openworks.engines.llamacpp.control import Control
from openworks.engines.llamacpp.forced_calls import (
    AsArguments,
    Collected,
    constrained,
    functions_of,
)
from openworks.engines.llamacpp.params import common_params
from openworks.engines.llamacpp.sinks import LaterRound, PromptAlone, UntilCall
from openworks.engines.sinks import AfterEcho
from openworks.engines.text_requests import later_seed, may_call_tool, must_call_tool
from openworks.ports.calls import Usage
from openworks.ports.catalog import Deployment
from openworks.ports.text import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResult,
    RerankRequest,
    RerankResult,
)

_T = TypeVar("_T")
_INPUTS_AT_ONCE = 32
"""Embeddings and scores come in batches of this size; a request can be cancelled between two."""


def batched(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Cut `items` into parts of `size`; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def load(deployment: Deployment, socket: Path) -> LlamaCppEngine:
    """Load a GGUF file; blocks until it is ready.

    Args:
        deployment: Its weights are a GGUF file.
        socket: Where llama.cpp puts its own HTTP port; in a folder that nobody else can enter.

    Raises:
        ModelUnavailableError: llama.cpp cannot load the file.
    """
    try:
        server = xllamacpp.Server(common_params(deployment, socket))
    except RuntimeError as exc:
        raise ModelUnavailableError(
            f"llama.cpp cannot load {deployment.weights}: the file may be incomplete, or of a kind "
            "that this version does not know.",
            code="model_load_failed",
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

    def chat(self, request: ChatRequest, origin: Origin, out: Sink) -> None:
        self._require("text-generation")
        one_call = bool(request.tools) and not request.parallel_tool_calls
        must_call = must_call_tool(request)
        # Under a schema's grammar a model can call nothing: whether it would is found out first.
        may_call = may_call_tool(request) and request.response_format is not None

        def read(*, calls_only: bool) -> ChunkReader:
            return ChunkReader(
                new_id=new_id,
                top_logprobs=request.sampling.top_logprobs,
                param="messages",
                stops=request.sampling.stop,
                one_call=one_call,
                must_call=calls_only,
            )

        def make(n: int, at: int, out: Sink) -> None:
            part = replace(request, n=n, sampling=later_seed(request.sampling, at))
            body = chat_body(part, self._traits)
            if must_call or may_call:
                reader = read(calls_only=True)
                free = {name: value for name, value in body.items() if name != "response_format"}
                _run(self._server.handle_chat_completions, free, reader, UntilCall(out))
                if not reader.talked:
                    return
                if must_call:
                    self._force_call(body, request.sampling.max_tokens, out)
                    return
                body["tool_choice"] = "none"
            _run(self._server.handle_chat_completions, body, read(calls_only=False), out)

        one_by_one = one_call or must_call or may_call or bool(request.sampling.stop)
        self._in_rounds(request.n, make, out, one_by_one=one_by_one)

    def count_tokens(self, request: ChatRequest) -> int:
        self._require("text-generation")
        return self._control.count_tokens(chat_body(request, self._traits))

    def _force_call(self, body: JsonObject, max_tokens: int | None, out: Sink) -> None:
        """Make the call that the model was told to make, when it talks instead."""
        functions = functions_of(body)
        name, chosen = next(iter(functions)), Collected(out)
        if len(functions) > 1:
            self._answer(constrained(body, {"enum": list(functions)}, max_tokens=-1), chosen)
            if out.is_cancelled:
                return
            name = orjson.loads(chosen.text)
        left = -1 if max_tokens is None else max(1, max_tokens - chosen.completion_tokens)
        call = AsArguments(out, name, new_id=new_id, completion_tokens=chosen.completion_tokens)
        self._answer(constrained(body, functions[name], max_tokens=left), call)

    def _answer(self, body: JsonObject, out: Sink) -> None:
        reader = ChunkReader(new_id=new_id, top_logprobs=None)
        _run(self._server.handle_chat_completions, body, reader, out)

    def complete(self, request: CompletionRequest, origin: Origin, out: Sink) -> None:
        self._require("text-generation")
        if request.echo:
            out = AfterEcho(out, self._prompt_text(request), request.n)
        if request.sampling.max_tokens == 0:
            out = PromptAlone(out)

        def make(n: int, at: int, out: Sink) -> None:
            part = replace(request, n=n, sampling=later_seed(request.sampling, at))
            reader = ChunkReader(
                new_id=new_id,
                top_logprobs=request.sampling.top_logprobs,
                param="prompt",
                stops=request.sampling.stop,
            )
            body = completion_body(part, self._traits)
            _run(self._server.handle_completions, body, reader, out)

        self._in_rounds(request.n, make, out, one_by_one=bool(request.sampling.stop))

    def embed(self, request: EmbeddingRequest, waiter: Waiter) -> EmbeddingResult:
        self._require("text-embeddings")
        vectors: list[bytes] = []
        usage = Usage()
        for inputs in batched(request.inputs, _INPUTS_AT_ONCE):
            if waiter.is_cancelled:
                break
            waiter.still_working()
            body: JsonObject = {
                "input": [text if isinstance(text, str) else list(text) for text in inputs],
                "encoding_format": "base64",
            }
            answer = _ask(self._server.handle_embeddings, body, param="input")
            rows = sorted(answer["data"], key=lambda row: cast("int", row["index"]))
            vectors += [base64.b64decode(row["embedding"]) for row in rows]
            usage += Usage(prompt_tokens=answer["usage"]["prompt_tokens"])
        return EmbeddingResult(vectors=vectors, usage=usage)

    def rerank(self, request: RerankRequest, waiter: Waiter) -> RerankResult:
        self._require("rerank")
        scores: list[float] = []
        usage = Usage()
        for documents in batched(request.documents, _INPUTS_AT_ONCE):
            if waiter.is_cancelled:
                break
            waiter.still_working()
            body: JsonObject = {"query": request.query, "documents": list(documents)}
            answer = _ask(self._server.handle_rerank, body, param="documents")
            rows = sorted(answer["results"], key=lambda row: cast("int", row["index"]))
            scores += [row["relevance_score"] for row in rows]
            usage += Usage(prompt_tokens=answer["usage"]["prompt_tokens"])
        return RerankResult(scores=scores, usage=usage)

    def forget(self, generation: str) -> None:
        """Nothing to do: an adapter is loaded with the weights, and leaves with the process."""

    def report(self) -> None:
        """Nothing to say."""

    def _require(self, task: str) -> None:
        if self._task != task:
            raise InvalidRequestError(
                f"This model is for {self._task}, not for {task}.", param="model"
            )

    def _prompt_text(self, request: CompletionRequest) -> str:
        if isinstance(request.prompt, str):
            return request.prompt
        try:
            return self._control.detokenize(list(request.prompt))
        except InternalError as exc:  # all that it says of ids beyond the vocabulary
            raise InvalidRequestError(
                "Invalid 'prompt': it holds token ids that this model does not have.",
                param="prompt",
            ) from exc

    def _in_rounds(
        self, n: int, make: Callable[[int, int, Sink], None], out: Sink, *, one_by_one: bool
    ) -> None:
        """Make `n` answers, at most one for each slot at a time: llama.cpp takes no more.

        Answers that we may end go `one_by_one`: of several, llama.cpp drops none alone.
        """
        at_once = 1 if one_by_one else self._parallel
        if n <= at_once:
            make(n, 0, out)
            return
        later = LaterRound(out)
        for at in range(0, n, at_once):
            if not out.is_cancelled:
                make(min(at_once, n - at), at, later)
                later.next_round(at_once)


def _run(
    handle: Callable[[bytes, Callable[[bytes], bool]], None],
    body: JsonObject,
    reader: ChunkReader,
    out: Sink,
) -> None:
    """Run a streamed request; once cancelled or over, llama.cpp drops it at its next event."""
    failures: list[Exception] = []

    def on_event(event: bytes) -> bool:
        if out.is_cancelled:
            return True
        try:
            for chunk in reader.read(orjson.loads(event)):
                out.put(chunk)
        except Exception as exc:  # noqa: BLE001 - the wheel would swallow it; raised again below
            failures.append(exc)
            return True
        return reader.is_over

    try:
        handle(orjson.dumps(body), on_event)
    except (RuntimeError, ValueError) as exc:  # what llama.cpp throws while it reads the request
        raise InvalidRequestError(f"The engine refused the request: {exc}") from exc
    if failures:
        raise failures[0]


def _ask(handle: Callable[[bytes], bytes], body: JsonObject, *, param: str) -> dict[str, Any]:
    try:
        data = handle(orjson.dumps(body))
    except (RuntimeError, ValueError) as exc:
        raise InvalidRequestError(f"The engine refused the request: {exc}") from exc
    answer = cast("dict[str, Any]", orjson.loads(data))
    if (error := answer.get("error")) is not None:
        raise error_of(error, param)
    return answer


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
