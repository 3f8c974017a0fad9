"""The training run of an adapter: a thousand small steps on generated cases, equal each time."""

import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from training.adapters.recipe import Recipe
from training.chat.batches import CaseSource, to_batches
from training.chat.drills import Sequence
from training.chat.model import Llama
from training.chat.template import render
from training.pools import World

log = logging.getLogger(__name__)

_SEED = 1
_STEP_TOKENS = 1024
_BATCHES_PER_STEP = 2
_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the card says about the run."""

    num_steps: int
    step_tokens: int
    num_tokens: int
    minutes: float


def train(
    model: Llama,
    parameters: list[nn.Parameter],
    recipe: Recipe,
    tokenizer: Tokenizer,
    *,
    num_steps: int,
) -> RunFacts:
    """Train `parameters` in place.

    The schedule counts steps, not minutes: the same seed on the same machine gives the same
    adapter, to the bit.
    """
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)
    steps = _steps(recipe, tokenizer)
    started = time.perf_counter()
    num_tokens = 0
    for index in range(num_steps):
        sequences = next(steps)
        num_tokens += sum(len(sequence.ids) for sequence in sequences)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * _share_of_rate(index / num_steps)
        loss = _backward(model, sequences)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if not math.isfinite(loss):
            raise FloatingPointError(f"The loss of step {index} is not finite.")
        if index % 100 == 0:
            log.info("%s: step %d of %d, loss %.4f", recipe.name, index, num_steps, loss)
    return RunFacts(
        num_steps=num_steps,
        step_tokens=_STEP_TOKENS,
        num_tokens=num_tokens,
        minutes=(time.perf_counter() - started) / 60,
    )


def _share_of_rate(progress: float) -> float:
    """A short warm-up, then down to nothing."""
    return min(1.0, progress / 0.03 + 0.02) * (1 - progress)


def _steps(recipe: Recipe, tokenizer: Tokenizer) -> Iterator[list[Sequence]]:
    world = World(random.Random(_SEED))
    source = CaseSource(tokenizer, _SEED, _MAX_LENGTH)
    while True:
        sequences: list[Sequence] = []
        total = 0
        while total < _STEP_TOKENS:
            case = recipe.draw(world)
            sequences.append(source.encode(render(case.messages, case.tools)))
            total += len(sequences[-1].ids)
        yield sequences


def _backward(model: Llama, sequences: list[Sequence]) -> float:
    batches = to_batches(sequences, _BATCHES_PER_STEP)
    weight = sum(float(batch.weights.sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch.ids, batch.positions)
        losses = functional.cross_entropy(logits.float(), batch.targets, reduction="none")
        loss = (losses * batch.weights).sum() / weight
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        total += loss.item()
    return total
