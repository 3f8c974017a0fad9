"""Writes the encoder as safetensors in the sentence-transformers layout, and as GGUF."""

from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig

from training.embed.tokenizer import SPECIAL_TOKENS
from training.folders import write_json


def export_model(
    weights: dict[str, Tensor], config: BertConfig, tokenizer: Tokenizer, folder: Path
) -> None:
    """Write everything but the card into `folder`."""
    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
    halves.pop("embeddings.position_ids", None)
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # save_file makes it private
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_configs(config, folder)
    _write_gguf(halves, config, tokenizer, folder / "model.gguf")


def _write_configs(config: BertConfig, folder: Path) -> None:
    write_json(
        folder / "config.json",
        {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "intermediate_size": config.intermediate_size,
            "max_position_embeddings": config.max_position_embeddings,
            "hidden_act": "gelu",
            "layer_norm_eps": config.layer_norm_eps,
            "type_vocab_size": config.type_vocab_size,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "pad_token_id": 0,
            "torch_dtype": "float16",
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
            "model_max_length": config.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
        },
    )
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True},
    )
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
        {
            "idx": 2,
            "name": "2",
            "path": "2_Normalize",
            "type": "sentence_transformers.models.Normalize",
        },
    ]
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": config.max_position_embeddings, "do_lower_case": False},
    )


_GGUF_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def _write_gguf(
    weights: dict[str, Tensor], config: BertConfig, tokenizer: Tokenizer, path: Path
) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("openworks tiny-embed")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, config, tokenizer)
    for name, tensor in weights.items():
        stem, kind = name.rsplit(".", 1)
        prefix = ""
        if stem.startswith("encoder.layer."):
            _, _, layer, stem = stem.split(".", 3)
            prefix = f"blk.{layer}."
        # llama.cpp adds positions, token types, norms and biases in full precision.
        is_matrix = tensor.ndim == 2 and not stem.startswith(("embeddings.pos", "embeddings.token"))
        array = tensor.numpy() if is_matrix else tensor.float().numpy()
        writer.add_tensor(f"{prefix}{_GGUF_NAMES[stem]}.{kind}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, config: BertConfig, tokenizer: Tokenizer) -> None:
    texts = [tokenizer.id_to_token(index) or "" for index in range(config.vocab_size)]
    kinds = [
        gguf.TokenType.CONTROL if text in SPECIAL_TOKENS else gguf.TokenType.NORMAL
        for text in texts
    ]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_as_llama_cpp_has_it(text) for text in texts])
    writer.add_token_types(kinds)
    writer.add_token_type_count(config.type_vocab_size)
    writer.add_bos_token_id(texts.index("[CLS]"))
    writer.add_eos_token_id(texts.index("[SEP]"))
    writer.add_sep_token_id(texts.index("[SEP]"))
    writer.add_pad_token_id(texts.index("[PAD]"))
    writer.add_unk_token_id(texts.index("[UNK]"))
    writer.add_mask_token_id(texts.index("[MASK]"))


def _as_llama_cpp_has_it(text: str) -> str:
    """It marks the piece that starts a word, where BERT marks the ones that do not."""
    if text in SPECIAL_TOKENS:
        return text
    return text[2:] if text.startswith("##") else f"\u2581{text}"
