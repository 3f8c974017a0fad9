"""llama.cpp in this process, so that what is measured is what will be served."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp


class LocalServer:
    """One GGUF file behind llama.cpp's own server code."""

    def __init__(self, path: Path, *, embedding: bool = False, threads: int = 2) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_parallel = 1
        parameters.verbosity = 0
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        if embedding:
            parameters.embedding = True
            parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
        else:
            parameters.n_ctx = 2048
        self._server = xllamacpp.Server(parameters)

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion, greedy unless the body says otherwise."""
        answers: list[dict[str, Any]] = []

        def receive(answer: Any) -> None:
            answers.append(json.loads(answer) if isinstance(answer, str) else answer)

        self._server.handle_chat_completions(json.dumps({"temperature": 0, **body}), receive)
        return answers[0]

    def stream(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunks of a streamed chat completion."""
        chunks: list[dict[str, Any]] = []

        def receive(chunk: Any) -> None:
            chunks.append(json.loads(chunk) if isinstance(chunk, str) else chunk)

        streamed = {"temperature": 0, **body, "stream": True}
        self._server.handle_chat_completions(json.dumps(streamed), receive)
        return chunks

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""
        answer = self._server.handle_embeddings({"input": texts})
        return [row["embedding"] for row in answer["data"]]

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a plain text."""
        request = urllib.request.Request(
            self._server.listening_address + "/tokenize",
            json.dumps({"content": text, "parse_special": False}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            tokens: list[int] = json.load(answer)["tokens"]
        return tokens
