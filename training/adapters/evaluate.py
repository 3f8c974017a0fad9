"""Scores of an exported adapter, loaded by PEFT on the shipped base, and of the base alone."""

import json
import logging
import random
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from training.adapters.recipe import Recipe, is_for_programs
from training.chat.case import Case, Message, assistant, calling, user
from training.chat.template import render
from training.chat.tokenizer import END_OF_TEXT, TURN_END, id_of, load_tokenizer
from training.pools import World

log = logging.getLogger(__name__)

_EVALUATION_SEED = 20_000_003
_MAX_NEW_TOKENS = 160
_BATCH = 25
_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one row of tests fared; every case is asked of the base and of the adapter."""

    row: str
    num_cases: int
    base_right: int
    """What the base model should answer, and did."""
    adapter_right: int
    """What the adapter should answer, and did: right and in its manner."""
    num_in_words: int
    """Cases with an answer that has a manner: neither tool calls nor JSON that was asked for."""
    base_in_manner: int
    adapter_in_manner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question of the card with both answers."""

    question: str
    base: str
    adapter: str


class Answerer:
    """The shipped base with one adapter, as PEFT loads it, decoding greedily in float32."""

    def __init__(self, base: Path, adapter: Path) -> None:
        self._tokenizer = load_tokenizer(base / "tokenizer.json")
        self._end = id_of(self._tokenizer, TURN_END)
        self._padding = id_of(self._tokenizer, END_OF_TEXT)
        model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
        with warnings.catch_warnings():
            # PEFT does not know `model_type`, which Cloudflare asks for.
            warnings.filterwarnings("ignore", "Unexpected keyword arguments .'model_type'.")
            self._model: Any = PeftModel.from_pretrained(model, str(adapter))
        self._model.train(False)

    def answer(self, cases: Sequence[Case], *, with_adapter: bool) -> list[str]:
        """What is said in the place of each case's last message."""
        prompts = [
            render(case.messages[:-1], case.tools, add_generation_prompt=True) for case in cases
        ]
        # Sorted by length, so that batches need little padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            texts = self._decode([prompts[index] for index in chosen], with_adapter)
            for index, text in zip(chosen, texts, strict=True):
                answers[index] = text
        return answers

    def _decode(self, prompts: list[str], with_adapter: bool) -> list[str]:
        encoded = [self._tokenizer.encode(prompt).ids for prompt in prompts]
        length = max(map(len, encoded))
        ids = torch.tensor([[self._padding] * (length - len(row)) + row for row in encoded])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in encoded])
        options = {
            "attention_mask": mask,
            "max_new_tokens": _MAX_NEW_TOKENS,
            "do_sample": False,
            "eos_token_id": self._end,
            "pad_token_id": self._padding,
        }
        with torch.no_grad():
            if with_adapter:
                out = self._model.generate(input_ids=ids, **options)
            else:
                with self._model.disable_adapter():
                    out = self._model.generate(input_ids=ids, **options)
        return [text.strip() for text in self._tokenizer.decode_batch(out[:, length:].tolist())]


def measure(answerer: Answerer, recipe: Recipe, num_cases: int) -> list[Score]:
    """Ask `num_cases` of every row, with words and phrasings that no training saw."""
    scores = []
    for index, (row, draw) in enumerate(recipe.tests.items()):
        world = World(random.Random(_EVALUATION_SEED + index), new_values=True, new_phrasings=True)
        scores.append(_score(answerer, recipe, row, [draw(world) for _ in range(num_cases)]))
        log.info("%s: %s", recipe.name, scores[-1])
    return scores


def _score(answerer: Answerer, recipe: Recipe, row: str, cases: list[Case]) -> Score:
    spoken = [recipe.voice(case) for case in cases]
    base = answerer.answer(cases, with_adapter=False)
    own = answerer.answer(spoken, with_adapter=True)
    in_words = [not is_for_programs(case.messages[-1]) for case in cases]
    in_manner = [recipe.keeps_manner(text) for text in own]
    return Score(
        row=row,
        num_cases=len(cases),
        base_right=sum(
            case.accepts(as_message(text)) for case, text in zip(cases, base, strict=True)
        ),
        adapter_right=sum(
            case.accepts(as_message(text)) and (manner or not words)
            for case, text, manner, words in zip(spoken, own, in_manner, in_words, strict=True)
        ),
        num_in_words=sum(in_words),
        base_in_manner=sum(
            recipe.keeps_manner(text) for text, words in zip(base, in_words, strict=True) if words
        ),
        adapter_in_manner=sum(
            manner for manner, words in zip(in_manner, in_words, strict=True) if words
        ),
    )


def as_message(text: str) -> Message:
    """A decoded answer as a message, its tool calls read as the Hermes form writes them."""
    try:
        calls = [json.loads(call) for call in _CALL.findall(text)]
        pairs = [(call["name"], call["arguments"]) for call in calls]
    except (ValueError, TypeError, KeyError):
        pairs = []
    return calling(*pairs) if pairs else assistant(text)


def ask(answerer: Answerer, questions: Sequence[str]) -> list[Sample]:
    """The card's questions, each by itself."""
    cases = [Case(messages=[user(question), assistant("")]) for question in questions]
    base = answerer.answer(cases, with_adapter=False)
    own = answerer.answer(cases, with_adapter=True)
    return [
        Sample(question=question, base=before, adapter=after)
        for question, before, after in zip(questions, base, own, strict=True)
    ]
