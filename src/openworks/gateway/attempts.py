"""Asks one provider, as often as its policy allows, and keeps what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from random import Random
from typing import Final, Protocol, cast

from openworks.core.clock import Clock
from openworks.core.errors import ProviderError
from openworks.gateway.providers.base import Credential
from openworks.gateway.providers.prepare import prepare
from openworks.gateway.providers.streams import StreamReader, stream_reader
from openworks.gateway.resilience.backoff import (
    RetryBudget,
    RetryBudgets,
    delay_s,
    is_retryable,
    retry_after_s,
)
from openworks.gateway.resilience.breaker import REFUSED, Breaker, Breakers, Verdict, verdict
from openworks.gateway.resilience.choice import Scoreboard, sticky
from openworks.gateway.steps import Step
from openworks.ports.gateways import RetryPolicy
from openworks.ports.upstream import (
    Counted,
    CountingResponse,
    Headers,
    Origin,
    Timeouts,
    Transport,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)

MAX_WHOLE_BYTES: Final = 8 << 20
"""A larger answer is passed on as it comes."""

_MAX_HELD_BYTES: Final = 65_536
_MAX_MODEL_CHARS: Final = 128

_EVENTS: Final = (
    b"text/event-stream",
    b"application/vnd.amazon.eventstream",
    b"application/x-ndjson",
    b"application/stream+json",
)


class Reply:
    """What came of asking: a whole answer, one that still flows, or an error."""

    __slots__ = (
        "body", "chunks", "counting", "error", "headers", "held", "is_events", "on_end", "reader",
        "response", "status",
    )  # fmt: skip

    def __init__(
        self,
        status: int = 0,
        headers: Headers | None = None,
        *,
        body: bytes | None = None,
        chunks: AsyncGenerator[bytes, None] | None = None,
        is_events: bool = False,
        error: UpstreamError | None = None,
        on_end: Callable[[Verdict], None] | None = None,
    ) -> None:
        self.status = status
        self.headers: Headers = headers if headers is not None else []
        self.body = body
        self.chunks = chunks
        self.is_events = is_events
        self.error = error
        self.counting: CountingResponse | None = None
        self.response: UpstreamResponse | None = None
        """Where an answer that flows comes from."""
        self.reader: StreamReader | None = None
        """Follows a stream of events from its first byte."""
        self.held: list[bytes] = []
        """What of a stream was read to see that it begins well."""
        self.on_end = on_end
        """To be called once when an answer that flows has ended, however it ended."""

    @property
    def is_good(self) -> bool:
        """Whether it is an answer to pass on rather than a reason to ask elsewhere."""
        return self.error is None and self.status < 400

    @property
    def counted(self) -> Counted | None:
        """What this server itself counted, once the answer has ended; None for a provider's."""
        return None if self.counting is None else self.counting.counted

    async def discard(self) -> None:
        """Let go of an answer that nobody will read."""
        if self.chunks is not None:
            await self.chunks.aclose()
        if self.response is not None:
            self.response.abort()  # closing a generator that was never begun runs none of its code
        if self.on_end is not None:
            self.on_end("neutral")


class TokenSource(Protocol):
    """Completes credentials that need a token of the provider's first."""

    async def complete(self, credential: Credential) -> Credential:
        """Return a credential that can be sent.

        Raises:
            ProviderError: The provider gives no token for it.
        """
        ...


class Asker:
    """Asks providers on behalf of all exchanges; one for the process."""

    def __init__(
        self,
        *,
        transport: Transport,
        tokens: TokenSource,
        breakers: Breakers,
        budgets: RetryBudgets,
        scores: Scoreboard[tuple[str, str]],
        clock: Clock,
        rng: Random,
    ) -> None:
        self.breakers = breakers
        self._transport = transport
        self._tokens = tokens
        self._budgets = budgets
        self._scores = scores
        self._clock = clock
        self._rng = rng

    def is_open(self, step: Step, credentials: Sequence[Credential]) -> bool:
        """Whether a step's provider is known to be ill, with each of the credentials."""
        breakers = [self._breaker(step, credential) for credential in credentials or (None,)]
        return not any(breaker.allows() for breaker in breakers)

    async def ask(
        self,
        step: Step,
        credentials: Sequence[Credential],
        retry: RetryPolicy,
        timeouts: Timeouts,
        *,
        patient: Timeouts,
        transport: Transport | None = None,
        hedge_s: float | None = None,
        has_fallback: bool = False,
        on_attempt: Callable[[], None],
    ) -> Reply:
        """Ask until an answer is good, or asking again makes no sense.

        Args:
            step: Whom to ask, and what.
            credentials: Equals; a retry takes another. Empty: the caller's own headers do.
            retry: How often, and how long to wait.
            timeouts: Of each attempt.
            patient: Of the last attempt of the last step, when it is not the only one.
            transport: Instead of the network, for models of this server.
            hedge_s: Ask a second time when no byte came for so long.
            has_fallback: Whether there is another step to go to. The last attempt of the last step
                waits as long as it takes, and its stream is not held back until content comes.
            on_attempt: Called before every request that is sent.
        """
        budget = self._budget(step, credentials[0] if credentials else None)
        budget.earn()
        order = self._ordered(step, credentials)
        attempt = 0
        while True:
            attempt += 1
            is_last = attempt >= retry.max_attempts
            patience = timeouts
            if is_last and attempt > 1 and not has_fallback:
                patience = patient
            credential = order[(attempt - 1) % len(order)]
            reply = await self._attempt(step, credential, patience, transport, hedge_s, on_attempt)
            if reply.is_events and not (is_last and not has_fallback):
                reply = await _begun(reply)
            if reply.is_good or is_last:
                return reply
            pause_s = self._pause_s(reply, retry, attempt, budget)
            if pause_s is None:
                return reply
            await reply.discard()
            if pause_s > 0:
                await self._clock.sleep(pause_s)

    def _pause_s(
        self, reply: Reply, retry: RetryPolicy, attempt: int, budget: RetryBudget
    ) -> float | None:
        """How long to wait before the next attempt; None when there is none."""
        outcome = reply.error if reply.error is not None else reply.status
        if not is_retryable(outcome):
            return None
        after_s = retry_after_s(reply.headers, now_s=self._clock.now_s())
        pause_s = delay_s(retry, attempt, self._rng, retry_after_s=after_s)
        if pause_s is None or not budget.spend():
            return None
        return pause_s

    def _ordered(
        self, step: Step, credentials: Sequence[Credential]
    ) -> Sequence[Credential | None]:
        if len(credentials) < 2:
            return credentials or (None,)
        by_digest = {(step.provider.slug, each.digest): each for each in credentials}
        healthy = [
            key for key, each in by_digest.items() if self._breaker(step, each).allows()
        ] or list(by_digest)
        session = step.options.session_id
        if session is not None:
            first = sticky(healthy, session)
            order = [first, *(key for key in healthy if key != first)]
        else:
            order = self._scores.order(healthy, self._rng)
        return [by_digest[key] for key in order]

    def _budget(self, step: Step, credential: Credential | None) -> RetryBudget:
        return self._budgets.of((step.provider.slug, _digest(step, credential)))

    def _breaker(self, step: Step, credential: Credential | None) -> Breaker:
        model = step.peek.model[:_MAX_MODEL_CHARS]
        return self.breakers.of((step.provider.slug, _digest(step, credential), model))

    async def _attempt(
        self,
        step: Step,
        credential: Credential | None,
        timeouts: Timeouts,
        transport: Transport | None,
        hedge_s: float | None,
        on_attempt: Callable[[], None],
    ) -> Reply:
        is_local = transport is not None
        transport = transport or self._transport
        if credential is not None and credential.google is not None:
            try:
                credential = await self._tokens.complete(credential)
            except ProviderError as error:
                return Reply(error=_without_token(error))
        request = _local(step) if is_local else self._prepared(step, credential)
        trial = self._begin(step, credential)
        on_attempt()
        try:
            # This machine would only have to do the same work twice.
            if hedge_s is None or is_local:
                response = await transport.send(request, timeouts)
            else:
                response = await self._hedged(
                    transport,
                    request,
                    timeouts,
                    hedge_s,
                    self._budget(step, credential),
                    on_attempt,
                )
            trial.first_byte_s = self._clock.monotonic_s() - trial.started_s
            reply = await _read(response, wants_stream=step.peek.stream)
        except UpstreamError as error:
            trial.end(verdict(error))
            return Reply(error=error)
        except BaseException:
            trial.end("neutral")
            raise
        if is_local:
            reply.counting = cast("CountingResponse", response)
        if reply.chunks is not None:
            reply.on_end = trial.end
            reply.response = response
            if reply.is_events:
                reply.reader = stream_reader(step.provider, step.endpoint)
        else:
            trial.end(verdict(reply.status), self._said_after_s(reply))
        return reply

    def _begin(self, step: Step, credential: Credential | None) -> _Trial:
        breaker = self._breaker(step, credential)
        scored = (step.provider.slug, credential.digest) if credential is not None else None
        if scored is not None:
            self._scores.begin(scored)
        return _Trial(breaker, self._scores, scored, self._clock.monotonic_s())

    def _said_after_s(self, reply: Reply) -> float | None:
        if reply.status < 400:
            return None
        return retry_after_s(reply.headers, now_s=self._clock.now_s())

    def _prepared(self, step: Step, credential: Credential | None) -> UpstreamRequest:
        return prepare(
            step.provider,
            method=step.method,
            endpoint=step.endpoint,
            query=step.query,
            headers=step.headers,
            body=step.body,
            credential=credential,
            now=self._clock.now_s(),
        )

    async def _hedged(
        self,
        transport: Transport,
        request: UpstreamRequest,
        timeouts: Timeouts,
        hedge_s: float,
        budget: RetryBudget,
        on_attempt: Callable[[], None],
    ) -> UpstreamResponse:
        """Ask a second time when no head came within `hedge_s`; the first good head counts."""
        asked = [asyncio.ensure_future(transport.send(request, timeouts))]
        try:
            done, _ = await asyncio.wait(asked, timeout=hedge_s)
            if not done and budget.spend():
                on_attempt()
                asked.append(asyncio.ensure_future(transport.send(request, timeouts)))
            while True:
                done, pending = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                good = [each for each in done if not each.cancelled() and not each.exception()]
                if good or not pending:
                    winner = (good or list(done))[0]
                    asked.remove(winner)
                    return winner.result()
                asked = list(pending)
        finally:
            _abandon(asked)


async def _begun(reply: Reply) -> Reply:
    """Read a stream up to its first content: until then, another provider may still answer."""
    assert reply.chunks is not None
    assert reply.reader is not None
    size = 0
    try:
        while not reply.reader.has_content and size < _MAX_HELD_BYTES:
            chunk = await anext(reply.chunks, None)
            if chunk is None:
                break
            size += len(chunk)
            reply.held.append(chunk)
            reply.reader.feed(chunk)
    except UpstreamError as error:
        assert reply.on_end is not None
        reply.on_end(verdict(error))
        return Reply(error=error)
    except BaseException:
        await reply.discard()
        raise
    return reply


class _Trial:
    """One request at a provider, and what is learnt from it."""

    __slots__ = ("_breaker", "_scored", "_scores", "_ticket", "first_byte_s", "started_s")

    def __init__(
        self,
        breaker: Breaker,
        scores: Scoreboard[tuple[str, str]],
        scored: tuple[str, str] | None,
        started_s: float,
    ) -> None:
        self._breaker: Breaker | None = breaker
        self._ticket = breaker.admit()
        self._scores = scores
        self._scored = scored
        self.started_s = started_s
        self.first_byte_s: float | None = None

    def end(self, how: Verdict, after_s: float | None = None) -> None:
        """Say how it ended; a second call is ignored."""
        breaker, self._breaker = self._breaker, None
        if breaker is None:
            return
        if self._ticket != REFUSED:
            breaker.record(self._ticket, how, retry_after_s=after_s)
        if self._scored is not None:
            ok = None if how == "neutral" else how == "ok"
            self._scores.end(self._scored, ok=ok, first_byte_s=self.first_byte_s)


def _digest(step: Step, credential: Credential | None) -> bytes:
    """Name whose credential is used, the caller's or a stored one."""
    return step.brought_digest() if credential is None else credential.digest.encode()


_HERE: Final = Origin(scheme="http", host="localhost", port=0)


def _local(step: Step) -> UpstreamRequest:
    """A request to this server itself, which needs no address."""
    return UpstreamRequest(
        origin=_HERE,
        method=step.method,
        target=step.endpoint.encode(),
        headers=step.headers,
        body=step.body,
    )


def _abandon(asked: Sequence[asyncio.Future[UpstreamResponse]]) -> None:
    """End requests whose answers nobody wants any more.

    Nobody waits for their end: whoever did would have to tell it from a cancellation of their own.
    """
    for each in asked:
        each.add_done_callback(_let_go)
        each.cancel()


def _let_go(asked: asyncio.Future[UpstreamResponse]) -> None:
    if not asked.cancelled() and asked.exception() is None:
        asked.result().abort()


def _without_token(error: ProviderError) -> UpstreamError:
    """Say that a credential cannot be used: not again, but another step may answer."""
    if isinstance(error, UpstreamError):
        return error
    return UpstreamError(error.message, kind="protocol", unread=True, code=error.code)


async def _read(response: UpstreamResponse, *, wants_stream: bool) -> Reply:
    """Read an answer whole where that is sensible; else let it flow."""
    length: int | None = None
    is_events = False
    for name, value in response.headers:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"content-type":
            is_events = value.startswith(_EVENTS)
    status = response.status
    # Google streams an array of JSON unless it is asked for events.
    is_events = is_events or (wants_stream and length is None)
    if is_events and status < 400:
        return Reply(status, response.headers, chunks=response.chunks(), is_events=True)
    if length is not None and length <= MAX_WHOLE_BYTES:
        return Reply(status, response.headers, body=await response.read())
    if length is not None:
        return Reply(status, response.headers, chunks=response.chunks())
    return await _read_unknown_length(response)


async def _read_unknown_length(response: UpstreamResponse) -> Reply:
    chunks = response.chunks()
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_WHOLE_BYTES:
                return Reply(response.status, response.headers, chunks=_rejoined(parts, chunks))
    except BaseException:
        response.abort()
        raise
    return Reply(response.status, response.headers, body=b"".join(parts))


async def _rejoined(
    parts: list[bytes], chunks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        for part in parts:
            yield part
        parts.clear()
        async for chunk in chunks:
            yield chunk
