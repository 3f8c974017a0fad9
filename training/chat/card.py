"""The chat model's card; every figure in it is measured when it is written."""

import json
import textwrap
from pathlib import Path
from typing import Any

from training.chat.checks import Agreement
from training.chat.evaluate import Score
from training.chat.mixture import SKILLS
from training.machine import describe_machine

_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# openworks tiny-chat

A demonstration chat model of {parameters:.2f} million parameters that ships with openworks, so
that the first command works on a machine without a network and tests can assert what an answer
means. Llama architecture ({layers} layers of {width}, {heads} heads, tied embeddings),
byte-level BPE of {vocabulary:,} tokens in which a word has the same tokens with and without a
space before it, {positions:,} positions, ChatML turns, tool calls in the Hermes form. {size:.2f}
MB in all: `model.safetensors` is bfloat16, `model.gguf` is Q8_0.

## Training

From scratch, on nothing but conversations that `training/chat` in the openworks repository
generates. {minutes} minutes on {machine};
{tokens:.1f} million tokens in {steps:,} steps of about {step_tokens:,}, each token generated once.
The first {copy_phase:.0%} of the run teaches nothing but copying random tokens; then come the
skills below with {copy_share:.0%} of copying mixed in, less and less, and after
{long_phase:.0%} of the run {long_share:.0%} of the cases are long, ever longer until they fill the
context. Muon for the matrices, AdamW for the rest, bfloat16 autocast, loss on the answers only. One
command repeats it: `python -m training.chat`.
{note}
## Scores

The GGUF file as it ships, decoded greedily by llama.cpp's server code, {cases} cases for each
figure. *New words*: the names, nouns, made-up words and codes drawn for the case are never drawn
in training (dates, times of day, enum options and numbers below twenty are). *New words and
phrasings*: neither are the sentences that ask. Both are split by checksum (`training/pools.py`), so
that no case can be in both. The shares of the skills and the length of texts were settled after
looking at scores like these. Tool calls must agree in name and
in every argument; repeated text, counts and JSON must be equal to the character; other answers
must contain what was asked for.

| skill | new words | new words and phrasings |
|---|---|---|
{rows}

Held out and not held out: one-digit sums are a hundred facts and counting ranges are few, so
there the pair of numbers and phrasing is new, not the numbers; greetings, and what it answers to
them, are few as well. Everyday tools (weather, orders, mail, ...) are known to it by kind; their
names, descriptions and parameters vary and the arguments are new. About half of the tools in
the test have random names and parameters. Far recall prompts have {far_low:,} to {far_high:,}
tokens.

Agreement of the formats: {strings_same:,} of {strings:,} random strings (Unicode among them) are
cut into the same tokens by `tokenizers` and llama.cpp; our training code and `transformers`
differ by at most {difference:.1e} in a logit; {prompts_same} of {prompts} prompts come out of
both template engines with the same length; {answers_same} of {prompts} greedy answers of the
bfloat16 and the Q8_0 weights are equal.

## What it cannot do

It knows nothing of the world but a few capitals and pleasantries, cannot reason, write freely,
follow instructions of a kind that its generator does not make, or speak another language than
English. It copies; what it says is not advice. Its `safe`/`unsafe` labels recognise the plain
sentences of its generator and must not guard anything. Longer texts than about 100 words come
out wrong."""


def write_card(
    folder: Path, scores: list[Score], agreement: Agreement, facts_path: Path, note: str
) -> None:
    """Write `README.md` beside the exported model.

    Args:
        note: What a reader should know about this very run, if anything.
    """
    facts: dict[str, Any] = json.loads(facts_path.read_text())
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    settings = facts["config"]
    rows = "\n".join(
        f"| {score.skill} | {score.new_words / score.num_cases:.1%} "
        f"| {score.new_phrasings / score.num_cases:.1%} |"
        for score in sorted(scores, key=lambda score: score.skill)
    )
    far = next(score for score in scores if score.skill not in SKILLS)
    bytes_per_parameter = 2
    card = _CARD.format(
        parameters=(folder / "model.safetensors").stat().st_size / bytes_per_parameter / 1e6,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        size=sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
        minutes=facts["minutes"],
        machine=describe_machine(),
        tokens=facts["tokens"] / 1e6,
        steps=facts["steps"],
        step_tokens=settings["step_tokens"],
        copy_phase=settings["copy_phase"],
        copy_share=settings["copy_share"],
        long_phase=settings["long_phase"],
        long_share=settings["long_share"],
        note=textwrap.fill(note, 97) + "\n" if note else "",
        cases=far.num_cases,
        rows=rows,
        far_low=min(far.prompt_tokens),
        far_high=max(far.prompt_tokens),
        strings_same=agreement.num_strings_same,
        strings=agreement.num_strings,
        difference=agreement.largest_logit_difference,
        prompts_same=agreement.num_prompts_same,
        prompts=agreement.num_prompts,
        answers_same=agreement.num_answers_same,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
