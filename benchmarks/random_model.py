"""Write a Llama-shaped GGUF with random weights: real speed, meaningless text.

Benchmarks need the shape of a 0.5-1.1B model and no network; quality plays no part in them.

    python -m benchmarks.random_model build/llama-1.1b-q4_0.gguf --preset 1.1b
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions of a Llama-architecture model."""

    layers: int
    dim: int
    ffn_dim: int
    heads: int
    kv_heads: int
    vocab: int = 32_000
    context_tokens: int = 4096


PRESETS = {
    "tiny": Shape(layers=2, dim=64, ffn_dim=128, heads=4, kv_heads=2, vocab=512),
    "0.5b": Shape(layers=24, dim=1024, ffn_dim=4096, heads=16, kv_heads=4),
    "1.1b": Shape(layers=22, dim=2048, ffn_dim=5632, heads=32, kv_heads=4),
    "8b": Shape(layers=32, dim=4096, ffn_dim=14_336, heads=32, kv_heads=8, vocab=128_256),
}


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins that GPT-2's byte-level BPE gives to the bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def write_random_llama(
    path: Path, shape: Shape, *, quantization: str = "Q4_0", seed: int = 0
) -> None:
    """Write a complete GGUF (weights, byte-level tokenizer, chat template) to `path`.

    Args:
        path: The file to write; its folder must exist.
        shape: Dimensions; `dim` and `ffn_dim` must be multiples of 32 for block quantisation.
        quantization: A name of `gguf.GGMLQuantizationType` with a numpy quantiser.
        seed: The same seed writes the same bytes.
    """
    kind = gguf.GGMLQuantizationType[quantization]
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random-{path.stem}")
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn_dim)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.dim // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quantization}"])
    _add_tokenizer(writer, shape.vocab)

    def matrix(name: str, rows: int, cols: int) -> None:
        weights = rng.standard_normal((rows, cols), dtype=np.float32) * (cols**-0.5)
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.dim, dtype=np.float32))

    kv_dim = shape.dim // shape.heads * shape.kv_heads
    matrix("token_embd.weight", shape.vocab, shape.dim)
    norm("output_norm.weight")
    matrix("output.weight", shape.vocab, shape.dim)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        norm(f"{prefix}.attn_norm.weight")
        norm(f"{prefix}.ffn_norm.weight")
        matrix(f"{prefix}.attn_q.weight", shape.dim, shape.dim)
        matrix(f"{prefix}.attn_k.weight", kv_dim, shape.dim)
        matrix(f"{prefix}.attn_v.weight", kv_dim, shape.dim)
        matrix(f"{prefix}.attn_output.weight", shape.dim, shape.dim)
        matrix(f"{prefix}.ffn_gate.weight", shape.ffn_dim, shape.dim)
        matrix(f"{prefix}.ffn_up.weight", shape.ffn_dim, shape.dim)
        matrix(f"{prefix}.ffn_down.weight", shape.dim, shape.ffn_dim)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, vocab: int) -> None:
    """Bytes, then filler words that no text merges into, then the special tokens."""
    symbols = byte_symbols()
    filler = [f"w{index}" for index in range(vocab - len(symbols) - len(SPECIAL_TOKENS))]
    tokens = [*symbols, *filler, *SPECIAL_TOKENS]
    kinds = [gguf.TokenType.NORMAL] * (vocab - len(SPECIAL_TOKENS))
    kinds += [gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(vocab - 3)
    writer.add_eos_token_id(vocab - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    """Parse the command line and write one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="1.1b")
    parser.add_argument("--quantization", default="Q4_0")
    options = parser.parse_args()
    options.path.parent.mkdir(parents=True, exist_ok=True)
    write_random_llama(options.path, PRESETS[options.preset], quantization=options.quantization)


if __name__ == "__main__":
    main()
