"""Writes the trained model in the formats that real models use: safetensors and GGUF."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from training.chat.model import LlamaShape
from training.chat.template import CHAT_TEMPLATE
from training.chat.tokenizer import CONTROL_TOKENS, END_OF_TEXT, TURN_END, VISIBLE_TOKENS, id_of
from training.folders import write_json

Weights = dict[str, Tensor]


def export_model(weights: Weights, shape: LlamaShape, tokenizer: Tokenizer, folder: Path) -> None:
    """Write everything but the card into `folder`."""
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # save_file makes it private
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_configs(shape, tokenizer, folder)
    _write_gguf(weights, shape, tokenizer, folder / "model.gguf")


def _write_configs(shape: LlamaShape, tokenizer: Tokenizer, folder: Path) -> None:
    end, padding = id_of(tokenizer, TURN_END), id_of(tokenizer, END_OF_TEXT)
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": shape.vocabulary_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_heads,
            "head_dim": shape.head_size,
            "hidden_act": "silu",
            "max_position_embeddings": shape.max_positions,
            "rms_norm_eps": shape.norm_epsilon,
            "rope_theta": shape.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": padding,
            "torch_dtype": "bfloat16",
        },
    )
    write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": end, "pad_token_id": padding},
    )
    added: dict[str, Any] = {
        str(id_of(tokenizer, text)): {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": text in CONTROL_TOKENS,
        }
        for text in (*CONTROL_TOKENS, *VISIBLE_TOKENS)
    }
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": added,
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.max_positions,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def _write_gguf(weights: Weights, shape: LlamaShape, tokenizer: Tokenizer, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("openworks tiny-chat")
    writer.add_context_length(shape.max_positions)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_heads)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _add_tokenizer(writer, shape, tokenizer)
    for name, tensor in weights.items():
        _add_tensor(writer, shape, name, tensor.float())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, shape: LlamaShape, tokenizer: Tokenizer) -> None:
    texts = [tokenizer.id_to_token(index) or "" for index in range(shape.vocabulary_size)]
    kinds = dict.fromkeys(CONTROL_TOKENS, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(VISIBLE_TOKENS, gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(texts)
    writer.add_token_types([kinds.get(text, gguf.TokenType.NORMAL) for text in texts])
    writer.add_token_merges(_merges(tokenizer))
    writer.add_bos_token_id(id_of(tokenizer, END_OF_TEXT))
    writer.add_eos_token_id(id_of(tokenizer, TURN_END))
    writer.add_eot_token_id(id_of(tokenizer, TURN_END))
    writer.add_pad_token_id(id_of(tokenizer, END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    # A model this small has one good answer: without a temperature in the request, take it.
    writer.add_sampling_temp(0.0)


def _merges(tokenizer: Tokenizer) -> list[str]:
    model = json.loads(tokenizer.to_str())["model"]
    return [" ".join(pair) for pair in model["merges"]]


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
}


def _add_tensor(writer: gguf.GGUFWriter, shape: LlamaShape, name: str, tensor: Tensor) -> None:
    stem = name.removesuffix(".weight")
    prefix = ""
    if stem.startswith("layers."):
        _, layer, stem = stem.split(".", 2)
        prefix = f"blk.{layer}."
    if stem in {"self_attn.q_proj", "self_attn.k_proj"}:
        tensor = _interleave_heads(tensor, shape.num_heads)
    array = np.ascontiguousarray(tensor.numpy())
    target = f"{prefix}{_GGUF_NAMES[stem]}.weight"
    if array.ndim == 2:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(target, gguf.quants.quantize(array, kind), raw_dtype=kind)
    else:
        writer.add_tensor(target, array)


def _interleave_heads(weight: Tensor, num_heads: int) -> Tensor:
    """llama.cpp rotates neighbouring channels where `transformers` rotates the two halves."""
    rows, columns = weight.shape
    halves = weight.view(num_heads, 2, rows // num_heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)
