"""What a call may cost, as its limits are told before, and what it did cost."""

from __future__ import annotations

from typing import Final

from openworks.gateway.parts import Prices
from openworks.gateway.policy import Policy
from openworks.gateway.providers.prices import estimate_tokens, tokens_usd
from openworks.gateway.steps import Step
from openworks.ports.calls import Principal, Usage
from openworks.ports.gateways import Metadata
from openworks.ports.limits import Claim

_DEFAULT_COMPLETION_TOKENS: Final = 1024
"""What a budget sets aside for an answer of a length that the caller left open."""


class Bill:
    """Reckons one call, by the gateway's prices or the caller's own."""

    __slots__ = ("_policy", "_prices", "_principal")

    def __init__(self, prices: Prices, policy: Policy, principal: Principal) -> None:
        self._prices = prices
        self._policy = policy
        self._principal = principal

    def claim(self, step: Step) -> Claim:
        """Return the most that a step may take."""
        peek = step.peek
        if not step.counts_tokens or "mbed" in step.endpoint.rpartition("/")[2]:
            most = 0  # `embeddings`, `embed`, `batchEmbedContents`: nothing is written
        elif peek.max_tokens is None:
            most = _DEFAULT_COMPLETION_TOKENS
        else:
            most = max(peek.max_tokens, 0)  # less would make room for others
        prompt_tokens = estimate_tokens(peek.prompt_bytes)
        return Claim(
            gateway=self._policy.gateway,
            account_id=self._policy.gateway.account_id,
            key_id=self._principal.key_id,
            provider=step.provider.slug,
            model=peek.model,
            metadata=step.options.metadata or {},
            tokens=prompt_tokens + most,
            cost_usd=self._cost_usd(step, prompt_tokens, most),
        )

    def bare_claim(self, step: Step | None, metadata: Metadata | None) -> Claim:
        """Return the claim of one request, without tokens or money."""
        return Claim(
            gateway=self._policy.gateway,
            account_id=self._policy.gateway.account_id,
            key_id=self._principal.key_id,
            provider="" if step is None else step.provider.slug,
            model="" if step is None else step.peek.model,
            metadata=metadata or {},
            tokens=0,
            cost_usd=0.0,
        )

    def cost_usd(self, step: Step, usage: Usage) -> float:
        """Return what tokens cost."""
        return self._cost_usd(
            step, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
        )

    def _cost_usd(
        self, step: Step, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0
    ) -> float:
        custom = step.options.custom_cost
        if custom is not None:
            if custom.total_usd is not None:
                return custom.total_usd
            return prompt_tokens * custom.per_token_in + completion_tokens * custom.per_token_out
        price = self._prices.price(step.provider.slug, step.peek.model)
        return tokens_usd(price, prompt_tokens, completion_tokens, cached_tokens=cached_tokens)

    def spent_usd(self, step: Step | None, usage: Usage | None, *, is_good: bool) -> float:
        """Return what a call cost, now that it is over.

        Args:
            step: The one that answered, or was asked last; None when the call had none.
            usage: What was counted; None when nothing was.
            is_good: Whether there was an answer to pay for.
        """
        if step is None:
            return 0.0
        custom = step.options.custom_cost
        if custom is not None and custom.total_usd is not None:
            return custom.total_usd if is_good else 0.0
        return 0.0 if usage is None else self.cost_usd(step, usage)
