"""One gateway call, from its headers to its record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from math import ceil
from typing import Final

import msgspec

from openworks.core.errors import (
    AppError,
    AuthenticationError,
    ClientClosedRequestError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
)
from openworks.core.ids import RequestId
from openworks.gateway.attempts import Reply
from openworks.gateway.bill import Bill
from openworks.gateway.cache_use import CacheUse
from openworks.gateway.caching.plan import may_store, plan, stored_headers
from openworks.gateway.compat.base import StreamTranslator
from openworks.gateway.endings import as_app_error, ending_of, header_safe, type_of
from openworks.gateway.gate import passed, refused
from openworks.gateway.heads import Head
from openworks.gateway.messages import JSON_HEADER, GatewayAnswer, GatewayRequest
from openworks.gateway.options import Options, returned_headers
from openworks.gateway.parts import Parts
from openworks.gateway.plans import Plan, make_plan, rate_claim
from openworks.gateway.policy import Policy, RunningRoute
from openworks.gateway.providers.base import Credential
from openworks.gateway.providers.credentials import caller_credential
from openworks.gateway.providers.prices import estimate_tokens
from openworks.gateway.providers.registry import CUSTOM_PREFIX
from openworks.gateway.providers.usage import usage_of
from openworks.gateway.relay import Filter, Judge, StreamEnd, relay, replayed
from openworks.gateway.routing.walk import RateStep
from openworks.gateway.screen import Screened
from openworks.gateway.step_rules import check_nameless, may_cache, take_brought
from openworks.gateway.steps import Step
from openworks.ports.answers_cache import CachedAnswer
from openworks.ports.calls import (
    LOCAL_PROVIDER,
    CallBodies,
    CallRecord,
    Principal,
    Usage,
)
from openworks.ports.gateways import RetryPolicy
from openworks.ports.limits import Admission, Refusal
from openworks.ports.upstream import Headers, Timeouts, Transport
from openworks.wire.cloudflare.gateway_errors import gateway_error_body

_NO_USAGE: Final = Usage()
_NO_HEADERS: Final[Headers] = []
_EVENT_STREAM: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_MISS: Final = (b"cf-aig-cache-status", b"MISS")
_HIT: Final = (b"cf-aig-cache-status", b"HIT")


class Exchange:
    """One call: `begin`, then `run` if that gave no answer, or `abandon` if `run` never began."""

    __slots__ = (
        "_admission", "_attempts", "_bill", "_cache", "_created_at_s", "_deployment", "_done",
        "_first_s", "_head", "_is_anonymous", "_is_estimated", "_parts", "_plan", "_policy",
        "_principal", "_request", "_route_admissions", "_screened", "_started_s", "_step",
        "_step_index", "_used", "_waiting", "id",
    )  # fmt: skip

    def __init__(
        self,
        call_id: RequestId,
        parts: Parts,
        request: GatewayRequest,
        head: Head,
        principal: Principal,
        policy: Policy,
        *,
        is_anonymous: bool = False,
    ) -> None:
        self.id = call_id
        self._parts = parts
        self._request = request
        self._head = head
        self._principal = principal
        self._policy = policy
        self._bill = Bill(parts.prices, policy, principal)
        self._is_anonymous = is_anonymous
        self._created_at_s = parts.clock.now_s()
        self._started_s = parts.clock.monotonic_s()
        self._first_s: float | None = None
        self._plan: Plan | None = None
        self._step: Step | None = None
        self._step_index = 0
        self._attempts = 0
        self._cache: CacheUse | None = None
        self._admission: Admission | None = None
        self._waiting: Awaitable[Admission | Refusal] | None = None
        self._route_admissions: list[Admission] = []
        self._screened: Screened | None = None
        self._is_estimated = False
        self._used: Usage | None = None
        self._deployment: str | None = None
        self._done = False

    def begin(self) -> GatewayAnswer | Exchange:
        """Do all that needs no waiting; return the answer, or this exchange, to be `run`."""
        try:
            self._plan = plan = make_plan(
                self._request,
                self._head.options,
                self._head.forward,
                self._policy,
                brought_credential=self._head.brought,
                clock=self._parts.clock,
                rng=self._parts.rng,
                passes=self._passes_rate,
            )
            step = self._step = plan.first
            if step is None:
                return self
            self._check_model(step)
            self._admit(step)
            return (self._look_in_cache(step) if self._is_ready() else None) or self
        except AppError as error:
            return self._refuse(error)

    async def run(self) -> GatewayAnswer:
        """Return the answer. Cancelling it ends the call at the provider."""
        try:
            answer = None if self._is_ready() else await self._catch_up()
            return await self._answered() if answer is None else answer
        except AppError as error:
            return self._refuse(error)
        except BaseException as error:
            self._finish(error, status=ClientClosedRequestError.status, usage=self._used)
            raise

    def _is_ready(self) -> bool:
        """Whether nothing more must be awaited before a provider is asked."""
        return self._step is not None and self._waiting is None and self._policy.screen is None

    async def _catch_up(self) -> GatewayAnswer | None:
        """Do what `begin` had to leave; return the answer if the cache has it."""
        step = self._step
        if step is None:
            assert self._plan is not None
            step = self._step = await self._plan.following()
            if step is None:
                raise ProviderError("The route ended without asking a model.")
            self._check_model(step)
            self._admit(step)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._admission = passed(await waiting)
        await self._screen_prompt(step)
        return self._look_in_cache(step)

    def abandon(self) -> None:
        """Record a call whose client left before `run` began; does nothing after that."""
        waiting, self._waiting = self._waiting, None
        if isinstance(waiting, Coroutine):
            waiting.close()
        elif isinstance(waiting, asyncio.Future):
            waiting.cancel()
        self._finish(asyncio.CancelledError(), status=ClientClosedRequestError.status)

    # Before a provider is asked.

    def _check_model(self, step: Step) -> None:
        allowed = self._principal.allowed_models
        if allowed is None or step.provider.slug == LOCAL_PROVIDER:  # which checks for itself
            return
        model, slug = step.peek.model, step.provider.slug
        if not model:
            check_nameless(step)
        elif not allowed & {model, f"{slug}/{model}", f"{slug}/*"}:
            raise PermissionDeniedError(
                f"This key may not use the model {slug}/{model:.200}.",
                code="model_not_allowed",
                param="model",
            )

    def _admit(self, step: Step) -> None:
        """Pass the limits, or begin to wait for them."""
        if self._policy.has_limits:
            decided = self._parts.limiter.admit(self._bill.claim(step))
            if isinstance(decided, Awaitable):
                self._waiting = decided
            else:
                self._admission = passed(decided)

    def _look_in_cache(self, step: Step) -> GatewayAnswer | None:
        options = step.options
        if not may_cache(step):
            return None
        wanted = plan(
            self._policy.gateway,
            ttl_s=options.cache_ttl_s,
            skip=options.skip_cache,
            custom_key=options.cache_key,
        )
        if wanted is None:
            return None
        self._cache = CacheUse(
            wanted,
            self._parts,
            self._policy,
            self._principal,
            self._request,
            self._head.told,
            step,
            is_anonymous=self._is_anonymous,
        )
        found = self._cache.look()
        return None if found is None else self._hit(found)

    def _hit(self, found: CachedAnswer) -> GatewayAnswer:
        self._first_s = self._parts.clock.monotonic_s()
        headers = [*found.headers, _HIT, *self._own_headers()]
        if self._step is not None and self._step.is_routed:
            headers.append((b"cf-aig-provider", found.provider.encode()))
            headers.append((b"cf-aig-model", header_safe(found.model)))
        similarity = None if self._cache is None else self._cache.similarity_of(found)
        if similarity is not None:
            headers.append((b"cf-aig-cache-similarity", b"%.4f" % similarity))
        self._finish(None, status=found.status, hit=found, headers=headers)
        if not found.stream:
            return GatewayAnswer(status=found.status, headers=headers, body=found.body)
        return GatewayAnswer(status=found.status, headers=headers, chunks=replayed(found.body))

    # Asking.

    async def _answered(self) -> GatewayAnswer:
        step = self._step
        assert step is not None
        if self._cache is not None:
            found = await self._cache.wait()
            if found is not None:
                return self._hit(found)
        reply = await self._ask(step)
        if reply.error is not None:
            raise as_app_error(reply.error)
        screen = self._policy.screen
        if screen is not None and reply.status < 400:
            is_read = reply.chunks is None or reply.reader is not None
            try:
                screen.check_readable(reply.headers, is_read=is_read)
            except ProviderError:
                await reply.discard()
                raise
        if reply.chunks is not None:
            return self._flowing(reply)
        return await self._whole(reply)

    async def _ask(self, step: Step) -> Reply:
        """Ask one step after the other until one answers well, or the last has answered."""
        plan, asker = self._plan, self._parts.asker
        assert plan is not None
        while True:
            credentials: Sequence[Credential] | None = self._credentials(step)
            has_fallback = plan.has_fallback()
            if self._policy.credential_limits and credentials:
                credentials = await self._within_limits(credentials, must=not has_fallback)
            if has_fallback and (credentials is None or asker.is_open(step, credentials)):
                following = await plan.following()
                if following is not None:
                    step = await self._turn_to(following)
                    continue
            if credentials is None:
                raise RateLimitError("The stored credentials have reached their own limits.")
            reply = await asker.ask(
                step,
                credentials,
                self._retry(step),
                self._timeouts(step),
                patient=self._parts.timeouts,
                transport=self._local_transport(step, credentials),
                hedge_s=self._policy.hedge_s,
                has_fallback=has_fallback,
                on_attempt=self._count_attempt,
            )
            if reply.is_good or not has_fallback:
                return reply
            try:
                following = await plan.following()
            except BaseException:
                await reply.discard()
                raise
            if following is None:
                return reply
            await reply.discard()
            step = await self._turn_to(following)

    async def _within_limits(
        self, credentials: Sequence[Credential], *, must: bool
    ) -> Sequence[Credential] | None:
        """Return the credentials whose own limits let this call pass; None when there is none.

        Raises:
            RateLimitError: There is none, and there must be.
        """
        for credential in credentials:
            limited = self._policy.credential_limits.get(credential.digest)
            if limited is None:
                return (credential,)
            claim = msgspec.structs.replace(
                self._bill.bare_claim(self._step, self._head.options.metadata), gateway=limited
            )
            decided = self._parts.limiter.admit(claim)
            if isinstance(decided, Awaitable):
                decided = await decided
            if not isinstance(decided, Refusal):
                self._route_admissions.append(decided)
                return (credential,)
            refusal = decided
        if must:
            raise refused(refusal)
        return None

    async def _passes_rate(self, at: RateStep, running: RunningRoute) -> bool:
        decided = self._parts.limiter.admit(
            rate_claim(at, running, self._bill.bare_claim(self._step, self._head.options.metadata))
        )
        if isinstance(decided, Awaitable):
            decided = await decided
        if isinstance(decided, Refusal):
            return False
        self._route_admissions.append(decided)
        return True

    async def _screen_prompt(self, step: Step) -> None:
        screen = self._policy.screen
        if screen is not None:
            self._screened = Screened()
            await screen.prompt(step, self._screened)

    async def _turn_to(self, step: Step) -> Step:
        self._check_model(step)
        await self._screen_prompt(step)
        self._step = step
        self._step_index += 1
        return step

    def _count_attempt(self) -> None:
        self._attempts += 1

    def _credentials(self, step: Step) -> Sequence[Credential]:
        if self._is_anonymous:
            provider = step.provider
            if provider.slug.startswith(CUSTOM_PREFIX) and provider.default_headers:
                # The account's own headers, which may well be credentials.
                raise AuthenticationError(
                    f"The provider {provider.slug} needs a key: send it as cf-aig-authorization.",
                    code="missing_api_key",
                )
            return ()
        alias, byok_only = step.options.byok_alias, self._policy.gateway.byok_only
        is_local = step.provider.slug == LOCAL_PROVIDER  # a caller's token names no account there
        if step.brought_credential and alias is None and not byok_only and not is_local:
            brought = caller_credential(step.provider, step.headers)
            return () if brought is None else (brought,)
        found = self._policy.credentials(step.provider, alias)
        if byok_only and not found:
            take_brought(step)
        return found

    def _local_transport(self, step: Step, credentials: Sequence[Credential]) -> Transport | None:
        if step.provider.slug != LOCAL_PROVIDER or credentials:
            return None
        if self._is_anonymous:
            raise AuthenticationError(
                "This server's own models need a key: send it as cf-aig-authorization.",
                code="missing_api_key",
            )
        # On an open server the path names the account, whose adapters these are.
        account = self._policy.gateway.account_id
        return self._parts.local.transport(replace(self._principal, account_id=account))

    def _retry(self, step: Step) -> RetryPolicy:
        options, base = step.options, self._policy.gateway.retry
        if options.max_attempts is None and options.retry_delay_ms is None:
            return base if options.backoff is None else replace(base, backoff=options.backoff)
        return RetryPolicy(
            max_attempts=max(
                1, base.max_attempts if options.max_attempts is None else (options.max_attempts)
            ),
            delay_ms=base.delay_ms if options.retry_delay_ms is None else options.retry_delay_ms,
            backoff=options.backoff or base.backoff,
        )

    def _timeouts(self, step: Step) -> Timeouts:
        most_ms = step.options.timeout_ms or step.default_timeout_ms
        if not most_ms:
            return self._parts.timeouts
        return replace(self._parts.timeouts, first_byte_s=most_ms / 1000)

    # Answering.

    async def _whole(self, reply: Reply) -> GatewayAnswer:
        step, body, status = self._step, reply.body, reply.status
        assert step is not None
        assert body is not None
        self._first_s = self._parts.clock.monotonic_s()
        usage: Usage | None = None
        counted = reply.counted
        if counted is not None:
            usage, self._deployment = counted.usage, counted.deployment
        elif status < 400:
            usage = usage_of(step.provider, step.endpoint, body, reply.headers)
            if usage is None and step.counts_tokens:
                usage = self._estimated(step, estimate_tokens(len(body)))
        self._used = usage  # counts also when the answer must not be shown
        headers = self._returned(reply)
        if step.translator is not None:
            headers = [*(h for h in headers if h[0] != b"content-type"), JSON_HEADER]
            answer = step.translator.answer(body) if status < 400 else None
            body = step.translator.error(status, body) if answer is None else answer
        screened = body
        if status < 400 and self._policy.screen is not None:
            assert self._screened is not None
            screened = await self._policy.screen.answer(body, self._screened)
        if self._cache is not None and screened is body:
            stored = stored_headers(headers)
            if may_store(status, stored, body, stream=False):
                self._store(status, stored, body, usage, stream=False)
        headers.extend(self._result_headers())
        logged = screened
        if status >= 400 and self._policy.screen is not None:
            logged = await self._policy.screen.redacted(body)
        self._finish(None, status=status, usage=usage, response=logged, headers=headers)
        return GatewayAnswer(status=status, headers=headers, body=screened)

    def _flowing(self, reply: Reply) -> GatewayAnswer:
        step, reader = self._step, reply.reader
        assert step is not None
        headers = self._returned(reply)
        filters: list[Filter] = []
        error_event: Callable[[AppError], bytes] | None = None
        judge: Judge | None = None
        translating: StreamTranslator | None = None
        if reader is not None:

            def error_event(error: AppError) -> bytes:
                return reader.error_event(error.message, error.code or "upstream_failed")

            if step.translator is not None:
                translating = translator = step.translator.stream(step.asked or {})
                filters.append(translating)
                headers = [*(h for h in headers if h[0] != b"content-type"), _EVENT_STREAM]

                def error_event(error: AppError) -> bytes:
                    return translator.broken(error.message, error.code or "upstream_failed")

            screen, screened = self._policy.screen, self._screened
            if screen is not None and screened is not None:
                filters.extend(screen.filters(screened))
                if screen.judges_streams:
                    judge = Judge(
                        lambda body: screen.judge_stream(body, screened),
                        holds=screen.holds_streams,
                    )
        return GatewayAnswer(
            status=reply.status,
            headers=[*headers, *self._result_headers()],
            chunks=relay(
                reply,
                filters,
                keep=self._keeps_bodies() or self._cache is not None,
                clock=self._parts.clock,
                error_event=error_event,
                judge=judge,
                on_end=lambda end: self._stream_ended(reply, headers, end, translating),
            ),
        )

    def _stream_ended(
        self,
        reply: Reply,
        headers: Headers,
        end: StreamEnd,
        translating: StreamTranslator | None,
    ) -> None:
        """Store and record a stream once it is over, however it ended."""
        error = end.error
        if error is None and translating is not None:
            error = translating.failure  # its error event is among what was sent
        step, reader = self._step, reply.reader
        assert step is not None
        self._first_s = end.first_s
        counted = reply.counted
        usage: Usage | None = None
        if counted is not None:
            usage, self._deployment = counted.usage, counted.deployment
        elif reader is not None and end.first_s is not None:
            usage, self._is_estimated = reader.final_usage(step.peek.prompt_bytes)
        if error is None and self._cache is not None and not end.is_cut:
            stored = stored_headers(headers)
            if may_store(reply.status, stored, end.body, stream=reply.is_events):
                self._store(reply.status, stored, end.body, usage, stream=True)
        self._finish(
            error,
            status=reply.status,
            usage=usage,
            response=end.body,
            headers=headers,
            is_partial=end.is_cut or error is not None,
        )

    # Afterwards.

    def _estimated(self, step: Step, completion_tokens: int) -> Usage:
        self._is_estimated = True
        return Usage(
            prompt_tokens=estimate_tokens(step.peek.prompt_bytes),
            completion_tokens=completion_tokens,
        )

    def _store(
        self, status: int, headers: Headers, body: bytes, usage: Usage | None, *, stream: bool
    ) -> None:
        assert self._cache is not None
        assert self._step is not None
        answer = CachedAnswer(
            status=status,
            headers=headers,
            body=body,
            stream=stream,
            usage=usage or _NO_USAGE,
            cost_usd=self._bill.cost_usd(self._step, usage or _NO_USAGE),
            provider=self._step.provider.slug,
            model=self._step.peek.model,
            stored_at_s=self._parts.clock.now_s(),
        )
        self._cache.store(answer)

    def _told(self) -> Options:
        """Return what the caller says of the call: by the step's config, else by headers."""
        return self._head.options if self._step is None else self._step.options

    def _keeps_bodies(self) -> bool:
        kept = self._told().collect_payload
        return self._policy.gateway.logs.payloads if kept is None else kept

    def _logged_request(self) -> bytes:
        """Return the request as it may be kept."""
        if self._screened is not None:
            return self._screened.logged
        if self._policy.screen is not None:
            return b""  # nobody looked yet what must not be kept
        if self._request.provider:
            return self._request.body
        # The universal endpoint's own body holds the headers of its steps, and so their keys.
        return b"" if self._step is None else self._step.body

    def _returned(self, reply: Reply) -> Headers:
        # One header of a name: the caller is told of the limit that it meets first.
        return returned_headers(reply.headers, has_limits=self._admission is not None)

    def _own_headers(self) -> Headers:
        headers: Headers = [
            (b"cf-aig-log-id", self.id.encode()),
            (b"cf-aig-step", b"%d" % self._step_index),
        ]
        event_id = self._told().event_id
        if event_id is not None:
            headers.append((b"cf-aig-event-id", header_safe(event_id)))
        if self._admission is not None:
            headers += self._admission.remaining
        return headers

    def _result_headers(self) -> Headers:
        headers = self._own_headers()
        if self._cache is not None:
            headers.append(_MISS)
        step = self._step
        if step is not None and step.is_routed:
            headers.append((b"cf-aig-provider", step.provider.slug.encode()))
            headers.append((b"cf-aig-model", header_safe(step.peek.model)))
        if self._screened is not None:
            headers.extend(self._screened.headers)
        return headers

    def _refuse(self, error: AppError) -> GatewayAnswer:
        """Answer with an error of the gateway's own."""
        body = gateway_error_body(error)
        headers = [JSON_HEADER, *self._result_headers()]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
        self._finish(error, status=error.status, usage=self._used, response=body, headers=headers)
        return GatewayAnswer(status=error.status, headers=headers, body=body, error=error)

    def _finish(
        self,
        error: BaseException | None,
        *,
        status: int,
        usage: Usage | None = None,
        hit: CachedAnswer | None = None,
        response: bytes = b"",
        headers: Headers = _NO_HEADERS,
        is_partial: bool = False,
    ) -> None:
        """Settle and record the call, once."""
        if self._done:
            return
        self._done = True
        if self._cache is not None:
            self._cache.end(left=isinstance(error, (asyncio.CancelledError, GeneratorExit)))
        counted = usage or _NO_USAGE
        is_good = hit is None and status < 400 and (error is None or usage is not None)
        cost = self._bill.spent_usd(self._step, usage, is_good=is_good)
        if self._admission is not None:
            self._admission.settle(
                tokens=counted.prompt_tokens + counted.completion_tokens, cost_usd=cost
            )
        for admission in self._route_admissions:
            admission.settle(tokens=counted.prompt_tokens, cost_usd=cost)
        shown = counted if hit is None else hit.usage
        options = self._told()
        record = self._record(options, error, status, hit is not None, shown, cost)
        bodies = None
        if self._keeps_bodies():
            bodies = CallBodies(
                request=self._logged_request(),
                response=hit.body if hit is not None else response,
                request_type=type_of(self._head.forward),
                response_type=type_of(hit.headers if hit is not None else headers),
                is_partial=is_partial,
            )
        logs = self._policy.logs(collect=options.collect_log)
        for recorder in self._parts.recorders:
            recorder.record(record, bodies, policy=logs)

    def _record(
        self,
        options: Options,
        error: BaseException | None,
        status: int,
        hit: bool,
        usage: Usage,
        cost_usd: float,
    ) -> CallRecord:
        request, step = self._request, self._step
        outcome, status, code = ending_of(error, status)
        started_s, first_s = self._started_s, self._first_s
        return CallRecord(
            id=self.id,
            created_at_s=self._created_at_s,
            account_id=self._policy.gateway.account_id,
            key_id=self._principal.key_id,
            route=request.route,
            model="" if step is None else step.peek.model[:256],
            deployment=self._deployment,
            stream=step is not None and step.peek.stream,
            usage=usage,
            cost_usd=cost_usd,
            first_token_ms=None if first_s is None else (first_s - started_s) * 1000,
            duration_ms=(self._parts.clock.monotonic_s() - started_s) * 1000,
            outcome=outcome,
            status=status,
            error_code=code,
            gateway_id=self._policy.gateway.id,
            provider=request.provider if step is None else step.provider.slug,
            endpoint=request.endpoint if step is None else step.endpoint,
            event_id=options.event_id,
            metadata=options.metadata or _NO_METADATA,
            cached=hit,
            step=self._step_index,
            attempts=self._attempts,
            estimated=self._is_estimated,
            custom_cost=options.custom_cost is not None,
            routed_by=None if self._plan is None else self._plan.label,
            guard_findings=() if self._screened is None else self._screened.findings,
            trace_id=options.trace_id,
            parent_span_id=options.parent_span_id,
        )


_NO_METADATA: Final[dict[str, str | int | float | bool]] = {}
