"""What the choice of a token depends on besides its logits: rules, counts, masks, randomness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject
from openworks.ports.text import Sampling

_GREEDY_BELOW = 1e-5
"""Temperatures that would overflow float32 when divided by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """`ports.text.Sampling` with nothing left open; the values given here change nothing."""

    temperature: float = 1.0
    top_k: int = 0
    """0 for the whole vocabulary."""
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, whatever the seed."""
        return self.temperature < _GREEDY_BELOW or self.top_k == 1

    @property
    def filters(self) -> bool:
        """Whether unlikely tokens are left out of the draw."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def counts_tokens(self) -> bool:
        """Whether an answer needs `TokenCounts`."""
        return bool(self.frequency_penalty or self.presence_penalty or self.repeat_penalty != 1.0)

    @property
    def counts_prompt(self) -> bool:
        """Whether those must know the prompt."""
        return self.repeat_penalty != 1.0


def default_rules(generation_config: JsonObject) -> SamplingRules:
    """Return the defaults of a model that ships this `generation_config.json`.

    What it does not say is as OpenAI has it: temperature 1, nothing filtered.
    """
    rules = SamplingRules(
        temperature=_number(generation_config, "temperature", 1.0),
        top_k=max(0, round(_number(generation_config, "top_k", 0))),
        top_p=_number(generation_config, "top_p", 1.0),
        min_p=_number(generation_config, "min_p", 0.0),
        repeat_penalty=_number(generation_config, "repetition_penalty", 1.0),
    )
    if generation_config.get("do_sample") is False:
        return SamplingRules(temperature=0.0, repeat_penalty=rules.repeat_penalty)
    return rules


def resolved(sampling: Sampling, defaults: SamplingRules, *, num_tokens: int) -> SamplingRules:
    """Return the rules of a request to a model with `num_tokens` tokens.

    Raises:
        InvalidRequestError: `logit_bias` names a token that the model does not have.
    """
    for token in sampling.logit_bias:
        if not 0 <= token < num_tokens:
            raise InvalidRequestError(
                f"logit_bias names token {token}; this model's tokens are 0..{num_tokens - 1}.",
                param="logit_bias",
            )
    return SamplingRules(
        temperature=_given(sampling.temperature, defaults.temperature),
        top_k=max(0, round(_given(sampling.top_k, defaults.top_k))),
        top_p=_given(sampling.top_p, defaults.top_p),
        min_p=_given(sampling.min_p, defaults.min_p),
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        repeat_penalty=_given(sampling.repeat_penalty, defaults.repeat_penalty),
        logit_bias=sampling.logit_bias,
        top_logprobs=sampling.top_logprobs,
    )


class TokenCounts:
    """Which tokens one answer and its prompt have, and how often the answer has each.

    Grows with the number of different tokens, not with the vocabulary.
    """

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        """Begin an answer that is empty.

        Args:
            prompt: Tokens to which `repeat_penalty` applies from the start.
        """
        self._places = {token: place for place, token in enumerate(dict.fromkeys(prompt))}
        room = max(64, 2 * len(self._places))
        self._ids = np.zeros(room, dtype=np.int64)
        self._ids[: len(self._places)] = list(self._places)
        self._counts = np.zeros(room, dtype=np.float32)

    def add(self, token: int) -> None:
        """Count a token of the answer."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += 1

    @property
    def ids(self) -> NDArray[np.int64]:
        """The different tokens of prompt and answer; valid until the next `add`."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.float32]:
        """How often the answer has each of `ids`: 0 for what only the prompt has."""
        return self._counts[: len(self._places)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One row of a batch: the next token of one answer."""

    rules: SamplingRules
    seed: int = 0
    answer: int = 0
    """Which of the request's `n` answers."""
    position: int = 0
    """How many tokens the answer has already."""
    seen: TokenCounts | None = None
    """Needed when `rules.counts_tokens`."""
    allowed: NDArray[np.int32] | None = None
    """Bit `t % 32` of word `t // 32` is set for each token that a grammar allows."""
    banned: tuple[int, ...] = ()

    @property
    def takes_the_best(self) -> bool:
        """Whether nothing but the logits matters."""
        return (
            self.rules.is_greedy
            and self.rules.top_logprobs is None
            and self.allowed is None
            and not self.banned
            and not self.rules.logit_bias
            and not self.rules.counts_tokens
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The token that comes next."""

    token: int
    logprob: float | None = None
    """Under the model's own distribution; None when `top_logprobs` is."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log probabilities, best first."""


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _number(config: JsonObject, name: str, default: float) -> float:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return float(value)
