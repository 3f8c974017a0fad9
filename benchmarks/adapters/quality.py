"""What a precision costs in quality: perplexity of the embedded chat model on held-out answers.

    python -m benchmarks.adapters.quality torch int8

Writes one JSON object. The texts are conversations that `training/chat` generates for its tests.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch

from openworks.engines.batched.executors import open_executor
from openworks.engines.batched.step import Piece, Step
from openworks.engines.batched.tokenizer import Tokenizer
from openworks.ports.catalog import Deployment, ExecutorName, ModelEntry, Precision
from training.chat.mixture import SKILLS, draw_case
from training.chat.template import render
from training.pools import World

MODEL = Path("src/openworks/models/tiny-chat")
CASES_OF_EACH = 15


def perplexity(executor_name: ExecutorName, precision: Precision) -> float:
    """Return the perplexity of the right answers, given their conversations."""
    deployment = Deployment(
        entry=ModelEntry(id="tiny-chat", name="tiny-chat", task="text-generation"),
        engine="batched",
        weights=MODEL,
        context_tokens=1024,
        cache_tokens=1024,
        threads=1,
        executor=executor_name,
        precision=precision,
        adapter_slots=1,
    )
    executor = open_executor(deployment)
    tokenizer = Tokenizer.load(MODEL)
    loss, count = 0.0, 0
    for asked, answered in _texts():
        ids = tokenizer.encode(asked + answered, add_bos=True)
        first = len(tokenizer.encode(asked, add_bos=True))
        blocks = range(-(-len(ids) // executor.cache.block_tokens))
        piece = Piece(ids, 0, list(blocks), None, len(ids))
        scores = torch.log_softmax(executor.run(Step([piece])), -1)
        found = scores[first - 1 : -1].gather(1, torch.tensor(ids[first:])[:, None])
        loss -= float(found.sum())
        count += len(found)
    return math.exp(loss / count)


def _texts() -> Iterator[tuple[str, str]]:
    """Conversations of every skill, with words that training never draws, and their answers."""
    world = World(random.Random(1), new_values=True, new_phrasings=True)
    for _ in range(CASES_OF_EACH):
        for skill in SKILLS:
            case = draw_case(world, skill)
            asked = render(case.messages[:-1], case.tools, add_generation_prompt=True)
            whole = render(case.messages, case.tools)
            yield asked, whole.removeprefix(asked)


def main() -> None:
    """Measure one precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("executor")
    parser.add_argument("precision")
    options = parser.parse_args()
    print(json.dumps({"perplexity": perplexity(options.executor, options.precision)}))


if __name__ == "__main__":
    main()
