"""Contrastive training: of all passages in a batch, a text must find its own."""

import json
import logging
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertModel

from training.embed.paraphrases import Pair, draw_other_pair, draw_pair
from training.embed.tokenizer import VOCABULARY_SIZE
from training.pools import World

log = logging.getLogger(__name__)
MAX_POSITIONS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedConfig:
    """What a run does."""

    minutes: float = 15.0
    seed: int = 2
    batch_size: int = 160
    rate: float = 1.5e-3
    temperature: float = 0.05
    other_share: float = 0.3
    max_length: int = 160
    threads: int = 2
    checkpoint_every_s: float = 120.0


def bert_config() -> BertConfig:
    """The sizes of the network."""
    return BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=MAX_POSITIONS,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def embed(model: BertModel, tokenizer: Tokenizer, texts: list[str], max_length: int) -> Tensor:
    """Mean of the last layer over the tokens, of length one; [num_texts, hidden_size]."""
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=0)
    encoded = tokenizer.encode_batch(texts)
    ids = torch.tensor([one.ids for one in encoded])
    mask = torch.tensor([one.attention_mask for one in encoded])
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    weights = mask.unsqueeze(-1).float()
    return functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


class EmbedRun:
    """Model, optimiser and clock of one run."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, config: EmbedConfig) -> None:
        """Start afresh, or from the checkpoint in `folder` if there is one."""
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        self.config = config
        self.tokenizer = tokenizer
        self.checkpoint_path = folder / "checkpoint.pt"
        self.model = BertModel(bert_config(), add_pooling_layer=False)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.step_index = 0
        self.num_pairs = 0
        self.trained_s = 0.0
        if self.checkpoint_path.exists():
            state = torch.load(self.checkpoint_path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step_index, self.num_pairs = state["step_index"], state["num_pairs"]
            self.trained_s = state["trained_s"]

    def save(self) -> None:
        """Write a checkpoint; the old one stays until the new one is whole."""
        partial = self.checkpoint_path.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step_index": self.step_index,
            "num_pairs": self.num_pairs,
            "trained_s": self.trained_s,
        }
        torch.save(state, partial)
        partial.replace(self.checkpoint_path)
        facts = {
            "steps": self.step_index,
            "pairs": self.num_pairs,
            "minutes": round(self.trained_s / 60, 1),
            "config": asdict(self.config),
        }
        self.checkpoint_path.with_suffix(".json").write_text(json.dumps(facts, indent=1))

    def train(self) -> None:
        """Go on until the configured minutes are spent."""
        last_saved_s = self.trained_s
        while self.trained_s < self.config.minutes * 60:
            started = time.perf_counter()
            loss = self._step(self.trained_s / (self.config.minutes * 60))
            self.trained_s += time.perf_counter() - started
            if self.step_index % 50 == 0:
                log.info("step %d, %.1f min, loss %.4f", self.step_index, self.trained_s / 60, loss)
            if self.trained_s - last_saved_s > self.config.checkpoint_every_s:
                self.save()
                last_saved_s = self.trained_s
        self.save()

    def _pairs(self) -> list[Pair]:
        rng = random.Random(self.config.seed * 1_000_003 + self.step_index)
        world = World(rng)
        return [
            draw_other_pair(world) if world.chance(self.config.other_share) else draw_pair(world)
            for _ in range(self.config.batch_size)
        ]

    def _step(self, progress: float) -> float:
        config = self.config
        pairs = self._pairs()
        with torch.autocast("cpu", torch.bfloat16):
            queries, passages = (
                embed(self.model, self.tokenizer, texts, config.max_length)
                for texts in ([pair.query for pair in pairs], [pair.passage for pair in pairs])
            )
        similarity = queries.float() @ passages.float().T / config.temperature
        own = torch.arange(len(pairs))
        loss = functional.cross_entropy(similarity, own) + functional.cross_entropy(
            similarity.T, own
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        rate = config.rate * min(1.0, progress / 0.03) * min(1.0, (1 - progress) / 0.6)
        for group in self.optimiser.param_groups:
            group["lr"] = max(rate, 1e-6)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step_index += 1
        self.num_pairs += len(pairs)
        return loss.item() / 2
