"""The engine process: one model, one thread for each request, two sockets.

Started as `python -m openworks.engines.host ADDRESS` with the deployment as JSON on the first line
of standard input. When standard input ends, the server is gone and so is this process: it never
outlives its owner, however that one ended.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never, cast

import zmq

from openworks.core.errors import AppError, InternalError
from openworks.engines.base import ENGINE_FACTORIES, Engine, EngineFactory
from openworks.engines.messages import (
    Cancel,
    Chat,
    Chunk,
    Complete,
    Counted,
    CountTokens,
    Done,
    Embed,
    Embedded,
    ErrorInfo,
    Failed,
    Forget,
    LoadFailed,
    Ready,
    Report,
    Rerank,
    Reranked,
    ToServer,
    Work,
    Working,
    decode_deployment,
    decode_to_engine,
    encode,
    from_engine,
    own_socket,
    to_engine,
)
from openworks.ports.text import TextChunk

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.25
_MAX_THREADS = 1024
"""More than the server ever admits; a thread is made when one is needed."""


class Outbox:
    """The socket towards the server, for all threads."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._lock = threading.Lock()

    def send(self, message: ToServer) -> None:
        """Send one message; waits while the server is far behind."""
        frame = encode(message)
        with self._lock:
            self._socket.send(frame)


class RequestSink:
    """The chunks of one request. Implements `engines.base.Sink`."""

    def __init__(self, id_: int, outbox: Outbox) -> None:
        self.is_cancelled = False
        self._id = id_
        self._outbox = outbox

    def still_working(self) -> None:
        self._outbox.send(Working(id=self._id))

    def put(self, chunk: TextChunk) -> None:
        self._outbox.send(Chunk(id=self._id, chunk=chunk))


class Host:
    """Runs requests on an engine and sends back what comes of them."""

    def __init__(self, engine: Engine, inbox: zmq.Socket[bytes], outbox: Outbox) -> None:
        self._engine = engine
        self._inbox = inbox
        self._outbox = outbox
        self._sinks: dict[int, RequestSink] = {}
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="request")

    def serve(self) -> None:
        """Take messages until the process ends."""
        self._outbox.send(Ready(context_tokens=self._engine.context_tokens))
        if self._engine.report() is not None:
            threading.Thread(target=self._report, daemon=True, name="report").start()
        while True:
            message = decode_to_engine(self._inbox.recv())
            if isinstance(message, Cancel):
                if (sink := self._sinks.get(message.id)) is not None:
                    sink.is_cancelled = True
            elif isinstance(message, Forget):
                self._engine.forget(message.generation)
            else:
                sink = RequestSink(message.id, self._outbox)
                self._sinks[message.id] = sink
                self._threads.submit(self._run, message, sink)

    def _report(self) -> None:
        """Tell the server how the engine is, as long as that changes."""
        said = None
        while True:
            report = self._engine.report()
            if report is not None and report != said:
                said = report
                self._outbox.send(Report(report=report))
            time.sleep(_REPORT_EVERY_S)

    def _run(self, work: Work, sink: RequestSink) -> None:
        try:
            self._answer(work, sink)
        except AppError as error:
            self._outbox.send(Failed(id=work.id, error=ErrorInfo.of(error)))
        except Exception:
            # The boundary of one request: it fails alone.
            log.exception("engine.request_failed")
            fault = InternalError("The engine failed on this request; its log has the details.")
            self._outbox.send(Failed(id=work.id, error=ErrorInfo.of(fault)))
        finally:
            del self._sinks[work.id]

    def _answer(self, work: Work, sink: RequestSink) -> None:
        match work:
            case Chat(request=chat, origin=origin):
                self._engine.chat(chat, origin, sink)
                self._outbox.send(Done(id=work.id))
            case CountTokens(request=chat):
                self._outbox.send(Counted(id=work.id, tokens=self._engine.count_tokens(chat)))
            case Complete(request=completion, origin=origin):
                self._engine.complete(completion, origin, sink)
                self._outbox.send(Done(id=work.id))
            case Embed(request=embedding):
                self._outbox.send(Embedded(id=work.id, result=self._engine.embed(embedding, sink)))
            case Rerank(request=rerank):
                self._outbox.send(Reranked(id=work.id, result=self._engine.rerank(rerank, sink)))
            case _:
                assert_never(work)


def run(address: str) -> None:
    """Load the weights, then serve until the process ends."""
    deployment = decode_deployment(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_owner, daemon=True).start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inbox, outbox_socket = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    inbox.connect(to_engine(address))
    outbox_socket.connect(from_engine(address))
    outbox = Outbox(outbox_socket)
    try:
        engine = _factory(deployment.engine)(deployment, own_socket(address))
    except AppError as error:
        outbox.send(LoadFailed(error=ErrorInfo.of(error)))
        outbox_socket.close(linger=1000)
        return
    Host(engine, inbox, outbox).serve()


def _factory(engine: str) -> EngineFactory:
    module, _, function = ENGINE_FACTORIES[engine].partition(":")
    return cast("EngineFactory", getattr(importlib.import_module(module), function))


def _exit_with_owner() -> None:
    """Block until standard input ends, then leave without asking the engine."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Read the command line and serve."""
    # Ctrl-C in a terminal and a service manager's stop reach all of us at once: the owner lets
    # running requests end first, and decides when we do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run(sys.argv[1])


if __name__ == "__main__":
    main()
