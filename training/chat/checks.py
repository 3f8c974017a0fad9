"""Do the exports agree: our module, `transformers` and llama.cpp; and both tokenizers."""

# ruff: noqa: RUF001  # strings in scripts whose letters look alike

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

from training.chat.evaluate import as_sent
from training.chat.mixture import draw_mixed
from training.chat.model import Llama, LlamaShape
from training.chat.template import render
from training.chat.tokenizer import load_tokenizer
from training.pools import World
from training.server import LocalServer
from training.words import anything

_CHARACTERS = (
    "abcxyzABCXYZ0123456789 .,;:!?'\"(){}[]<>/\\|@#$%^&*-_=+~`\n\täöüßéèñçåøłőşğабвгджзийклмн"
    "中文字符日本語こんにちは한국어العربيةहिन्दीไทยελληνικά🙂🚀👍🏽€£¥½²³™…–—“”\u00a0\u200b\u3000"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What the card says about the two formats."""

    num_strings: int
    num_strings_same: int
    """Random strings that `tokenizers` and llama.cpp cut alike."""
    largest_logit_difference: float
    """Between our module and `transformers`, in float32."""
    num_prompts: int
    num_prompts_same: int
    """Prompts whose length in tokens llama.cpp's template engine makes the same."""
    num_answers_same: int
    """Greedy answers that `transformers` (bfloat16 weights) and llama.cpp (Q8_0) share."""


def check(folder: Path, *, num_strings: int = 2000, num_prompts: int = 40) -> Agreement:
    """Compare the exports in `folder` with each other."""
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.train(False)
    server = LocalServer(folder / "model.gguf")
    rng = random.Random(5)
    strings = [_random_string(rng) for _ in range(num_strings)]
    same = sum(
        tokenizer.encode(text, add_special_tokens=False).ids == server.tokenize(text)
        for text in strings
    )
    prompts, answers = _compare_prompts(folder, model, server, rng, num_prompts)
    return Agreement(
        num_strings=num_strings,
        num_strings_same=same,
        largest_logit_difference=_logit_difference(model, tokenizer),
        num_prompts=num_prompts,
        num_prompts_same=prompts,
        num_answers_same=answers,
    )


def _random_string(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return " ".join(anything(World(rng)) for _ in range(rng.randint(1, 6)))
    return "".join(rng.choice(_CHARACTERS) for _ in range(rng.randint(1, 60)))


def _logit_difference(model: LlamaForCausalLM, tokenizer: Tokenizer) -> float:

    ours = Llama(LlamaShape()).eval()
    weights = {
        name.removeprefix("model."): value
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    ours.load_state_dict(weights)
    text = render([{"role": "user", "content": "Repeat after me: Zarnak has 42 lamps. " * 12}])
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        difference = ours(ids, torch.arange(ids.shape[1])) - model(ids).logits[0]
    return float(difference.abs().max())


def _compare_prompts(
    folder: Path, model: LlamaForCausalLM, server: LocalServer, rng: random.Random, count: int
) -> tuple[int, int]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    same_prompts = same_answers = 0
    for _ in range(count):
        case = draw_mixed(World(rng, new_values=True, new_phrasings=True), 1.0)
        ids = tokenizer.apply_chat_template(
            case.messages[:-1], tools=case.tools or None, add_generation_prompt=True,
            return_tensors="pt", return_dict=False,
        )  # fmt: skip
        body: dict[str, Any] = {"messages": as_sent(case.messages[:-1]), "max_tokens": 60}
        if case.tools:
            body |= {"tools": case.tools, "parallel_tool_calls": True}
        answer = server.chat(body)
        same_prompts += int(answer["usage"]["prompt_tokens"] == ids.shape[1])
        same_answers += int(_greedy(model, tokenizer, ids) == _as_text(answer))
    return same_prompts, same_answers


def _greedy(model: Any, tokenizer: Any, ids: torch.Tensor) -> str:
    with torch.no_grad():
        out = model.generate(ids, max_new_tokens=60, do_sample=False)[0, ids.shape[1] :]
    text: str = tokenizer.decode(out, skip_special_tokens=True)
    return text.strip()


def _as_text(answer: dict[str, Any]) -> str:
    """What the model wrote, put together again from llama.cpp's parsed message."""
    message = {"content": "", **answer["choices"][0]["message"]}
    return render([message]).split("assistant\n", 1)[1].removesuffix("<|im_end|>\n").strip()
