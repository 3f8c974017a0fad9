"""Llama-shaped models as the transformers library stores them: random, or twins of GGUF files.

Benchmarks need the shape of a 1.1B model and no network; tests need one model in both formats.

    python -m benchmarks.hf_folder build/llama-1.1b --preset 1.1b
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.random_model import CHAT_TEMPLATE, PRESETS, SPECIAL_TOKENS, Shape, byte_symbols

_SHARD_BYTES = 512 << 20
_GGUF_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_random_folder(
    folder: Path, shape: Shape, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a complete model (weights, byte-level tokenizer, chat template) to `folder`."""
    filler = [f"w{index}" for index in range(shape.vocab - 256 - len(SPECIAL_TOKENS))]
    tokens = [*byte_symbols(), *filler]
    _write_texts(folder, shape, tokens, SPECIAL_TOKENS, CHAT_TEMPLATE)
    write_weights(folder, _random_tensors(shape, seed, dtype))


def write_twin(path: Path, folder: Path) -> None:
    """Write what a Llama GGUF holds to `folder`: the same weights, tokens and template.

    Weights are float32, dequantised, so that both engines compute with the same numbers.
    """
    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        found = reader.fields.get(name)
        return None if found is None else found.contents()

    heads = int(field("llama.attention.head_count"))
    shape = Shape(
        layers=int(field("llama.block_count")),
        dim=int(field("llama.embedding_length")),
        ffn_dim=int(field("llama.feed_forward_length")),
        heads=heads,
        kv_heads=int(field("llama.attention.head_count_kv")),
        vocab=len(field("tokenizer.ggml.tokens")),
        context_tokens=int(field("llama.context_length")),
    )
    kinds = field("tokenizer.ggml.token_type")
    tokens = field("tokenizer.ggml.tokens")
    special = [text for text, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    plain = [text for text, kind in zip(tokens, kinds, strict=True) if kind != _CONTROL]
    assert tokens == [*plain, *special], "special tokens come last"
    _write_texts(folder, shape, plain, special, field("tokenizer.chat_template"))
    write_weights(folder, _tensors_of(reader, shape))


_CONTROL = gguf.TokenType.CONTROL.value


def write_random_adapter(
    folder: Path,
    shape: Shape,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    seed: int = 0,
    base: str = "",
    strength: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a LoRA over all seven linears of every layer, as PEFT does.

    Args:
        folder: Made when it is not there.
        shape: The base model's.
        rank: Of all pairs.
        alpha: Written to the configuration.
        seed: Other seeds, other adapters.
        base: The base model's name, for the configuration.
        strength: 1 changes what a random model says from its first token on.
        dtype: Of the tensors.
    """
    generator = torch.Generator().manual_seed(seed)
    kv_dim = shape.dim // shape.heads * shape.kv_heads
    sizes = {
        "self_attn.q_proj": (shape.dim, shape.dim),
        "self_attn.k_proj": (kv_dim, shape.dim),
        "self_attn.v_proj": (kv_dim, shape.dim),
        "self_attn.o_proj": (shape.dim, shape.dim),
        "mlp.gate_proj": (shape.ffn_dim, shape.dim),
        "mlp.up_proj": (shape.ffn_dim, shape.dim),
        "mlp.down_proj": (shape.dim, shape.ffn_dim),
    }
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(shape.layers):
        for module, (rows, columns) in sizes.items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            first = torch.randn(rank, columns, generator=generator) * columns**-0.5
            second = torch.randn(rows, rank, generator=generator) * strength * rank**-0.5
            tensors[f"{prefix}.lora_A.weight"] = first.to(dtype)
            tensors[f"{prefix}.lora_B.weight"] = (second / 4).to(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted(module.partition(".")[2] for module in sizes),
            "modules_to_save": None,
            "inference_mode": True,
        },
    )


def write_weights(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Write tensors in shards of about 512 MiB, holding one shard at a time."""
    shard: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}
    size_bytes = 0

    def flush() -> None:
        name = f"model-{len(set(places.values())) + 1:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in tensors:
        shard[name] = tensor.contiguous()
        size_bytes += tensor.nbytes
        if sum(held.nbytes for held in shard.values()) > _SHARD_BYTES:
            flush()
    if shard:
        flush()
    files = sorted(set(places.values()))
    if len(files) == 1:
        (folder / files[0]).rename(folder / "model.safetensors")
        return
    index = {"metadata": {"total_size": size_bytes}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _random_tensors(
    shape: Shape, seed: int, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator).mul_(columns**-0.5).to(dtype)

    kv_dim = shape.dim // shape.heads * shape.kv_heads
    yield "model.embed_tokens.weight", matrix(shape.vocab, shape.dim)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", torch.ones(shape.dim, dtype=dtype)
        yield f"{prefix}.post_attention_layernorm.weight", torch.ones(shape.dim, dtype=dtype)
        yield f"{prefix}.self_attn.q_proj.weight", matrix(shape.dim, shape.dim)
        yield f"{prefix}.self_attn.k_proj.weight", matrix(kv_dim, shape.dim)
        yield f"{prefix}.self_attn.v_proj.weight", matrix(kv_dim, shape.dim)
        yield f"{prefix}.self_attn.o_proj.weight", matrix(shape.dim, shape.dim)
        yield f"{prefix}.mlp.gate_proj.weight", matrix(shape.ffn_dim, shape.dim)
        yield f"{prefix}.mlp.up_proj.weight", matrix(shape.ffn_dim, shape.dim)
        yield f"{prefix}.mlp.down_proj.weight", matrix(shape.dim, shape.ffn_dim)
    yield "model.norm.weight", torch.ones(shape.dim, dtype=dtype)
    yield "lm_head.weight", matrix(shape.vocab, shape.dim)


def _tensors_of(reader: gguf.GGUFReader, shape: Shape) -> Iterator[tuple[str, torch.Tensor]]:
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        stem = tensor.name.removesuffix(".weight")
        if stem.startswith("blk."):
            _, layer, part = stem.split(".")
            if part in {"attn_q", "attn_k"}:
                heads = shape.heads if part == "attn_q" else shape.kv_heads
                values = _halves(values, heads)
            name = f"model.layers.{layer}.{_GGUF_NAMES[part]}.weight"
        else:
            name = f"{_NAMES[stem]}.weight"
        yield name, torch.from_numpy(np.ascontiguousarray(values))


def _halves(weights: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo what converting to GGUF does: llama.cpp turns neighbouring channels, others halves."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    halves: np.ndarray[Any, Any] = pairs.swapaxes(1, 2).reshape(rows, columns)
    return halves


def _write_texts(
    folder: Path, shape: Shape, tokens: Sequence[str], special: Sequence[str], template: str
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    first, end = len(tokens), len(tokens) + len(special) - 1
    _write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": shape.vocab,
            "hidden_size": shape.dim,
            "intermediate_size": shape.ffn_dim,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "hidden_act": "silu",
            "max_position_embeddings": shape.context_tokens,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "bos_token_id": first,
            "eos_token_id": end,
        },
    )
    added = [
        {
            "id": first + index,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, text in enumerate(special)
    ]
    _write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": False,
            },
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": {
                "type": "BPE",
                "vocab": {text: index for index, text in enumerate([*tokens, *special])},
                "merges": [],
            },
        },
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": special[0],
            "eos_token": special[-1],
            "model_max_length": shape.context_tokens,
            "chat_template": template,
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def main() -> None:
    """Parse the command line and write one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="1.1b")
    options = parser.parse_args()
    write_random_folder(options.folder, PRESETS[options.preset])


if __name__ == "__main__":
    main()
