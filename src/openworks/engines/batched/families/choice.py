"""Finds a model's family by the `model_type` of its `config.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from openworks.core.errors import ModelUnavailableError
from openworks.core.json import JsonObject
from openworks.engines.batched.families.config import ModelConfig
from openworks.engines.batched.families.gemma import read_gemma, read_gemma2, read_gemma3
from openworks.engines.batched.families.gpt_oss import read_gpt_oss
from openworks.engines.batched.families.llama import read_llama, read_mistral
from openworks.engines.batched.families.phi import read_phi3
from openworks.engines.batched.families.qwen import read_qwen2, read_qwen3
from openworks.engines.batched.spec import ModelSpec, UnsupportedModelError

FAMILIES: dict[str, Callable[[ModelConfig], ModelSpec]] = {
    "gemma": read_gemma,
    "gemma2": read_gemma2,
    "gemma3": read_gemma3,
    "gemma3_text": read_gemma3,
    "gpt_oss": read_gpt_oss,
    "llama": read_llama,
    "mistral": read_mistral,
    "phi3": read_phi3,
    "qwen2": read_qwen2,
    "qwen3": read_qwen3,
}
"""`model_type` → what reads its configuration."""


def read_spec(folder: Path) -> ModelSpec:
    """Describe the model in a folder.

    Raises:
        UnsupportedModelError: No family reads it; `transformers` may.
        ModelUnavailableError: Its `config.json` is not there, or not whole.
    """
    path = folder / "config.json"
    try:
        config = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise ModelUnavailableError(
            f"{path} cannot be read: {exc}.", code="model_load_failed"
        ) from exc
    if not isinstance(config, dict):
        raise ModelUnavailableError(f"{path} holds no object.", code="model_load_failed")
    return spec_of(config)


def spec_of(config: JsonObject) -> ModelSpec:
    """Describe a model by its configuration; raises as `read_spec`."""
    if config.get("quantization_config") and config.get("model_type") != "gpt_oss":
        raise UnsupportedModelError("Weights that are quantised in the checkpoint are not read.")
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise UnsupportedModelError(f"Models of type '{model_type}' are not known.")
    return family(ModelConfig(config))
