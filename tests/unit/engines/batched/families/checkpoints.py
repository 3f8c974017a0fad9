"""Tiny random checkpoints of every family, made by `transformers`, with its logits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB = 97
PROMPT = [(7 * position * position + 3) % VOCAB for position in range(20)]

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
_LONG_FACTORS = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A model to be made: the name of its configuration's class, and what differs in it."""

    config: str
    fields: dict[str, Any] = field(default_factory=dict)


SAMPLES = {
    "llama": Sample(config="LlamaConfig"),
    "llama-tied-multi-head": Sample(
        config="LlamaConfig", fields={"tie_word_embeddings": True, "num_key_value_heads": 4}
    ),
    "llama-with-biases": Sample(
        config="LlamaConfig", fields={"attention_bias": True, "mlp_bias": True, "head_dim": 16}
    ),
    "llama-3.1": Sample(config="LlamaConfig", fields={"rope_parameters": _LLAMA3_ROPE}),
    "llama-linear": Sample(
        config="LlamaConfig",
        fields={"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama-dynamic": Sample(
        config="LlamaConfig",
        fields={"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama-yarn": Sample(config="LlamaConfig", fields={"rope_parameters": _YARN_ROPE}),
    "mistral-sliding": Sample(config="MistralConfig", fields={"sliding_window": 6}),
    "mistral-full": Sample(config="MistralConfig", fields={"sliding_window": None}),
    "qwen2": Sample(config="Qwen2Config", fields={"tie_word_embeddings": True}),
    "qwen2-sliding": Sample(
        config="Qwen2Config",
        fields={"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": Sample(config="Qwen3Config", fields={"head_dim": 20}),
    "gemma": Sample(config="GemmaConfig", fields={"head_dim": 16}),
    "gemma2": Sample(
        config="Gemma2Config",
        fields={"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24},
    ),
    "gemma3": Sample(
        config="Gemma3TextConfig",
        fields={
            "head_dim": 16,
            "sliding_window": 6,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 24,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": Sample(config="Phi3Config", fields={"sliding_window": 6}),
    "phi3-longrope-short": Sample(
        config="Phi3Config",
        fields={
            "original_max_position_embeddings": 64,
            "max_position_embeddings": 128,
            "rope_parameters": {**_LONG_FACTORS, "partial_rotary_factor": 0.67},
        },
    ),
    "phi3-longrope-long": Sample(
        config="Phi3Config",
        fields={
            "original_max_position_embeddings": 16,
            "rope_parameters": {**_LONG_FACTORS, "partial_rotary_factor": 0.67},
        },
    ),
    "gpt-oss": Sample(
        config="GptOssConfig",
        fields={
            "head_dim": 16,
            "sliding_window": 6,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "rope_parameters": {**_YARN_ROPE, "truncate": False, "rope_theta": 150_000.0},
        },
    ),
}


def save_random(name: str, folder: Path, **changes: Any) -> Any:
    """Save a sample with weights that are nowhere zero or one; returns the model."""
    sample = SAMPLES[name]
    config = getattr(transformers, sample.config)(**{**_SHAPE, **sample.fields, **changes})
    torch.manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.eval().save_pretrained(folder)
    return model
