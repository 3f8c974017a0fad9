"""Which models are loaded: on first use, kept warm, the least recently used out for another."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar
from weakref import WeakValueDictionary

from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import EngineOverloadedError, ModelUnavailableError
from openworks.core.ids import AccountId
from openworks.engines.base import Origin
from openworks.engines.client import EngineProcess
from openworks.engines.idle import IdleTime, Places
from openworks.engines.messages import (
    Chat,
    Complete,
    Counted,
    CountTokens,
    Embed,
    Embedded,
    Rerank,
    Reranked,
    Work,
)
from openworks.engines.supervisor import RestartConfig, Supervisor
from openworks.engines.vectors import shortened
from openworks.ports.calls import Usage
from openworks.ports.catalog import Deployment, EngineName
from openworks.ports.engines import EngineReport, Residency
from openworks.ports.text import (
    ChatModel,
    ChatRequest,
    CompletionModel,
    CompletionRequest,
    Embedder,
    EmbeddingRequest,
    EmbeddingResult,
    Reranker,
    RerankRequest,
    RerankResult,
    TextChunk,
    TokenCounter,
)

log = logging.getLogger(__name__)

R = TypeVar("R", ChatRequest, CompletionRequest)
_T = TypeVar("_T")

_GIB = 1 << 30
_ONE_ADAPTER: frozenset[EngineName] = frozenset({"llamacpp"})
"""Engines that load their adapter with the weights, and so need a process for each."""
_WARM_S = 600.0
"""How long a model that somebody asked stays loaded, whatever background work needs the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginesConfig:
    """The engine processes of this machine."""

    memory_budget_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Memory that all loaded models may take together; None for 80 % of the machine's."""
    max_queue: Annotated[int, Field(ge=0)] = 64
    """Requests that may wait for a slot of one model; more get a 429."""
    max_background: Annotated[int, Field(ge=1)] = 8
    """Answers that one model makes for batches at once, in all its slots but one. With more of them
    batches are done sooner, and a request waits longer for the step that is under way."""
    quiet_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    """Seconds without a request to any model after which batches go on; one that comes stops
    them."""
    restart: RestartConfig = RestartConfig()
    """Restarts after a crash."""


@dataclass(frozen=True, slots=True)
class _Key:
    """What has a process of its own."""

    model: str
    engine: EngineName
    generation: str | None
    """Of the adapter with which alone it runs; None for engines that take one for each request."""


class EnginePool:
    """Every engine process. Implements `ports.engines.Engines`."""

    def __init__(self, config: EnginesConfig, *, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._runtime = tempfile.TemporaryDirectory(prefix="openworks-")
        self._budget_bytes = (
            int(config.memory_budget_gib * _GIB)
            if config.memory_budget_gib is not None
            else physical_memory_bytes() * 8 // 10
        )
        self._supervisors: OrderedDict[_Key, Supervisor] = OrderedDict()  # least recent first
        self._leases: dict[_Key, int] = {}
        self._asked_at_s: dict[_Key, float] = {}
        self._idle = IdleTime(quiet_s=config.quiet_s, clock=clock)
        self._idle_places: WeakValueDictionary[_Key, Places] = WeakValueDictionary()
        self._idle_leases: Counter[_Key] = Counter()
        self._forgetting: set[asyncio.Task[None]] = set()
        self._room = asyncio.Lock()

    def chat(
        self, deployment: Deployment, account: AccountId, *, is_background: bool = False
    ) -> ChatModel:
        return (_InIdleTime if is_background else _Streamed)(self, deployment, account, Chat)

    def token_counter(self, deployment: Deployment) -> TokenCounter:
        return _TokenCounter(self, deployment)

    def completions(
        self, deployment: Deployment, account: AccountId, *, is_background: bool = False
    ) -> CompletionModel:
        return (_InIdleTime if is_background else _Streamed)(self, deployment, account, Complete)

    def embedder(self, deployment: Deployment, *, is_background: bool = False) -> Embedder:
        return (_IdleEmbedder if is_background else _Embedder)(self, deployment)

    def reranker(self, deployment: Deployment) -> Reranker:
        return _Reranker(self, deployment)

    def residency(self) -> Sequence[Residency]:
        return [
            Residency(
                deployment=supervisor.deployment.id,
                engine=supervisor.deployment.engine,
                state=supervisor.state,
                pinned=supervisor.deployment.pinned,
                pid=supervisor.current.pid if supervisor.current else None,
                memory_bytes=memory_of(supervisor),
                in_flight=self._leases.get(key, 0) + self._idle_leases[key],
                restarts=supervisor.restarts,
                load_s=supervisor.load_s,
                report=_report_of(supervisor),
            )
            for key, supervisor in reversed(self._supervisors.items())
        ]

    def forget(self, generation: str) -> None:
        task = asyncio.create_task(self._forget(generation))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def settled(self) -> None:
        """Return once what was to be forgotten is gone."""
        await asyncio.gather(*self._forgetting)

    async def preload(self, deployment: Deployment) -> None:
        """Load a model before its first request."""
        await (await self._supervisor(deployment)).process()

    async def close(self) -> None:
        """End every process; what is in flight is told."""
        for task in self._forgetting:
            task.cancel()
        await asyncio.gather(*(supervisor.stop() for supervisor in self._supervisors.values()))
        self._supervisors.clear()
        self._runtime.cleanup()

    @asynccontextmanager
    async def lease(
        self, deployment: Deployment, *, is_brief: bool = False
    ) -> AsyncIterator[EngineProcess]:
        """Hold a ready process of `deployment`; while held, it is not evicted.

        Args:
            deployment: Whose process.
            is_brief: It is held for a moment, and background work need not stop for that.

        Raises:
            EngineOverloadedError: Too many requests hold it already.
            ModelUnavailableError: There is no room, or it cannot be loaded.
        """
        key = _key(deployment)
        held = self._leases.get(key, 0)
        if held >= deployment.parallel + self._config.max_queue:
            raise EngineOverloadedError(
                f"Model {deployment.id!r} has {held} requests waiting or running, which is its "
                "limit.",
                retry_after_s=1.0,
            )
        self._leases[key] = held + 1
        try:
            async with nullcontext() if is_brief else self._idle.suspended():
                supervisor = await self._supervisor(deployment)
                yield await supervisor.process()
        finally:
            self._asked_at_s[key] = self._clock.monotonic_s()
            self._leases[key] -= 1
            if not self._leases[key]:
                del self._leases[key]

    async def in_idle_time(
        self,
        deployment: Deployment,
        work: Callable[[EngineProcess], Coroutine[Any, Any, _T]],
        *,
        places: int = 1,
    ) -> _T:
        """Let a process of `deployment` work while nobody asks any model anything.

        Args:
            deployment: Whose process.
            work: Is stopped when a lease is taken, and begun anew afterwards.
            places: How many of the model's slots it fills; it never waits in the engine itself,
                where it would stand before those who come later.

        Raises:
            EngineOverloadedError: There is no memory for the model that nobody else wants.
            ModelUnavailableError: It cannot be loaded.
        """
        key = _key(deployment)

        async def begun() -> _T:
            self._idle_leases[key] += 1
            try:
                supervisor = await self._supervisor(deployment, is_background=True)
                return await work(await supervisor.process())
            finally:
                self._idle_leases[key] -= 1

        # One slot stays free, so that who comes need not wait until another is given up.
        most = min(self._config.max_background, max(1, deployment.parallel - 1))
        room = self._idle_places.setdefault(key, Places(most))
        async with room.taken(places):
            return await self._idle.run(begun)

    async def _supervisor(
        self, deployment: Deployment, *, is_background: bool = False
    ) -> Supervisor:
        """Return the supervisor, now the most recently used; make room for a new one."""
        key = _key(deployment)
        if key not in self._supervisors:
            async with self._room:
                if key not in self._supervisors:
                    await self._make_room(deployment, is_background=is_background)
                    self._supervisors[key] = Supervisor(
                        deployment if key.generation else replace(deployment, adapter=None),
                        runtime_dir=Path(self._runtime.name),
                        clock=self._clock,
                        config=self._config.restart,
                    )
        self._supervisors.move_to_end(key)
        return self._supervisors[key]

    async def _forget(self, generation: str) -> None:
        for key, supervisor in list(self._supervisors.items()):
            if self._supervisors.get(key) is not supervisor:
                continue  # it went while another was told
            if key.generation is None and supervisor.current is not None:
                await supervisor.current.forget(generation)
            elif key.generation == generation and not self._leases.get(key):
                # One that still answers is idle afterwards, and leaves as the least recently used.
                self._asked_at_s.pop(key, None)
                await self._supervisors.pop(key).stop()

    async def _make_room(self, deployment: Deployment, *, is_background: bool) -> None:
        """Evict idle models, least recently used first, until `deployment` fits."""
        if deployment.memory_bytes > self._budget_bytes:
            raise ModelUnavailableError(
                f"Model {deployment.id!r} needs {_gib(deployment.memory_bytes)}, more than the "
                f"budget of {_gib(self._budget_bytes)}; raise engines.memory_budget_gib, or lower "
                "the model's context_tokens or parallel.",
                code="model_too_large",
            )
        while self._used_bytes() + deployment.memory_bytes > self._budget_bytes:
            victim = self._least_recently_used(is_background=is_background)
            if victim is None and is_background:
                raise EngineOverloadedError(
                    f"No memory for model {deployment.id!r} that the models which were asked last "
                    "do not take.",
                    retry_after_s=5.0,
                )
            if victim is None:
                raise ModelUnavailableError(
                    f"No memory for model {deployment.id!r}: it needs "
                    f"{_gib(deployment.memory_bytes)}, {_gib(self._used_bytes())} of "
                    f"{_gib(self._budget_bytes)} are taken, and every loaded model is busy or "
                    "pinned.",
                    code="insufficient_memory",
                    retry_after_s=5.0,
                )
            log.info("engine.evicted", extra={"deployment": victim.model, "for": deployment.id})
            self._asked_at_s.pop(victim, None)
            await self._supervisors.pop(victim).stop()

    def _least_recently_used(self, *, is_background: bool) -> _Key | None:
        cold_s = self._clock.monotonic_s() - _WARM_S
        for key, supervisor in self._supervisors.items():
            if self._leases.get(key) or supervisor.deployment.pinned:
                continue
            # Who asks finds all background work stopped; that itself takes nothing from anybody.
            is_taken = self._idle_leases[key] or self._asked_at_s.get(key, cold_s) > cold_s
            if not (is_background and is_taken):
                return key
        return None

    def _used_bytes(self) -> int:
        return sum(memory_of(supervisor) for supervisor in self._supervisors.values())


@dataclass(frozen=True, slots=True)
class _Streamed(Generic[R]):
    """A chat or a completion model; they differ in the message that carries the request."""

    pool: EnginePool
    deployment: Deployment
    account: AccountId
    wrap: Callable[[int, R, Origin], Work]

    async def stream(self, request: R) -> AsyncGenerator[TextChunk, None]:
        origin = Origin(account=self.account, adapter=self.deployment.adapter)
        async with (
            self.pool.lease(self.deployment) as process,
            aclosing(process.stream(lambda id_: self.wrap(id_, request, origin))) as chunks,
        ):
            async for chunk in chunks:
                yield chunk


@dataclass(frozen=True, slots=True)
class _InIdleTime(Generic[R]):
    """The same for requests that nobody waits for: chunks come when all of them are there."""

    pool: EnginePool
    deployment: Deployment
    account: AccountId
    wrap: Callable[[int, R, Origin], Work]

    async def stream(self, request: R) -> AsyncGenerator[TextChunk, None]:
        origin = Origin(account=self.account, adapter=self.deployment.adapter, is_background=True)

        async def collect(process: EngineProcess) -> list[TextChunk]:
            async with aclosing(
                process.stream(lambda id_: self.wrap(id_, request, origin))
            ) as chunks:
                return [chunk async for chunk in chunks]

        for chunk in await self.pool.in_idle_time(self.deployment, collect, places=request.n):
            yield chunk


@dataclass(frozen=True, slots=True)
class _TokenCounter:
    pool: EnginePool
    deployment: Deployment

    async def count_tokens(self, request: ChatRequest) -> int:
        async with self.pool.lease(self.deployment, is_brief=True) as process:
            answer = await process.ask(lambda id_: CountTokens(id=id_, request=request), Counted)
        return answer.tokens


@dataclass(frozen=True, slots=True)
class _Embedder:
    pool: EnginePool
    deployment: Deployment

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        async with self.pool.lease(self.deployment) as process:
            answer = await process.ask(lambda id_: Embed(id=id_, request=request), Embedded)
        vectors = [shortened(vector, request.dimensions) for vector in answer.result.vectors]
        return replace(answer.result, vectors=vectors)


@dataclass(frozen=True, slots=True)
class _IdleEmbedder:
    """The same in idle time: one input after another, as an engine stops only between inputs."""

    pool: EnginePool
    deployment: Deployment

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        vectors: list[bytes] = []
        usage = Usage()
        for text in request.inputs:
            one = EmbeddingRequest(inputs=[text])

            async def ask(process: EngineProcess, one: EmbeddingRequest = one) -> EmbeddingResult:
                return (await process.ask(lambda id_: Embed(id=id_, request=one), Embedded)).result

            result = await self.pool.in_idle_time(self.deployment, ask)
            vectors += [shortened(vector, request.dimensions) for vector in result.vectors]
            usage += result.usage
        return EmbeddingResult(vectors=vectors, usage=usage)


@dataclass(frozen=True, slots=True)
class _Reranker:
    pool: EnginePool
    deployment: Deployment

    async def rerank(self, request: RerankRequest) -> RerankResult:
        async with self.pool.lease(self.deployment) as process:
            answer = await process.ask(lambda id_: Rerank(id=id_, request=request), Reranked)
        return answer.result


def _key(deployment: Deployment) -> _Key:
    adapter = deployment.adapter if deployment.engine in _ONE_ADAPTER else None
    return _Key(
        deployment.entry.id, deployment.engine, None if adapter is None else adapter.generation
    )


def _report_of(supervisor: Supervisor) -> EngineReport | None:
    """What a process last said; nothing once it has ended, for then nothing of it is so."""
    process = supervisor.current
    return process.report if process is not None and process.is_alive else None


def memory_of(supervisor: Supervisor) -> int:
    """The larger of what a model was expected to take and what its process holds now."""
    expected = supervisor.deployment.memory_bytes
    if supervisor.current is None:
        return expected
    return max(expected, resident_bytes(supervisor.current.pid))


def resident_bytes(pid: int) -> int:
    """The resident set of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def physical_memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.2f} GiB"
