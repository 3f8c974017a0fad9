"""Scores of the exported GGUF on paraphrases whose words and wordings training never saw."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.embed.paraphrases import Pair, draw_pair
from training.pools import World
from training.server import LocalServer

_EVALUATION_SEED = 30_000_001


@dataclass(frozen=True, slots=True)
class RetrievalScore:
    """How often the right passage came first."""

    task: str
    num_queries: int
    num_candidates: int
    num_first: int
    num_first_three: int


def evaluate(path: Path, num_pairs: int, *, threads: int = 2) -> list[RetrievalScore]:
    """Search each query's passage among all `num_pairs` passages of its task."""
    server = LocalServer(path, embedding=True, threads=threads)
    scores = []
    for task, asks, new_phrasings in (
        ("paraphrase, new words", False, False),
        ("paraphrase, new words and wordings", False, True),
        ("question to passage, new words", True, False),
        ("question to passage, new words and wordings", True, True),
    ):
        rng = random.Random(f"{_EVALUATION_SEED} {task}")
        pairs = _distinct_pairs(
            World(rng, new_values=True, new_phrasings=new_phrasings), num_pairs, asks=asks
        )
        queries = np.array(server.embed([pair.query for pair in pairs]))
        passages = np.array(server.embed([pair.passage for pair in pairs]))
        similarity = queries @ passages.T
        own = np.diag(similarity)[:, None]
        ranks = (similarity > own).sum(axis=1)
        scores.append(
            RetrievalScore(
                task, num_pairs, num_pairs, int((ranks == 0).sum()), int((ranks < 3).sum())
            )
        )
    return scores


def _distinct_pairs(world: World, count: int, *, asks: bool) -> list[Pair]:
    """Pairs none of whose passages answers another's query."""
    pairs: list[Pair] = []
    while len(pairs) < count:
        pair = draw_pair(world, asks=asks)
        if pair.query.lower() == pair.passage.lower():
            continue
        if any(pair.also_answered_by(other) or other.also_answered_by(pair) for other in pairs):
            continue
        pairs.append(pair)
    return pairs
