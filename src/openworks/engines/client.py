"""The server's side of one engine process: spawn it, send work, tell its end to who waits."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TypeVar

import zmq
import zmq.asyncio

from openworks.core.errors import AppError, EngineCrashedError, InternalError
from openworks.engines.messages import (
    Cancel,
    Chunk,
    Done,
    Failed,
    Forget,
    LoadFailed,
    Ready,
    Reply,
    Report,
    ToEngine,
    Work,
    Working,
    decode_to_server,
    encode,
    encode_deployment,
    from_engine,
    own_socket,
    to_engine,
)
from openworks.ports.catalog import Deployment
from openworks.ports.engines import EngineReport
from openworks.ports.text import TextChunk

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_LOG_LINES_KEPT = 20
_EXIT_GRACE_S = 5.0


class _Sockets:
    """One socket for each direction; the server binds both."""

    def __init__(self, address: str) -> None:
        self.address = address
        context = zmq.asyncio.Context.instance()
        self.to_engine = context.socket(zmq.PUSH)
        self.from_engine = context.socket(zmq.PULL)
        self.to_engine.bind(to_engine(address))
        self.from_engine.bind(from_engine(address))

    def close(self) -> None:
        """Close both; what is under way is dropped."""
        self.to_engine.close(linger=0)
        self.from_engine.close(linger=0)


class EngineProcess:
    """One child process with a model. Make it with `spawn`; use it once `ready` is done.

    Replies wait in a queue for each request. It needs no bound of its own: a request has at most
    one chunk for every token of the model's context.
    """

    def __init__(
        self,
        deployment: Deployment,
        process: asyncio.subprocess.Process,
        sockets: _Sockets,
    ) -> None:
        self.deployment = deployment
        self.heard_s = time.monotonic()
        """When the child last said anything, on the monotonic clock."""
        self.report: EngineReport | None = None
        """What the child last said of itself."""
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._process = process
        self._sockets = sockets
        self._replies: dict[int, asyncio.Queue[Reply | EngineCrashedError]] = {}
        self._cancelled: set[int] = set()
        """Requests that were cancelled and not yet acknowledged by their last message."""
        self._numbers = itertools.count(1)
        self._last_lines: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self._log_reader = asyncio.create_task(self._read_log())
        self._receiver = asyncio.create_task(self._receive())
        self.exited = asyncio.create_task(self._watch())
        """Done when the process has ended and every request has been told."""

    @classmethod
    async def spawn(cls, deployment: Deployment, runtime_dir: Path) -> EngineProcess:
        """Start a process for `deployment`; its socket lies in `runtime_dir`."""
        address = f"ipc://{runtime_dir / f'engine-{next(_SOCKET_NUMBERS)}'}"
        sockets = _Sockets(address)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "openworks.engines.host",
                address,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except BaseException:  # also when cancelled: asyncio ends the process, we the socket
            sockets.close()
            raise
        assert process.stdin is not None
        process.stdin.write(encode_deployment(deployment))
        return cls(deployment, process, sockets)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the child has not ended."""
        return self._process.returncode is None

    @property
    def is_working(self) -> bool:
        """Whether a request is not over."""
        return bool(self._replies)

    @property
    def is_leaving(self) -> bool:
        """Whether a cancelled request has not been acknowledged."""
        return bool(self._cancelled)

    @property
    def silent_s(self) -> float:
        """Seconds since the child last said anything, or since it was last given work."""
        return time.monotonic() - self.heard_s

    async def stream(self, make: Callable[[int], Work]) -> AsyncGenerator[TextChunk, None]:
        """Send work that answers in chunks; closing the iterator cancels it in the engine."""
        async with aclosing(self._exchange(make)) as replies:
            async for reply in replies:
                match reply:
                    case Chunk(chunk=chunk):
                        yield chunk
                    case Done():
                        return
                    case _:
                        raise InternalError(f"An engine answered a stream with {reply!r}.")

    async def ask(self, make: Callable[[int], Work], expect: type[_T]) -> _T:
        """Send work that has one answer, of the type `expect`."""
        async with aclosing(self._exchange(make)) as replies:
            async for reply in replies:
                if isinstance(reply, expect):
                    return reply
                raise InternalError(f"An engine answered with {reply!r}.")
        raise InternalError("An engine gave no answer.")

    async def forget(self, generation: str) -> None:
        """Tell the child that an adapter was deleted."""
        await self._send(Forget(generation=generation))

    async def stop(self) -> None:
        """End the process; what is in flight gets `EngineCrashedError`."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()  # it holds nothing that has to be saved
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.exited), _EXIT_GRACE_S)

    async def _exchange(self, make: Callable[[int], Work]) -> AsyncGenerator[Reply, None]:
        number = next(self._numbers)
        queue: asyncio.Queue[Reply | EngineCrashedError] = asyncio.Queue()
        if self.exited.done():
            raise self._crash()
        if not self._replies:
            self.heard_s = time.monotonic()  # an idle engine owes us nothing
        self._replies[number] = queue
        over = False
        try:
            await self._send(make(number))
            while True:
                reply = await queue.get()
                over = isinstance(reply, Done | Failed | EngineCrashedError)
                if isinstance(reply, EngineCrashedError):
                    raise reply
                if isinstance(reply, Failed):
                    raise reply.error.unpack()
                yield reply
        finally:
            del self._replies[number]
            if not over and not self.exited.done():
                self._cancelled.add(number)
                await self._send(Cancel(id=number))

    async def _send(self, message: ToEngine) -> None:
        with suppress(zmq.ZMQError):  # closed: the process is gone, and `_watch` tells who waits
            await self._sockets.to_engine.send(encode(message))

    async def _receive(self) -> None:
        while True:
            message = decode_to_server(await self._sockets.from_engine.recv())
            self.heard_s = time.monotonic()
            match message:
                case Ready():
                    if not self.ready.done():
                        self.ready.set_result(message)
                case LoadFailed(error=error):
                    self._fail_loading(error.unpack())
                case Working():
                    pass
                case Report(report=report):
                    self.report = report
                case _:
                    if not isinstance(message, Chunk):
                        self._cancelled.discard(message.id)
                    if (queue := self._replies.get(message.id)) is not None:
                        queue.put_nowait(message)

    async def _read_log(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip()
            self._last_lines.append(text)
            log.debug("engine.log", extra={"deployment": self.deployment.id, "line": text})

    async def _watch(self) -> None:
        await self._process.wait()
        await self._log_reader
        # A last word, such as why loading failed, may still be under way in the socket.
        await asyncio.sleep(0.05)
        self._receiver.cancel()
        self._fail_loading(
            EngineCrashedError(
                f"The engine of {self.deployment.id!r} ended with exit status "
                f"{self._process.returncode} while loading. Its last words: "
                f"{' | '.join(list(self._last_lines)[-3:]) or 'none'}."
            )
        )
        for queue in self._replies.values():
            queue.put_nowait(self._crash())
        self._sockets.close()
        await asyncio.to_thread(own_socket(self._sockets.address).unlink, missing_ok=True)

    def _fail_loading(self, error: AppError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # retrieved here, so that nobody is warned when nobody waits

    def _crash(self) -> EngineCrashedError:
        return EngineCrashedError(
            f"The engine of model {self.deployment.id!r} stopped while it worked on this request; "
            "it is being restarted.",
            retry_after_s=1.0,
        )


_SOCKET_NUMBERS = itertools.count(1)
