"""Training batches: generated cases as token ids, with a mark on what the model has to say."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.chat.drills import Drills, Sequence, answer_weights
from training.chat.mixture import draw_mixed
from training.chat.template import render
from training.chat.tokenizer import TURN_END, TURN_START, id_of
from training.pools import World

PADDING_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of similar length, padded on the right."""

    ids: Tensor  # [batch, length], int64
    positions: Tensor  # [num_answers], int64: where the token before an answer token stands
    targets: Tensor  # [num_answers], int64
    weights: Tensor  # [num_answers], float32
    num_tokens: int


class CaseSource:
    """Turns cases into sequences."""

    def __init__(self, tokenizer: Tokenizer, seed: int, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._seed = seed
        self._max_length = max_length
        self._start = id_of(tokenizer, TURN_START)
        self._end = id_of(tokenizer, TURN_END)
        self._role = tokenizer.encode("assistant\n").ids
        self._drills = Drills(tokenizer)

    def encode(self, text: str) -> Sequence:
        """Token ids of a rendered conversation; every assistant turn is an answer."""
        ids = self._tokenizer.encode(text).ids[: self._max_length]
        weights = [0.0] * len(ids)
        role, width = self._role, len(self._role)
        for index, token in enumerate(ids):
            if token == self._start and ids[index + 1 : index + 1 + width] == role:
                first = index + 1 + width
                last = ids.index(self._end, first) if self._end in ids[first:] else len(ids) - 1
                weights[first : last + 1] = answer_weights(last + 1 - first)
        return Sequence(ids, weights)

    def step(
        self, index: int, num_tokens: int, plan: Callable[[random.Random], str], progress: float
    ) -> list[Sequence]:
        """The sequences of one optimiser step; the same index gives the same ones."""
        rng = random.Random(self._seed * 1_000_003 + index)
        world = World(rng)
        sequences: list[Sequence] = []
        total = 0
        while total < num_tokens:
            kind = plan(rng)
            if kind == "copy":
                sequences.append(self._drills.draw(rng))
                total += len(sequences[-1].ids)
                continue
            case = draw_mixed(world, progress, long=kind == "long")
            sequence = self.encode(render(case.messages, case.tools))
            sequences.append(sequence)
            total += len(sequence.ids)
        return sequences


def to_batches(sequences: list[Sequence], count: int) -> list[Batch]:
    """Sort by length and cut into up to `count` batches so that the padding is least."""
    ordered = sorted(sequences, key=lambda sequence: len(sequence.ids))
    lengths = [_padded_length(sequence) for sequence in ordered]
    # best[n] is the cheapest way to batch the n shortest: its cost in cells and its cuts.
    best: list[tuple[int, list[int]]] = [
        (n * lengths[n - 1] if n else 0, []) for n in range(len(lengths) + 1)
    ]
    for _ in range(count - 1):
        best = [
            min(
                [best[n]]
                + [(best[m][0] + (n - m) * lengths[n - 1], [*best[m][1], m]) for m in range(1, n)]
            )
            for n in range(len(lengths) + 1)
        ]
    cuts = [0, *best[-1][1], len(ordered)]
    return [_pad(ordered[start:end]) for start, end in pairwise(cuts)]


def _padded_length(sequence: Sequence) -> int:
    return -(-len(sequence.ids) // PADDING_MULTIPLE) * PADDING_MULTIPLE


def _pad(group: list[Sequence]) -> Batch:
    length = max(_padded_length(sequence) for sequence in group)
    ids = torch.zeros(len(group), length, dtype=torch.int64)
    positions: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for row, sequence in enumerate(group):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        for index, weight in enumerate(sequence.weights):
            if weight:
                positions.append(row * length + index - 1)
                targets.append(sequence.ids[index])
                weights.append(weight)
    return Batch(
        ids,
        torch.tensor(positions, dtype=torch.int64),
        torch.tensor(targets, dtype=torch.int64),
        torch.tensor(weights),
        sum(len(sequence.ids) for sequence in group),
    )
