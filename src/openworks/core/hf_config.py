"""A Hugging Face model's `config.json`: what a model says of itself, read without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openworks.core.errors import InvalidRequestError

_MAX_BYTES = 1 << 20
_BYTES_PER_VALUE = 2  # what engines keep keys and values in, whatever the weights are stored in


@dataclass(frozen=True, slots=True)
class HfConfig:
    """The fields that decide where and how a text model is served."""

    fields: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        """Such as `llama` or `qwen2`; of a model with several parts, that of its text part."""
        return str(self.fields.get("model_type", ""))

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that it was saved from, such as `LlamaForCausalLM`."""
        return tuple(map(str, self.fields.get("architectures") or ()))

    @property
    def context_tokens(self) -> int | None:
        """The context that the model was trained for."""
        return self._integer("max_position_embeddings")

    def kv_bytes_per_token(self) -> int:
        """What one token of context takes in a 16-bit KV cache; 0 when the file does not say."""
        layers = self._integer("num_hidden_layers") or 0
        heads = self._integer("num_attention_heads") or 0
        kv_heads = self._integer("num_key_value_heads") or heads
        width = self._integer("hidden_size") or 0
        head_dim = self._integer("head_dim") or (width // heads if heads else 0)
        return 2 * _BYTES_PER_VALUE * layers * kv_heads * head_dim

    def _integer(self, key: str) -> int | None:
        value = self.fields.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_config(folder: Path) -> HfConfig:
    """Read `config.json` of a model's folder.

    Raises:
        InvalidRequestError: There is none, or it is no such file.
    """
    path = folder / "config.json"
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError) as exc:
        raise InvalidRequestError(f"{path} is not a readable model configuration: {exc}.") from exc
    if not isinstance(fields, dict):
        raise InvalidRequestError(f"{path} is not a readable model configuration: no object.")
    text = fields.get("text_config")
    return HfConfig({**fields, **text} if isinstance(text, dict) else fields)
