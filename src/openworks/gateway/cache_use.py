"""How one call uses the cache: where it looks, for whom it asks, and what it leaves there."""

from __future__ import annotations

import hashlib

from openworks.gateway.caching.flights import Lead
from openworks.gateway.caching.keys import cache_key
from openworks.gateway.caching.plan import CachePlan
from openworks.gateway.caching.questions import question_of, question_scope
from openworks.gateway.caching.semantic import Likeness
from openworks.gateway.messages import GatewayRequest
from openworks.gateway.parts import Parts
from openworks.gateway.policy import Policy
from openworks.gateway.providers.base import AUTH_HEADERS
from openworks.gateway.steps import Step, read_object
from openworks.ports.answers_cache import CachedAnswer
from openworks.ports.calls import LOCAL_PROVIDER, Principal


class CacheUse:
    """One call's use; `end` once, whatever came of it."""

    __slots__ = (
        "_is_anonymous", "_key", "_lead", "_likeness", "_parts", "_plan", "_policy", "_principal",
        "_request", "_step",
    )  # fmt: skip

    def __init__(
        self,
        plan: CachePlan,
        parts: Parts,
        policy: Policy,
        principal: Principal,
        request: GatewayRequest,
        told: bytes,
        step: Step,
        *,
        is_anonymous: bool,
    ) -> None:
        """Name the call.

        Args:
            plan: What the call and its gateway want of the cache.
            parts: The cache itself, and who else is asking.
            policy: Of the gateway.
            principal: Who calls.
            request: What is asked, whole: the fallbacks of its first step belong to it.
            told: What the headers say that can change the answer.
            step: The first one.
            is_anonymous: Whether the caller showed no key, and shares nothing with those who did.
        """
        self._plan = plan
        self._parts = parts
        self._policy = policy
        self._principal = principal
        self._request = request
        self._step = step
        self._is_anonymous = is_anonymous
        self._lead: Lead | None = None
        self._likeness: Likeness | None = None
        self._key = cache_key(
            account=policy.gateway.account_id,
            gateway=policy.gateway.id,
            epoch=policy.cache_epoch,
            provider=self._place(),
            target=request.endpoint.encode() + b"?" + request.query,
            credential=self._credentials(),
            told=told,
            body=request.body,
            stream=step.peek.stream,
            custom_key=plan.custom_key,
        )

    def look(self) -> CachedAnswer | None:
        """Return an answer that is in this process's memory."""
        return self._parts.cache.get(self._key)

    async def wait(self) -> CachedAnswer | None:
        """Return an answer that others have, are being given, or to a question that is alike.

        None makes this call ask, perhaps for those who come after it.
        """
        flights = self._parts.flights
        led = flights.lead(self._key) or await flights.wait(self._key)
        if isinstance(led, CachedAnswer):
            return led
        self._lead = led
        found = await self._parts.cache.fetch(self._key)
        if found is None:
            return await self._alike()
        if led is not None:
            led.finish(found)
        return found

    def similarity_of(self, found: CachedAnswer) -> float | None:
        """How alike the question of an answer was; None when it was the same."""
        likeness = self._likeness
        return likeness.similarity if likeness is not None and likeness.answer is found else None

    def store(self, answer: CachedAnswer) -> None:
        """Keep an answer, and give it to those who wait."""
        self._parts.cache.put(self._key, answer, ttl_s=self._plan.ttl_s)
        if self._likeness is not None and self._parts.semantic is not None:
            self._parts.semantic.put(self._likeness, answer, ttl_s=self._plan.ttl_s)
        if self._lead is not None:
            self._lead.finish(answer)

    def end(self, *, left: bool) -> None:
        """Let those who wait go on; after `store`, nobody does.

        Args:
            left: Whether the client left, so that another takes over.
        """
        if self._lead is None:
            return
        if left:
            self._lead.leave()
        else:
            self._lead.fail()  # does nothing after `finish`

    async def _alike(self) -> CachedAnswer | None:
        semantic, threshold = self._parts.semantic, self._plan.semantic_threshold
        request, policy = self._request, self._policy
        if semantic is None or threshold is None or request.body.lstrip()[:1] != b"{":
            return None  # not wanted; or an upload, or an array of steps
        target = request.endpoint.encode()
        question = question_of(target, read_object(request.body))
        if question is None:
            return None
        scope = question_scope(
            question,
            account=policy.gateway.account_id,
            gateway=policy.gateway.id,
            epoch=policy.cache_epoch,
            provider=self._place(),
            target=target,
            credential=hashlib.sha256(self._credentials()).digest(),
        )
        self._likeness = await semantic.look(scope, question.text, threshold=threshold)
        return self._likeness.answer

    def _credentials(self) -> bytes:
        """Return what may authorise the call; the caller's own is in it, so it must not be kept."""
        step = self._step
        stored = "-"  # strangers share nothing with those who have a key
        if not self._is_anonymous:
            credentials = self._policy.credentials(step.provider, step.options.byok_alias)
            stored = "".join([credential.digest for credential in credentials])
        brought = b"".join([value for name, value in step.headers if name in AUTH_HEADERS])
        return brought + b"\0" + stored.encode()

    def _place(self) -> str:
        place, step = self._request.provider, self._step
        if step.is_routed:  # metadata may have chosen the model, and stands nowhere else in the key
            place = f"{place}/{step.provider.slug}/{step.peek.model}"
        allowed = self._principal.allowed_models
        if allowed is not None and (not place or step.provider.slug == LOCAL_PROVIDER):
            # Nobody looked yet whether this key may use the model that answered another one.
            place = f"{place}?{sorted(allowed)}"
        return place
