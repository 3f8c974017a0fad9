"""Chooses the next token of every row of a batch from its logits.

What is applied, in this order, which is that of vLLM's `v1.sample.sampler` and of the processors of
`transformers.generation` (but for min-p, which vLLM has before top-k):

1. `logit_bias`; then `repeat_penalty` over prompt and answer (CTRL, arXiv:1909.05858: divides
   positive logits and multiplies negative ones); then `frequency_penalty` x count and
   `presence_penalty`, both over the answer alone, as OpenAI defines them.
2. Tokens that are banned, or that the grammar does not allow, are out.
3. temperature; below 1e-5 the likeliest token is taken.
4. top-k, then top-p of what that leaves, then min-p relative to the likeliest token.

(llama.cpp's default chain has the temperature last and looks for repetitions in the last 64 tokens
only.) Log probabilities are those of the model's own distribution, before all of this: what vLLM
and llama.cpp report unless told otherwise, and OpenAI as far as it can be seen.

A draw is the inverse of the cumulative distribution, summed in float64, at the row's own number of
`randomness.uniform`. Tokens are in order of likelihood, equal ones by id; where nothing is
filtered, all by id, which needs no sorting. Neither order depends on what shares the batch, or on
how many candidates were looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from openworks.engines.batched.randomness import uniform
from openworks.engines.batched.sampling import Choice, Draw

_WIDTHS = (64, 1024, 8192)
"""Candidates that are tried before a whole row is sorted: `topk` of few is ten times cheaper."""
_BLOCK = 128
"""Tokens whose weights are summed at once when nothing is filtered."""
_LEAST_LOGPROB = -9999.0
"""What OpenAI says of a token that is all but impossible; JSON has no infinity."""
_BYTE_MASKS = np.where((np.arange(256)[:, None] >> np.arange(8)) & 1, 0.0, -np.inf).astype("f4")
"""Byte of a mask → what to add to its eight logits."""


class Sampler:
    """Chooses tokens for one model. Keeps nothing between calls."""

    def __init__(self, num_tokens: int, *, unused: Sequence[int] = ()) -> None:
        """Choose among the tokens that have a meaning.

        Args:
            num_tokens: Logits from here on are padding.
            unused: Ids below that stand for no token.
        """
        self._num_tokens = num_tokens
        self._unused = torch.tensor(unused, dtype=torch.int64)

    @torch.inference_mode()
    def choose(self, logits: Tensor, draws: Sequence[Draw]) -> list[Choice | None]:
        """Choose a token for each row.

        Args:
            logits: float32 [len(draws), at least `num_tokens`], on any device; not written to.
            draws: One per row.

        Returns:
            None for a row that has nothing to choose from: its logits are not numbers, or all its
            tokens are ruled out. It says nothing about the other rows.
        """
        logits = logits[:, : self._num_tokens]
        if len(self._unused):
            logits = logits.index_fill(1, self._unused.to(logits.device), -math.inf)
        edited = _edited(logits, draws)
        best, ids = edited.max(dim=-1)
        tokens = ids.tolist()
        fine = best.isfinite().tolist()
        rows = [row for row, each in enumerate(draws) if fine[row] and not each.rules.is_greedy]
        if rows:
            some = edited if len(rows) == len(draws) else edited[rows]
            drawn = _drawn(some, [draws[row] for row in rows])
            for row, token in zip(rows, drawn, strict=True):
                tokens[row] = token
        choices = [
            Choice(token) if is_fine else None for token, is_fine in zip(tokens, fine, strict=True)
        ]
        return _with_logprobs(choices, logits, draws)


def _edited(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Return the logits with steps 1 and 2 done; the same tensor if there is nothing to do."""
    if all(each.takes_the_best for each in draws):
        return logits
    work = logits
    for edit in (_add_biases, _penalise, _ban, _mask):
        work = edit(work, logits, draws)
    return work


def _own(work: Tensor, logits: Tensor) -> Tensor:
    return logits.clone() if work is logits else work


def _add_biases(work: Tensor, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    biases = [
        (row, token, bias)
        for row, each in enumerate(draws)
        for token, bias in each.rules.logit_bias.items()
    ]
    if not biases:
        return work
    work = _own(work, logits)
    rows, ids, values = zip(*biases, strict=True)
    place = (torch.tensor(rows, device=work.device), torch.tensor(ids, device=work.device))
    values_there = torch.tensor(values, dtype=work.dtype, device=work.device)
    return work.index_put_(place, values_there, accumulate=True)


def _penalise(work: Tensor, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    counted = [
        (row, each.rules, each.seen)
        for row, each in enumerate(draws)
        if each.seen is not None and each.rules.counts_tokens
    ]
    if not counted:
        return work
    work = _own(work, logits)
    lengths = [len(seen.ids) for _, _, seen in counted]

    def spread(values: Sequence[float], dtype: str = "f4") -> Tensor:
        spread_out = np.repeat(np.array(values, dtype=dtype), lengths)
        return torch.from_numpy(spread_out).to(work.device)

    rows = spread([row for row, _, _ in counted], "i8")
    ids = torch.from_numpy(np.concatenate([seen.ids for _, _, seen in counted])).to(work.device)
    counts = torch.from_numpy(np.concatenate([seen.counts for _, _, seen in counted]))
    counts = counts.to(work.device)
    repeat = spread([rules.repeat_penalty for _, rules, _ in counted])
    frequency = spread([rules.frequency_penalty for _, rules, _ in counted])
    presence = spread([rules.presence_penalty for _, rules, _ in counted])
    there = work[rows, ids]
    there = torch.where(there > 0, there / repeat, there * repeat)
    work[rows, ids] = there - counts * frequency - (counts > 0) * presence
    return work


def _ban(work: Tensor, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    banned = [(row, token) for row, each in enumerate(draws) for token in each.banned]
    if not banned:
        return work
    work = _own(work, logits)
    rows, ids = torch.tensor(banned, device=work.device).unbind(-1)
    work[rows, ids] = -math.inf
    return work


def _mask(work: Tensor, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    masked = [(row, each.allowed) for row, each in enumerate(draws) if each.allowed is not None]
    if not masked:
        return work
    packed = np.stack([allowed for _, allowed in masked]).view(np.uint8)
    added = np.take(_BYTE_MASKS, packed, axis=0).reshape(len(masked), -1)[:, : work.shape[1]]
    added_there = torch.from_numpy(added).to(work.device)
    if len(masked) == len(draws):
        return work + added_there
    rows = torch.tensor([row for row, _ in masked], device=work.device)
    return _own(work, logits).index_add_(0, rows, added_there)


def _drawn(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Do steps 3 and 4 and draw; every row of `logits` has a token that is not ruled out."""
    tokens = [0] * len(draws)
    filtered = [row for row, each in enumerate(draws) if each.rules.filters]
    others = [row for row, each in enumerate(draws) if not each.rules.filters]
    for rows, draw in ((filtered, _drawn_from_likeliest), (others, _drawn_from_all)):
        if rows:
            some = logits if len(rows) == len(draws) else logits[rows]
            for row, token in zip(rows, draw(some, [draws[row] for row in rows]), strict=True):
                tokens[row] = token
    return tokens


def _drawn_from_all(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Draw by id: first a block, then a token in it, so that few sums are running ones."""
    temperature = _column(logits, [each.rules.temperature for each in draws])
    weights = _weights(logits, temperature)
    blocks = torch.nn.functional.pad(weights, (0, -weights.shape[1] % _BLOCK))
    blocks = blocks.view(len(draws), -1, _BLOCK)
    mass = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    target = _column(logits, [_uniform(each) for each in draws]) * mass[:, -1:]
    block = _first_beyond(mass, target)
    before = torch.where(block > 0, mass.gather(-1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(draws), device=logits.device), block.squeeze(-1)]
    place = _first_beyond(inside.cumsum(dim=-1, dtype=torch.float64), target - before)
    return cast("list[int]", (block * _BLOCK + place).squeeze(-1).tolist())


def _first_beyond(mass: Tensor, target: Tensor) -> Tensor:
    """Return where running sums pass `target`; never a place that added nothing."""
    below_end = torch.nextafter(mass[:, -1:], torch.zeros_like(target))
    return (mass <= target.minimum(below_end)).sum(dim=-1, keepdim=True)


def _drawn_from_likeliest(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Draw in the order of likelihood, from what the filters leave."""
    columns = _columns(logits, draws)
    vocab = logits.shape[1]
    tokens = torch.zeros(len(draws), dtype=torch.int64, device=logits.device)
    rows = torch.arange(len(draws), device=logits.device)
    for width in (*(each for each in _WIDTHS if each < vocab), vocab):
        drawn, settled = _drawn_among(logits, columns, width)
        tokens[rows[settled]] = drawn[settled]
        if bool(settled.all()):
            break
        logits, columns, rows = logits[~settled], columns[~settled], rows[~settled]
    return cast("list[int]", tokens.tolist())


def _columns(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Return what such a draw needs of each row, as float64 [rows, 7, 1]."""
    rules, vocab = [each.rules for each in draws], logits.shape[1]
    temperature = _column(logits, [each.temperature for each in rules])
    columns = [
        temperature,
        _column(logits, [min(each.top_k or vocab, vocab) for each in rules]),
        _column(logits, [each.top_p for each in rules]),
        _column(logits, [each.min_p for each in rules]),
        _column(logits, [_uniform(each) for each in draws]),
        logits.amax(dim=-1, keepdim=True).double(),
        _weights(logits, temperature).sum(dim=-1, keepdim=True, dtype=torch.float64),
    ]
    return torch.stack(columns, dim=1)


def _column(logits: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]


def _uniform(draw: Draw) -> float:
    return uniform(draw.seed, draw.answer, draw.position)


def _weights(logits: Tensor, temperature: Tensor) -> Tensor:
    """Return float32 weights, 1 for the likeliest token of a row."""
    scaled = logits - logits.amax(dim=-1, keepdim=True)
    return scaled.div_(temperature.to(logits.dtype)).exp_()


def _drawn_among(logits: Tensor, columns: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Draw from the `width` likeliest tokens of each row.

    Returns:
        Tokens [rows], and whether each is the one that the whole vocabulary would have given.
    """
    vocab = logits.shape[1]
    temperature, top_k, top_p, min_p, number, best, total = columns.unbind(dim=1)
    values, ids = _ranked(logits, width)
    weights = ((values.double() - best) / temperature).exp()
    mass = weights.cumsum(dim=-1)

    def cut(inside: Tensor) -> Tensor:  # how many stay; all, if the cut is not among these
        count = inside.sum(dim=-1, keepdim=True)
        return torch.where(count < width, count, vocab)

    def mass_of(count: Tensor) -> Tensor:
        return mass.gather(-1, count.clamp(max=width) - 1)

    top_k = top_k.long()
    whole = torch.where(top_k < vocab, mass_of(top_k), total)
    by_p = torch.where(top_p < 1, cut(mass - weights < top_p * whole), vocab)
    kept = cut(weights > 0).minimum(cut(weights >= min_p)).minimum(by_p).minimum(top_k)
    kept = kept.clamp(min=1)
    place = (mass <= number * mass_of(kept)).sum(dim=-1, keepdim=True).minimum(kept - 1)
    # Which of the tokens that equal the last one are among these is up to `topk`.
    certain = (values > values[:, -1:]).sum(dim=-1, keepdim=True) if width < vocab else vocab
    settled = (kept <= width) & ((top_k <= width) | (top_k == vocab)) & (place < certain)
    return ids.gather(-1, place.clamp(max=width - 1)).squeeze(-1), settled.squeeze(-1)


def _ranked(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the `width` largest logits of each row with their ids; equal ones by id."""
    if width == logits.shape[1]:
        return torch.sort(logits, dim=-1, descending=True, stable=True)
    values, ids = logits.topk(width, dim=-1)
    if bool((values[:, 1:] == values[:, :-1]).any()):
        ids = ids.sort(dim=-1).values
        values, order = logits.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
        ids = ids.gather(-1, order)
    return values, ids


def _with_logprobs(
    choices: list[Choice | None], logits: Tensor, draws: Sequence[Draw]
) -> list[Choice | None]:
    """Return the choices with log probabilities where they are wanted."""
    wanted = {
        row: each.rules.top_logprobs
        for row, each in enumerate(draws)
        if each.rules.top_logprobs is not None
    }
    if not wanted:
        return choices
    some = logits if len(wanted) == len(draws) else logits[list(wanted)]
    log_mass = some.logsumexp(dim=-1, keepdim=True)
    width = min(max(wanted.values()), logits.shape[1])
    values, ids = _ranked(some, width) if width else (some[:, :0], some[:, :0].long())
    chosen = [choice.token if (choice := choices[row]) is not None else 0 for row in wanted]
    own = some.gather(-1, torch.tensor(chosen, device=some.device)[:, None])
    own_list = _logprob_list(own - log_mass)
    top_list = _logprob_list(values - log_mass)
    for at, (row, count) in enumerate(wanted.items()):
        if (choice := choices[row]) is not None:
            top = tuple(zip(ids[at].tolist(), top_list[at], strict=True))[:count]
            choices[row] = Choice(choice.token, own_list[at][0], top)
    return choices


def _logprob_list(values: Tensor) -> list[list[float]]:
    return cast("list[list[float]]", values.clamp(min=_LEAST_LOGPROB).tolist())
