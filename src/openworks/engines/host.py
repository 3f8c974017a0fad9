"""The engine process: one model, fed through one socket.

Started as `python -m openworks.engines.host ADDRESS` with the deployment as JSON on the first line
of standard input. When standard input ends, the server is gone and so is this process: it never
outlives its owner, however that one ended.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import assert_never, cast

import zmq
import zmq.asyncio

from openworks.core.errors import AppError, InternalError
from openworks.engines.base import ENGINE_FACTORIES, Engine, EngineFactory
from openworks.engines.messages import (
    Cancel,
    Chat,
    Chunk,
    Complete,
    Done,
    Embed,
    Embedded,
    ErrorInfo,
    Failed,
    LoadFailed,
    Ready,
    Rerank,
    Reranked,
    ToServer,
    Work,
    decode_deployment,
    decode_to_engine,
    encode,
)
from openworks.ports.catalog import Deployment
from openworks.ports.text import TextChunk

log = logging.getLogger(__name__)


class Host:
    """Runs requests on an engine and sends back what comes of them."""

    def __init__(self, engine: Engine, socket: zmq.asyncio.Socket) -> None:
        self._engine = engine
        self._socket = socket
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Take messages until the process ends."""
        await self._send(Ready(context_tokens=self._engine.context_tokens))
        while True:
            message = decode_to_engine(await self._socket.recv())
            if isinstance(message, Cancel):
                if (task := self._tasks.get(message.id)) is not None:
                    task.cancel()
            else:
                task = asyncio.create_task(self._run(message))
                self._tasks[message.id] = task
                task.add_done_callback(lambda _, id_=message.id: self._tasks.pop(id_, None))  # type: ignore[misc] # mypy cannot infer a lambda's default

    async def _run(self, work: Work) -> None:
        try:
            await self._answer(work)
        except AppError as error:
            await self._send(Failed(id=work.id, error=ErrorInfo.of(error)))
        except Exception:
            # The boundary of one request: it fails alone.
            log.exception("engine.request_failed")
            fault = InternalError("The engine failed on this request; its log has the details.")
            await self._send(Failed(id=work.id, error=ErrorInfo.of(fault)))

    async def _answer(self, work: Work) -> None:
        match work:
            case Chat(id=id_, request=chat):
                await self._stream(id_, self._engine.chat(chat))
            case Complete(id=id_, request=completion):
                await self._stream(id_, self._engine.complete(completion))
            case Embed(id=id_, request=embedding):
                await self._send(Embedded(id=id_, result=await self._engine.embed(embedding)))
            case Rerank(id=id_, request=rerank):
                await self._send(Reranked(id=id_, result=await self._engine.rerank(rerank)))
            case _:
                assert_never(work)

    async def _stream(self, id_: int, chunks: AsyncGenerator[TextChunk, None]) -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                await self._send(Chunk(id=id_, chunk=chunk))
        await self._send(Done(id=id_))

    async def _send(self, message: ToServer) -> None:
        await self._socket.send(encode(message))


async def run(address: str, deployment: Deployment) -> None:
    """Load the weights, then serve until the process ends."""
    socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
    socket.connect(address)
    try:
        engine = await asyncio.to_thread(_factory(deployment.engine), deployment)
    except AppError as error:
        await socket.send(encode(LoadFailed(error=ErrorInfo.of(error))))
        socket.close(linger=1000)
        return
    await Host(engine, socket).serve()


def _factory(engine: str) -> EngineFactory:
    module, _, function = ENGINE_FACTORIES[engine].partition(":")
    return cast("EngineFactory", getattr(importlib.import_module(module), function))


def _exit_with_owner() -> None:
    """Block until standard input ends, then leave without asking the engine."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Read the command line and the deployment, and serve."""
    # Ctrl-C in a terminal and a service manager's stop reach all of us at once: the owner lets
    # running requests end first, and decides when we do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deployment = decode_deployment(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_owner, daemon=True).start()
    asyncio.run(run(sys.argv[1], deployment))


if __name__ == "__main__":
    main()
