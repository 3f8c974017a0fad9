"""The models with which tests start the server: random weights, so the text is noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import gguf
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from benchmarks.hf_folder import write_random_folder, write_twin
from benchmarks.random_model import PRESETS, Shape, byte_symbols, write_random_llama
from openworks.ports.catalog import EngineName

VOCAB = 512
BYTES = 256
"""The first tokens of the vocabulary are the single bytes, in byte order."""
CALL_BEGIN = BYTES
"""The token with which `talker` begins a tool call."""
ENDS = (VOCAB - 3, VOCAB - 1)
"""The tokens that end an answer: of the text, and of a turn."""
WIDTH = 64
"""How many numbers the encoder's vectors have."""
CONTEXT = 4096

_SLOW = Shape(layers=12, dim=768, ffn_dim=3072, heads=12, kv_heads=4, vocab=VOCAB)
"""A step takes about ten milliseconds: slow enough to leave in the middle of an answer."""
_SLOW_BATCHED = Shape(layers=8, dim=512, ffn_dim=2048, heads=8, kv_heads=4, vocab=VOCAB)
"""The same for the batched engine, which computes models of this size in float32."""

TOOLS_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{ message.content }}{% endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}{{ call.function.arguments }}
{%- else %}{{ call.function.arguments | tojson }}{% endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
"""Calls in the Hermes form, which llama.cpp reads back."""


@dataclass(frozen=True)
class TestModels:
    """Files that are written when they are first asked for."""

    __test__ = False

    folder: Path
    engine: EngineName = "llamacpp"
    """Whose format the chat models have; they are the same models in each."""

    @cached_property
    def plain(self) -> Path:
        """Chats; its template knows no tools."""
        return self._served(self._plain)

    @cached_property
    def talker(self) -> Path:
        """Chats; its template knows tools, and a call's beginning is one token."""
        return self._served(self._talker)

    @cached_property
    def _plain(self) -> Path:
        path = self.folder / "plain.gguf"
        write_random_llama(path, PRESETS["tiny"])
        return path

    @cached_property
    def _talker(self) -> Path:
        texts = gguf.GGUFReader(self._plain).fields[gguf.Keys.Tokenizer.LIST].contents()
        texts[CALL_BEGIN] = f"<tool_call>{byte_symbols()[10]}"  # with its line break
        kind = gguf.GGUFValueType
        return self._variant(
            "talker",
            {
                gguf.Keys.Tokenizer.LIST: MetadataDetails(kind.ARRAY, texts, "", kind.STRING),
                gguf.Keys.Tokenizer.CHAT_TEMPLATE: MetadataDetails(kind.STRING, TOOLS_TEMPLATE),
            },
        )

    @cached_property
    def encoder(self) -> Path:
        """Embeds."""
        mean = MetadataDetails(gguf.GGUFValueType.UINT32, gguf.PoolingType.MEAN.value)
        return self._variant("encoder", {"llama.pooling_type": mean})

    @cached_property
    def slow(self) -> Path:
        """Chats slowly."""
        if self.engine == "batched":
            write_random_folder(self.folder / "slow", _SLOW_BATCHED)
            return self.folder / "slow"
        path = self.folder / "slow.gguf"
        write_random_llama(path, _SLOW)
        return path

    @cached_property
    def broken(self) -> Path:
        """Has the header of a model and none of its weights."""
        whole = self._plain.read_bytes()
        if self.engine == "batched":
            write_twin(self._plain, self.folder / "broken")
            path = self.folder / "broken" / "model.safetensors"
            whole = path.read_bytes()
        else:
            path = self.folder / "broken.gguf"
        path.write_bytes(whole[: len(whole) // 2])
        return path.parent if self.engine == "batched" else path

    def _served(self, path: Path) -> Path:
        """The model in the format of the engine, under the same name."""
        if self.engine == "llamacpp":
            return path
        folder = path.with_suffix("")
        write_twin(path, folder)
        return folder

    def _variant(self, name: str, metadata: dict[str, MetadataDetails]) -> Path:
        """Write the plain model with another header."""
        path = self.folder / f"{name}.gguf"
        copy_with_new_metadata(
            gguf.GGUFReader(self._plain), gguf.GGUFWriter(path, "llama"), metadata, []
        )
        return path
