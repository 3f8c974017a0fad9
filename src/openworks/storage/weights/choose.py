"""Which files of a repository to take, decided from their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

PREFERRED_QUANTS = (
    "Q4_K_M",  # the smallest at which little is lost
    "Q4_0",
    "Q4_K_S",
    "UD-Q4_K_XL",
    "Q5_K_M",
    "Q5_K_S",
    "Q5_0",
    "Q6_K",
    "Q8_0",
    "MXFP4",
    "F16",
    "BF16",
    "F32",
)
"""GGUF quantisations, the first choice first; what is not named here comes after."""

_QUANT = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|BF16|FP?16|FP?32))(?=[-._/]|$)",
    re.IGNORECASE,
)
_PART = re.compile(r"^(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_COMPANIONS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_VARIANTS = (".fp16.", ".bf16.", ".non_ema.", ".fp16-", ".bf16-", ".non_ema-")


def split_name(name: str) -> tuple[str, str | None]:
    """Read `owner/name:Q8_0` or `owner/name:file.gguf` as the repository and what to take of it."""
    repo, _, choice = name.partition(":")
    return repo, choice or None


def quant_of(file: str) -> str | None:
    """Find the quantisation in a GGUF's name, in capitals; None when it names none."""
    found = _QUANT.findall(file.removesuffix(".gguf"))
    return None if not found else found[-1].upper().replace("FP16", "F16").replace("FP32", "F32")


def gguf_models(files: Iterable[str]) -> list[str]:
    """Keep the GGUF files that are models; of a split one, its first part."""
    return sorted(file for file in files if file.endswith(".gguf") and _is_model(file))


def choose_gguf(files: Iterable[str], choice: str | None = None) -> str | None:
    """Choose one GGUF model.

    Args:
        files: Every file of a repository.
        choice: A quantisation or a file's name, in any case; None for the preferred one.

    Returns:
        A file, the first part of a split one; None when there is none, or none as chosen.
    """
    candidates = gguf_models(files)
    if choice is not None:
        wanted = choice.upper()
        candidates = [
            file for file in candidates if file.upper() == wanted or quant_of(file) == wanted
        ]
    return min(candidates, key=_rank, default=None)


def choose_mmproj(files: Iterable[str]) -> str | None:
    """Choose the vision projector, the most compact one that loses nothing to speak of."""
    order = ("Q8_0", "F16", "BF16", "F32")
    candidates = [
        file
        for file in sorted(files)
        if file.endswith(".gguf") and "mmproj" in PurePosixPath(file).name.lower()
    ]
    return min(
        candidates,
        key=lambda file: order.index(quant) if (quant := quant_of(file)) in order else len(order),
        default=None,
    )


def parts_of(file: str) -> tuple[str, ...]:
    """Name every part of a GGUF that may be split, in order."""
    match = _PART.match(file)
    if match is None:
        return (file,)
    stem, count = match["stem"], int(match["count"])
    return tuple(f"{stem}-{index:05}-of-{count:05}.gguf" for index in range(1, count + 1))


def snapshot_files(files: Sequence[str]) -> list[str]:
    """Choose what a model in its own format needs: weights once, configuration, tokenizer.

    Pickles are taken only where there are no safetensors: loading one runs its code.
    """
    weights = _weights(files)
    companions = [
        file for file in files if file.endswith(_COMPANIONS) and not file.endswith(".index.json")
    ]
    kinds = {PurePosixPath(file).suffix for file in weights}
    indexes = [file for file in files if any(file.endswith(f"{kind}.index.json") for kind in kinds)]
    # Weights come last: where they are, all that they need is there too.
    return [*sorted(companions), *sorted(indexes), *weights]


def is_weights(file: str) -> bool:
    """Tell weights in a model's own format from what accompanies them."""
    return file.endswith((".safetensors", *_PICKLES))


def _weights(files: Sequence[str]) -> list[str]:
    weights = sorted(file for file in files if file.endswith(".safetensors"))
    if not weights:
        weights = sorted(file for file in files if file.endswith(_PICKLES))
    # Half-precision copies, beside the same file in full.
    weights = [file for file in weights if not (set(_originals(file)) & set(weights))]
    in_folders = [file for file in weights if "/" in file]
    if "model_index.json" in files and in_folders:
        return in_folders  # diffusers: single-file copies for other programs lie at the top
    # Some makers ship the same weights in a format of their own, too.
    usual = [file for file in weights if not file.startswith(("original/", "consolidated"))]
    return usual or weights


def _originals(file: str) -> list[str]:
    return [file.replace(variant, variant[-1]) for variant in _VARIANTS if variant in file]


def _is_model(file: str) -> bool:
    name = PurePosixPath(file).name.lower()
    part = _PART.match(file)
    return (
        (part is None or int(part["index"]) == 1) and "mmproj" not in name and "imatrix" not in name
    )


def _rank(file: str) -> tuple[int, int, str]:
    quant = quant_of(file)
    preference = (
        PREFERRED_QUANTS.index(quant) if quant in PREFERRED_QUANTS else len(PREFERRED_QUANTS)
    )
    return preference, len(file), file
