"""The training run: first copying, then tasks, then tasks in long contexts; resumable."""

import json
import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from training.chat.batches import CaseSource, to_batches
from training.chat.model import Llama, LlamaShape

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What a run does; the figures of the shipped model are in its card."""

    minutes: float = 90.0
    """How long to train; the schedule follows the clock, so any machine finishes in time."""
    seed: int = 1
    step_tokens: int = 4096
    batches_per_step: int = 4
    matrix_rate: float = 0.012
    other_rate: float = 2e-3
    copy_phase: float = 0.08
    """The share of the run that teaches nothing but copying."""
    copy_share: float = 0.18
    long_phase: float = 0.2
    """After this share of the run, some cases are long, and ever longer."""
    long_share: float = 0.02
    max_length: int = 2048
    threads: int = 2
    compile: bool = True
    checkpoint_every_s: float = 180.0


def plan_at(config: TrainConfig, progress: float) -> Callable[[random.Random], str]:
    """What kind of sequence to draw at this point of the run."""

    def draw(rng: random.Random) -> str:
        if progress < config.copy_phase:
            return "copy"
        roll = rng.random()
        if roll < config.copy_share * (1 - 0.7 * progress):
            return "copy"
        is_long = progress >= config.long_phase and roll > 1 - config.long_share
        return "long" if is_long else "task"

    return draw


def rate_at(progress: float) -> float:
    """Short warm-up, level for a fifth of the run, then down to nothing."""
    return min(1.0, progress / 0.01) * min(1.0, max(0.0, 1 - progress) / 0.8)


class Run:
    """Model, optimisers and clock of one training run."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, config: TrainConfig) -> None:
        """Start afresh, or from the checkpoint in `folder` if there is one."""
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        self.config = config
        self.checkpoint_path = folder / "checkpoint.pt"
        self.model = Llama(LlamaShape())
        matrices = [p for p in self.model.layers.parameters() if p.ndim == 2]
        known = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in known]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=config.matrix_rate, weight_decay=0.01, momentum=0.95,
                adjust_lr_fn="original",
            ),
            torch.optim.AdamW(others, lr=config.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]  # fmt: skip
        self.base_rates = [config.matrix_rate, config.other_rate]
        self.source = CaseSource(tokenizer, config.seed, config.max_length)
        self.step_index = 0
        self.num_tokens = 0
        self.trained_s = 0.0
        self.num_starts = 1
        if self.checkpoint_path.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.checkpoint_path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step_index, self.num_tokens = state["step_index"], state["num_tokens"]
        self.trained_s = state["trained_s"]
        self.num_starts = state.get("num_starts", 1) + 1
        log.info("resumed at step %d", self.step_index)

    def save(self) -> None:
        """Write a checkpoint; the old one stays until the new one is whole."""
        partial = self.checkpoint_path.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "step_index": self.step_index,
                "num_tokens": self.num_tokens,
                "trained_s": self.trained_s,
                "num_starts": self.num_starts,
            },
            partial,
        )
        partial.replace(self.checkpoint_path)
        facts = {
            "steps": self.step_index,
            "tokens": self.num_tokens,
            "minutes": round(self.trained_s / 60, 1),
            "starts": self.num_starts,
            "config": asdict(self.config),
        }
        self.checkpoint_path.with_suffix(".json").write_text(json.dumps(facts, indent=1))

    def train(self) -> None:
        """Go on until the configured minutes are spent."""
        compute: Callable[[Tensor, Tensor], Tensor] | nn.Module = self.model
        if self.config.compile:
            compute = torch.compile(self.model, dynamic=True)
        last_saved_s = self.trained_s
        while self.trained_s < self.config.minutes * 60:
            started = time.perf_counter()
            loss = self._step(compute, self.trained_s / (self.config.minutes * 60))
            self.trained_s += time.perf_counter() - started
            if self.step_index % 20 == 0:
                log.info(
                    "step %d, %.2f M tokens, %.1f min, loss %.4f",
                    self.step_index, self.num_tokens / 1e6, self.trained_s / 60, loss,
                )  # fmt: skip
            if self.trained_s - last_saved_s > self.config.checkpoint_every_s:
                self.save()
                last_saved_s = self.trained_s
        self.save()

    def _step(self, compute: Callable[[Tensor, Tensor], Tensor], progress: float) -> float:
        config = self.config
        plan = plan_at(config, progress)
        sequences = self.source.step(self.step_index, config.step_tokens, plan, progress)
        batches = to_batches(sequences, config.batches_per_step)
        weight = sum(float(batch.weights.sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16):
                logits = compute(batch.ids, batch.positions)
            losses = functional.cross_entropy(logits.float(), batch.targets, reduction="none")
            loss = (losses * batch.weights).sum() / weight
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            total += loss.item()
            self.num_tokens += batch.num_tokens
        for optimiser, base in zip(self.optimisers, self.base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate_at(progress)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.step_index += 1
        if not math.isfinite(total):
            raise FloatingPointError(f"The loss of step {self.step_index} is not finite.")
        return total
