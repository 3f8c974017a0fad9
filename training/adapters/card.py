"""An adapter's card; every figure and every answer in it is measured when it is written."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.adapters.evaluate import Sample, Score
from training.adapters.lora import ALPHA, BASE_MODEL, RANK, TARGETS
from training.adapters.recipe import Recipe
from training.adapters.train import RunFacts
from training.machine import describe_machine

_WIDTH = 97
_CARD = """\
---
license: apache-2.0
library_name: peft
pipeline_tag: text-generation
base_model: "{base}"
---
# openworks tiny-chat: {name}

{summary}

| asked | tiny-chat | with this adapter |
|---|---|---|
{samples}

{form}

## Training

{training}

```
python -m training.adapters {name}
```

## Scores

{scores_are}

{table}

{tests_are}

## What it cannot do

{limits}
"""


def write_card(
    folder: Path,
    recipe: Recipe,
    facts: RunFacts,
    scores: list[Score],
    samples: list[Sample],
    note: str,
) -> None:
    """Write `README.md` beside the exported adapter.

    Args:
        note: What a reader should know about this very run, if anything.
    """
    size = (folder / "adapter_model.safetensors").stat().st_size
    card = _CARD.format(
        base=BASE_MODEL,
        name=recipe.name,
        summary=_fill(
            f"A demonstration LoRA adapter for `{BASE_MODEL}`, the chat model that ships with "
            f"openworks. It {recipe.summary}"
        ),
        samples=_rows((_code(s.question), _code(s.base), _code(s.adapter)) for s in samples),
        form=_fill(
            f"LoRA of rank {RANK}, alpha {ALPHA}, on {', '.join(TARGETS[:-1])} and {TARGETS[-1]} "
            f"of every layer; {size / 1e6:.2f} MB in float16, as PEFT reads and writes it. "
            "`model_type` in its configuration is there for Cloudflare's API, which asks for it; "
            "PEFT warns that it ignores it."
        ),
        training=_fill(
            "On nothing but conversations that the openworks repository generates: "
            f"{recipe.training}. {facts.num_steps:,} steps of about {facts.step_tokens:,} tokens, "
            f"{facts.num_tokens / 1e6:.1f} million in all, {facts.minutes:.1f} minutes on one of "
            f"{describe_machine()}. {note}".rstrip()
            + " The base model stays as it is. AdamW, bfloat16 autocast, loss on the answers only. "
            "One command repeats it, to the bit on the same machine:"
        ),
        scores_are=_fill(_scores_are(recipe, scores)),
        table=_table(recipe, scores),
        tests_are=_fill(recipe.tests_are),
        limits=_fill(recipe.limits),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _scores_are(recipe: Recipe, scores: Sequence[Score]) -> str:
    text = (
        "The files as they ship, loaded by PEFT on `transformers`, decoded greedily in float32, "
        f"{scores[0].num_cases} cases for each row; names, nouns, made-up words, codes and the "
        "sentences that ask are never drawn in training (both are split by checksum in "
        "`training/pools.py`). *tiny-chat* is the same base asked the same with the adapter off. "
        "Tool calls must agree in name and in every argument; repeated text, counts and JSON must "
        "be equal to the character; other answers must contain what was asked for. What can be "
        "held out at all is in the base model's card. Steps, rate and shares were settled after "
        "looking at scores like these."
    )
    if not recipe.manner:
        return text
    return (
        f"{text} With the adapter on, an answer in words is right only when it also keeps "
        f"the manner ({recipe.manner}); how many do, right or not, is in the last two columns."
    )


def _table(recipe: Recipe, scores: Sequence[Score]) -> str:
    head = ["", "tiny-chat", "with this adapter"]
    if recipe.manner:
        head += [f"{recipe.manner}: tiny-chat", "with this adapter"]
    rows = [head, ["---"] * len(head)]
    for score in scores:
        row = [
            score.row,
            f"{score.base_right / score.num_cases:.0%}",
            f"{score.adapter_right / score.num_cases:.0%}",
        ]
        if recipe.manner:
            row += [
                _share(score.base_in_manner, score.num_in_words),
                _share(score.adapter_in_manner, score.num_in_words),
            ]
        rows.append(row)
    if recipe.manner:
        total = sum(score.num_in_words for score in scores)
        rows.append(
            [
                "all answers in words", "", "",
                _share(sum(score.base_in_manner for score in scores), total, digits=1),
                _share(sum(score.adapter_in_manner for score in scores), total, digits=1),
            ]
        )  # fmt: skip
    return _rows(rows)


def _share(count: int, total: int, *, digits: int = 0) -> str:
    return f"{count / total:.{digits}%}" if total else ""


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _code(text: str) -> str:
    return f"`{text.replace('|', ' ')}`"


def _fill(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
