"""A chat model that says its script: weights made by hand, so that each token leads to the next.

The embedding of a token is one-hot, the layer in between adds nothing, and the output matrix maps
each token of the script to its successor. What real models say only by chance (reasoning marks, a
tool call with text around it) such a model says every time, through the real engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

from benchmarks.random_model import byte_symbols

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LAST_OF_PROMPT = "\n"
"""The chat template ends with it; the script begins after it, and must not repeat it alone."""

REASONING_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""


def write_scripted_model(
    path: Path, script: Sequence[str], *, template: str, context_tokens: int = 1024
) -> None:
    """Write a GGUF that answers every conversation with `script`.

    Args:
        path: The file to write.
        script: The pieces of the answer, one token each, all different.
        template: The chat template; what it renders must end with a line break.
        context_tokens: The trained context.
    """
    symbols = byte_symbols()
    printed = ["".join(symbols[byte] for byte in piece.encode()) for piece in script]
    assert len(set(printed)) == len(printed)
    tokens = [*symbols, *(piece for piece in printed if piece not in symbols), *SPECIAL]
    begin = symbols[ord(LAST_OF_PROMPT)]
    path_of_tokens = [begin, *printed, SPECIAL[2]]
    width = (len(tokens) + 31) // 32 * 32

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("scripted")
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    writer.add_token_types([*kinds, *[gguf.TokenType.CONTROL] * len(SPECIAL)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tokens.index(SPECIAL[0]))
    writer.add_eos_token_id(tokens.index(SPECIAL[2]))
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)

    def zeros(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.zeros(shape, dtype=np.float32)

    embedding, output = zeros(len(tokens), width), zeros(len(tokens), width)
    np.fill_diagonal(embedding, 1.0)
    for now, following in pairwise(path_of_tokens):
        output[tokens.index(following), tokens.index(now)] = 10.0
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", zeros(width) + 1)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("blk.0.attn_norm.weight", zeros(width) + 1)
    writer.add_tensor("blk.0.ffn_norm.weight", zeros(width) + 1)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", zeros(width, width))
    writer.add_tensor("blk.0.ffn_gate.weight", zeros(32, width))
    writer.add_tensor("blk.0.ffn_up.weight", zeros(32, width))
    writer.add_tensor("blk.0.ffn_down.weight", zeros(width, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
