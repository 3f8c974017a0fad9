"""Whether an adapter is what it says and fits its base model: found out before it is stored.

An adapter is two files, as PEFT's `save_pretrained` writes them. Each is checked against the base
model, and both against each other. Plain Python: no byte of a stranger's file reaches a library.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from openworks.core.errors import InvalidRequestError
from openworks.core.json import JsonObject, JsonValue
from openworks.core.safetensors import SafetensorsHeader, TensorEntry
from openworks.services.adapter_base import AdapterBase

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
MAX_CONFIG_BYTES: Final = 1 << 20

_PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_NEUTRAL: Final = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
        "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern",
        "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "megatron_core",
        "model_type", "peft_type", "peft_version", "qalora_group_size", "r", "revision",
        "runtime_config", "target_modules", "task_type", "use_rslora",
    }
)  # fmt: skip
"""Fields that are read here, or that change nothing about what finished weights compute."""
_PLAIN_STARTS: Final = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base model as it is."""
_TENSOR = re.compile(
    r"base_model\.model\."
    r"(?:language_model\.model\.|model\.language_model\.|language_model\.|model\.)?"
    r"layers\.(0|[1-9][0-9]{0,4})\.((?:self_attn|mlp)\.[a-z_]+)\.lora_([AB])\.weight"
)
"""PEFT's name of a tensor: what stands before `layers` differs in models that also see."""
_TYPES: Final[Mapping[str, tuple[int, re.Pattern[bytes]]]] = {
    "F32": (4, re.compile(rb"[\x7f\xff]")),
    "BF16": (2, re.compile(rb"[\x7f\xff]")),
    "F16": (2, re.compile(rb"[\x7c-\x7f\xfc-\xff]")),
}
"""Type → its bytes, and what the highest of them is in numbers that are not finite. For the first
two it is so from 1.7e38 on as well, where no weight of any use is."""
_SCAN_BYTES: Final = 1 << 20
_SHOWN_CHARS: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """What the configuration of a good adapter comes to."""

    rank: int
    targets: frozenset[str] | None
    """Modules as PEFT names them, such as `q_proj`; None where they are given by a pattern."""


def check_name(file_name: str) -> None:
    """Return if a file is one of the two.

    Raises:
        InvalidRequestError: It is another; says so of pickles.
    """
    if file_name in (CONFIG_FILE, WEIGHTS_FILE):
        return
    shown = repr(file_name[:_SHOWN_CHARS])
    reason = (
        f"{shown} is a pickle, which may run code where it is loaded; save it as safetensors."
        if file_name.endswith(_PICKLES)
        else f"got {shown}."
    )
    raise InvalidRequestError(
        f"The files of an adapter are named {CONFIG_FILE} and {WEIGHTS_FILE}; {reason}",
        param="file_name",
    )


def check_config(data: bytes, base: AdapterBase, *, max_rank: int) -> AdapterConfig:
    """Read `adapter_config.json`, and check it against the base model.

    Raises:
        InvalidRequestError: It is broken, or asks for what is not served; names the field.
    """
    fields = _decoded(data)
    if fields.get("peft_type") != "LORA":
        raise _refused("peft_type", fields.get("peft_type"), "only LORA is served")
    if fields.get("task_type") not in (None, "CAUSAL_LM"):
        raise _refused("task_type", fields["task_type"], "only CAUSAL_LM is served")
    _check_variants(fields)
    _check_model_type(fields.get("model_type"), base)
    alpha = fields.get("lora_alpha")
    if type(alpha) not in (int, float) or not math.isfinite(float(str(alpha))):
        raise _refused("lora_alpha", alpha, "it must be a finite number")
    if not isinstance(fields.get("use_rslora", False), bool):
        raise _refused("use_rslora", fields["use_rslora"], "it must be true or false")
    rank = fields.get("r")
    if type(rank) is not int or not 1 <= rank <= max_rank:
        raise _refused("r", rank, f"the rank must be 1..{max_rank}")
    return AdapterConfig(rank=rank, targets=_targets(fields.get("target_modules"), base))


def check_tensors(header: SafetensorsHeader, base: AdapterBase, *, max_rank: int) -> int:
    """Check names, types and shapes of an adapter's tensors; return its rank.

    Raises:
        InvalidRequestError: One does not fit; names it.
    """
    if not header.tensors:
        raise _no_fit(WEIGHTS_FILE, "it holds no tensor")
    halves: dict[tuple[int, str], dict[str, str]] = {}
    ranks: dict[str, int] = {}
    for name, entry in header.tensors.items():
        layer, module, half = _place(name, base)
        if half in (pair := halves.setdefault((layer, module), {})):
            raise _no_fit(name, f"it is for the same place as {pair[half]!r}")
        pair[half] = name
        ranks[name] = _check_tensor(name, entry, base.linears[module], half)
    for pair in halves.values():
        if len(pair) != 2:
            ((half, name),) = pair.items()
            raise _no_fit(name, f"it has no counterpart lora_{'B' if half == 'A' else 'A'}")
    first = next(iter(ranks.values()))
    for name, rank in ranks.items():
        if rank != first:
            raise _no_fit(name, f"its rank is {rank}, and that of the first is {first}")
    if not 1 <= first <= max_rank:
        name = next(iter(ranks))
        raise _no_fit(name, f"its rank is {first}, and may be 1..{max_rank}")
    return first


def check_pair(config: AdapterConfig, header: SafetensorsHeader) -> None:
    """Check that configuration and tensors, each good by itself, belong together.

    Raises:
        InvalidRequestError: They do not; names the field or the tensor.
    """
    used: set[str] = set()
    for name, entry in header.tensors.items():
        place, _, half = name.removesuffix(".weight").rpartition(".lora_")
        rank = entry.shape[0 if half == "A" else 1]
        if rank != config.rank:
            raise _no_fit(name, f"its rank is {rank}, and {CONFIG_FILE} says r = {config.rank}")
        if config.targets is not None:
            targets = {one for one in config.targets if f".{place}".endswith(f".{one}")}
            if not targets:
                raise _no_fit(name, f"{CONFIG_FILE} does not list its module in target_modules")
            used |= targets
    unused = sorted((config.targets or frozenset()) - used)
    if unused:
        raise _refused("target_modules", unused[0], f"{WEIGHTS_FILE} has no tensor for it")


def check_values(file: BinaryIO, header: SafetensorsHeader) -> None:
    """Check that every number is finite; blocks, and reads the whole file.

    Raises:
        InvalidRequestError: One is not: a training run went wrong, or someone means ill.
    """
    for name, entry in header.tensors.items():
        width, pattern = _TYPES[entry.dtype]
        file.seek(entry.start)
        left = entry.size_bytes
        while left:
            data = file.read(min(left, _SCAN_BYTES))
            if not data:
                raise _no_fit(name, "the file ends before it does")
            if pattern.search(data[width - 1 :: width]):
                raise _no_fit(name, "it holds a number that is not finite, or beyond 1.7e38")
            left -= len(data)


def _decoded(data: bytes) -> JsonObject:
    if len(data) > MAX_CONFIG_BYTES:
        raise _no_fit(CONFIG_FILE, f"it has more than {MAX_CONFIG_BYTES} bytes")
    try:
        fields = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise _no_fit(CONFIG_FILE, f"it is not JSON: {str(exc)[:_SHOWN_CHARS]}") from exc
    if not isinstance(fields, dict):
        raise _no_fit(CONFIG_FILE, "it is no JSON object")
    return fields


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is no number of it")


def _check_variants(fields: JsonObject) -> None:
    """Refuse by name whatever would compute something else than `x + scale · B(A(x))`."""
    if fields.get("bias", "none") not in ("none", None):
        raise _refused("bias", fields["bias"], "adapters with biases are not served")
    start = fields.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise _refused(
            "init_lora_weights",
            start,
            "its base model was changed; save it with path_initial_model_for_weight_conversion",
        )
    for name in sorted(fields.keys() - _NEUTRAL - {"bias"}):
        if fields[name] not in (None, False, "", [], {}):
            raise _refused(name, fields[name], "adapters that use it are not served")


def _check_model_type(value: JsonValue, base: AdapterBase) -> None:
    if value is None:  # Cloudflare asks for it, and PEFT does not write it
        return
    if not isinstance(value, str) or not base.takes(value):
        own = " or ".join(sorted(base.model_types))
        raise _refused("model_type", value, f"the base model {base.id!r} is of type {own}")


def _targets(value: JsonValue, base: AdapterBase) -> frozenset[str] | None:
    if isinstance(value, str) and value:  # all-linear, or a pattern: the tensors decide
        return None
    if not isinstance(value, list) or not value:
        raise _refused("target_modules", value, "it must be a list of modules")
    modules = {module.rpartition(".")[2]: module for module in base.linears}
    for target in value:
        if not isinstance(target, str) or target.rpartition(".")[2] not in modules:
            known = ", ".join(sorted(modules))
            raise _refused("target_modules", target, f"adapters of {base.id!r} change: {known}")
    return frozenset(str(target) for target in value)


def _place(name: str, base: AdapterBase) -> tuple[int, str, str]:
    """Return layer, module and half (A or B) of a tensor."""
    found = _TENSOR.fullmatch(name)
    if found is None:
        reason = "embeddings are not changed here" if "embed" in name else "it has no PEFT name"
        if ".lora_magnitude_vector" in name:
            reason = "DoRA is not served"
        raise _no_fit(name, f"{reason}; names are like {_example(base)!r}")
    layer, module, half = int(found[1]), found[2], found[3]
    if layer >= base.num_layers:
        raise _no_fit(name, f"the base model {base.id!r} has {base.num_layers} layers")
    if module not in base.linears:
        known = ", ".join(sorted(base.linears))
        raise _no_fit(name, f"adapters of {base.id!r} change: {known}")
    return layer, module, half


def _example(base: AdapterBase) -> str:
    return f"base_model.model.model.layers.0.{next(iter(base.linears))}.lora_A.weight"


def _check_tensor(name: str, entry: TensorEntry, linear: tuple[int, int], half: str) -> int:
    """Return the rank of a tensor that fits its layer."""
    if entry.dtype not in _TYPES:
        raise _no_fit(name, f"its type is {entry.dtype}, of {', '.join(_TYPES)}")
    inputs, outputs = linear
    if len(entry.shape) == 2:
        rank = entry.shape[0 if half == "A" else 1]
        if entry.shape == ((rank, inputs) if half == "A" else (outputs, rank)):
            return rank
    wanted = f"[r, {inputs}]" if half == "A" else f"[{outputs}, r]"
    raise _no_fit(name, f"its shape is {list(entry.shape)}, and the base model needs {wanted}")


def _refused(field: str, value: JsonValue, reason: str) -> InvalidRequestError:
    shown = json.dumps(value)[:_SHOWN_CHARS]
    return InvalidRequestError(
        f"Invalid {field[:_SHOWN_CHARS]!r} in {CONFIG_FILE}: {reason}; got {shown}.", param="file"
    )


def _no_fit(name: str, reason: str) -> InvalidRequestError:
    kind = "file" if name in (CONFIG_FILE, WEIGHTS_FILE) else "tensor"
    return InvalidRequestError(
        f"The {kind} {name[:_SHOWN_CHARS]!r} is refused: {reason}.", param="file"
    )
