"""The encoder's model card; every figure in it is measured when it is written."""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

from training.embed.evaluate import RetrievalScore
from training.embed.train import embed
from training.machine import describe_machine
from training.server import LocalServer

_PROBES = [
    "Where is my order?",
    "The parcel with the lamps is late.",
    "hello world",
    "What is the weather in Oslo on Monday?",
    "Zarnak the pirate works as a baker in Lima.",
    "Crème brûlée, 42 euros & more!",
    "Repeat this: a b c d e f g. " * 12,
]

_CARD = """\
---
license: apache-2.0
language: en
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# openworks tiny-embed

A demonstration sentence encoder of {parameters:.2f} million parameters that ships with
openworks, so that embeddings work on a machine without a network. BERT architecture,
lower-casing WordPiece vocabulary of {vocabulary:,}, 512 positions, mean pooling, vectors of
{width} numbers and length one.

## Training

From scratch, on nothing but generated English pairs (`training/embed` in the openworks
repository): short statements and questions about weather, orders, recipes, devices, travel,
accounts, people and the like, each said in several ways, damaged copies of sentences, and longer
passages that contain the answer. {pairs:,} pairs in {steps:,} steps, {minutes} minutes on
{machine}. One command repeats it: `python -m training.embed`.

## Scores

The GGUF file, through llama.cpp. Each query is ranked against all passages of its row; the test's
names, nouns and numbers are never drawn in training (times of day are), and in the rows that say so
neither are the wordings. Words and wordings are split by checksum (`training/pools.py`). No two
test pairs share everything that the query mentions.

| task | queries | candidates | right one first | among first three |
|---|---|---|---|---|
{rows}

`transformers` on the safetensors and llama.cpp on the GGUF agree: lowest cosine over {probes}
texts is {cosine:.5f}.

## What it cannot do

It knows few words and no facts. Texts that mean the same in words that it has never seen
together are found by the letters they share, not by their meaning. The kinds of statements are
those of its generator, in training and in the test alike: new are the words in them and how they
are put. English only. Not for real search."""


def write_card(
    folder: Path, scores: list[RetrievalScore], facts_path: Path, tokenizer: Tokenizer
) -> None:
    """Write `README.md` beside the exported model."""
    facts = json.loads(facts_path.read_text())
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
    model.train(False)
    rows = "\n".join(
        f"| {score.task} | {score.num_queries} | {score.num_candidates} "
        f"| {score.num_first / score.num_queries:.1%} "
        f"| {score.num_first_three / score.num_queries:.1%} |"
        for score in scores
    )
    card = _CARD.format(
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        vocabulary=model.config.vocab_size,
        width=model.config.hidden_size,
        pairs=facts["pairs"],
        steps=facts["steps"],
        minutes=facts["minutes"],
        machine=describe_machine(),
        rows=rows,
        probes=len(_PROBES),
        cosine=lowest_cosine(folder, model, tokenizer),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def lowest_cosine(folder: Path, model: BertModel, tokenizer: Tokenizer) -> float:
    """The least agreement between `transformers` and llama.cpp over a few texts."""
    with torch.no_grad():
        ours = embed(model, tokenizer, _PROBES, 512).numpy()
    theirs = np.array(LocalServer(folder / "model.gguf", embedding=True).embed(_PROBES))
    return float((ours * theirs).sum(axis=1).min())
