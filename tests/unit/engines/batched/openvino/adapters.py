"""Random adapters for a tiny model, made and computed by PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from openworks.engines.batched.adapter_file import read_adapter  # noqa: E402 # after the skip
from openworks.engines.batched.executor import AdapterWeights  # noqa: E402

ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class PeftOracle:
    """A model under several adapters, by their names."""

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._peft: Any = None

    def add(self, name: str, *, rank: int, modules: Sequence[str] = ALL_LINEARS) -> AdapterWeights:
        """Make an adapter whose two matrices are random, and read it as a user would bring it."""
        config = peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=list(modules), task_type="CAUSAL_LM"
        )
        if self._peft is None:
            with warnings.catch_warnings():
                # PEFT asks transformers for a property by a name that is going away.
                warnings.simplefilter("ignore", FutureWarning)
                self._peft = peft.get_peft_model(self._model, config, adapter_name=name)
        else:
            self._peft.add_adapter(name, config)
        torch.manual_seed(rank + len(name))
        with torch.no_grad():
            for key, weight in self._peft.named_parameters():
                if f".{name}." in key:
                    weight.copy_(torch.randn_like(weight) * 0.2)
        self._peft.save_pretrained(self._folder, selected_adapters=[name])
        return read_adapter(self._folder / name)

    def logits(self, token_ids: Sequence[int], name: str | None) -> Any:
        """Compute float32 [tokens, vocab] under an adapter, or without any."""
        ids = torch.tensor([list(token_ids)])
        with torch.inference_mode():
            if name is None:
                with self._peft.disable_adapter():
                    return self._peft(ids).logits[0]
            self._peft.set_adapter(name)
            return self._peft(ids).logits[0]
