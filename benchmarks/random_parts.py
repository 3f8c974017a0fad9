"""Random models beside the chat model: a reranker, and eyes for a chat model that has none.

Tests use them for mechanics: the scores and the descriptions mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

DIM = 32
LAYERS = 2
HEADS = 4
FFN_DIM = 64
IMAGE_SIZE = 32
PATCH_SIZE = 16


class _Tensors:
    """Writes random tensors under names."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._rng = np.random.default_rng(seed)

    def matrix(self, name: str, *shape: int) -> None:
        """A weight and its bias."""
        self.weight(f"{name}.weight", *shape)
        self.weight(f"{name}.bias", shape[0])

    def norm(self, name: str, width: int = DIM) -> None:
        """A normalisation that changes nothing."""
        self._writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
        self._writer.add_tensor(f"{name}.bias", np.zeros(width, dtype=np.float32))

    def weight(self, name: str, *shape: int) -> None:
        """One tensor."""
        values = self._rng.standard_normal(shape, dtype=np.float32) * 0.2
        self._writer.add_tensor(name, values)


def write_random_reranker(path: Path, *, context_tokens: int = 256, seed: int = 0) -> None:
    """Write a BERT cross-encoder with a classification head of one class, in GGUF."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("random reranker")
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN_DIM)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words += [f"\u2581{letter}" for letter in letters] + letters
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * 52)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    tensors = _Tensors(writer, seed)
    tensors.weight("token_embd.weight", len(words), DIM)
    tensors.weight("position_embd.weight", context_tokens, DIM)
    tensors.weight("token_types.weight", 2, DIM)
    tensors.norm("token_embd_norm")
    for layer in range(LAYERS):
        prefix = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors.matrix(f"{prefix}.{name}", DIM, DIM)
        tensors.norm(f"{prefix}.attn_output_norm")
        tensors.matrix(f"{prefix}.ffn_up", FFN_DIM, DIM)
        tensors.matrix(f"{prefix}.ffn_down", DIM, FFN_DIM)
        tensors.norm(f"{prefix}.layer_output_norm")
    tensors.matrix("cls", DIM, DIM)
    tensors.matrix("cls.output", 1, DIM)
    _finish(writer)


def write_random_eyes(path: Path, *, text_dim: int, seed: int = 0) -> None:
    """Write a LLaVA-style vision projector (`mmproj`) for a chat model of width `text_dim`."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("random eyes")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    writer.add_uint32("clip.vision.image_size", IMAGE_SIZE)
    writer.add_uint32("clip.vision.patch_size", PATCH_SIZE)
    writer.add_uint32("clip.vision.embedding_length", DIM)
    writer.add_uint32("clip.vision.feed_forward_length", FFN_DIM)
    writer.add_uint32("clip.vision.projection_dim", text_dim)
    writer.add_uint32("clip.vision.block_count", LAYERS)
    writer.add_uint32("clip.vision.attention.head_count", HEADS)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    tensors = _Tensors(writer, seed)
    patches = (IMAGE_SIZE // PATCH_SIZE) ** 2
    tensors.weight("v.class_embd", DIM)
    tensors.weight("v.patch_embd.weight", DIM, 3, PATCH_SIZE, PATCH_SIZE)
    tensors.weight("v.position_embd.weight", patches + 1, DIM)
    tensors.norm("v.pre_ln")
    for layer in range(LAYERS):
        prefix = f"v.blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors.matrix(f"{prefix}.{name}", DIM, DIM)
        tensors.norm(f"{prefix}.ln1")
        tensors.norm(f"{prefix}.ln2")
        tensors.matrix(f"{prefix}.ffn_down", DIM, FFN_DIM)
        tensors.matrix(f"{prefix}.ffn_up", FFN_DIM, DIM)
    tensors.matrix("mm.0", text_dim, DIM)
    tensors.matrix("mm.2", text_dim, text_dim)
    _finish(writer)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
