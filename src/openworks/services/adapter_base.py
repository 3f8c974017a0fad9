"""What an adapter must fit: the linear layers of its base model, read from that model's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openworks.core.errors import InvalidRequestError, ModelNotFoundError
from openworks.core.gguf import read_header
from openworks.core.hf_config import read_config
from openworks.ports.catalog import ModelEntry
from openworks.ports.weights import Weights

_GGUF_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "llama": frozenset({"llama", "mistral"}),
    "gpt-oss": frozenset({"gpt_oss"}),
}
"""Architectures of GGUF files that are called otherwise in a `config.json`."""
_FUSED: Final = frozenset({"phi3"})
"""Families that keep queries, keys and values in one layer, and gate and up in another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterBase:
    """The layers of a model that adapters may change."""

    id: str
    model_types: frozenset[str]
    """What its `model_type` may be; a GGUF file of Mistral's says no more than llama."""
    num_layers: int
    linears: Mapping[str, tuple[int, int]]
    """Module of a layer, such as `self_attn.q_proj` → how many values go in, and come out."""

    def takes(self, model_type: str) -> bool:
        """Whether an adapter for such models is one for this: `gemma` stands for gemma2 too."""
        return any(own.startswith(model_type) for own in self.model_types) and model_type != ""


def read_base(entry: ModelEntry, weights: Weights) -> AdapterBase:
    """Read what adapters of a model must fit; blocks, on files.

    Raises:
        ModelNotFoundError: Its weights are not on this machine, so nothing can be checked.
        InvalidRequestError: They do not say enough.
    """
    folder, file = entry.weights.get("transformers"), entry.weights.get("llamacpp")
    if folder is not None and (local := weights.locate(folder)) is not None and local.path.is_dir():
        return _of_folder(entry.id, local.path)
    if file is not None and (local := weights.locate(file)) is not None:
        return _of_gguf(entry.id, local.path)
    raise ModelNotFoundError(
        f"The model {entry.id!r} is known, but its weights are not on this machine, so that its "
        f"adapters cannot be checked. Fetch them with: openworks models pull {entry.id}",
        param="model",
    )


def _of_folder(model: str, folder: Path) -> AdapterBase:
    config = read_config(folder)
    fields = config.fields
    model_type = config.model_type
    heads = _count(model, fields, "num_attention_heads")
    hidden = _count(model, fields, "hidden_size")
    is_mixture = any(name in fields for name in ("num_local_experts", "num_experts"))
    return _base(
        model,
        model_types=frozenset({model_type, model_type.removesuffix("_text")}),
        num_layers=_count(model, fields, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=_count(model, fields, "num_key_value_heads", default=heads),
        head_dim=_count(model, fields, "head_dim", default=hidden // heads),
        inner=None if is_mixture else _count(model, fields, "intermediate_size"),
    )


def _of_gguf(model: str, file: Path) -> AdapterBase:
    header = read_header(file)
    architecture = header.architecture
    fields: dict[str, object] = {
        key.removeprefix(f"{architecture}."): value for key, value in header.metadata.items()
    }
    heads = _count(model, fields, "attention.head_count")
    hidden = _count(model, fields, "embedding_length")
    is_mixture = "expert_count" in fields
    return _base(
        model,
        model_types=_GGUF_TYPES.get(architecture, frozenset({architecture})),
        num_layers=_count(model, fields, "block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=_count(model, fields, "attention.head_count_kv", default=heads),
        head_dim=_count(model, fields, "attention.key_length", default=hidden // heads),
        inner=None if is_mixture else _count(model, fields, "feed_forward_length"),
    )


def _base(
    model: str,
    *,
    model_types: frozenset[str],
    num_layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    inner: int | None,
) -> AdapterBase:
    """Put the layers together; `inner` is the MLP's width, None where experts are in its place."""
    queries, keys = heads * head_dim, kv_heads * head_dim
    is_fused = not _FUSED.isdisjoint(model_types)
    linears = {"self_attn.o_proj": (queries, hidden)}
    if is_fused:
        linears["self_attn.qkv_proj"] = (hidden, queries + 2 * keys)
    else:
        linears["self_attn.q_proj"] = (hidden, queries)
        linears["self_attn.k_proj"] = linears["self_attn.v_proj"] = (hidden, keys)
    if inner is not None:
        linears["mlp.down_proj"] = (inner, hidden)
        if is_fused:
            linears["mlp.gate_up_proj"] = (hidden, 2 * inner)
        else:
            linears["mlp.gate_proj"] = linears["mlp.up_proj"] = (hidden, inner)
    return AdapterBase(id=model, model_types=model_types, num_layers=num_layers, linears=linears)


def _count(
    model: str, fields: Mapping[str, object], key: str, *, default: int | None = None
) -> int:
    value = fields.get(key)
    if value is None:
        value = default
    if type(value) is not int or value < 1:
        raise InvalidRequestError(
            f"The model {model!r} does not say its {key}, so that adapters cannot be checked "
            "against it.",
            param="model",
        )
    return value
