"""What weights are, found in the files themselves: a GGUF's header, a folder's config.json."""

from __future__ import annotations

from pathlib import Path

from openworks.core.errors import InvalidRequestError
from openworks.core.gguf import GgufHeader, read_header
from openworks.core.hf_config import read_config
from openworks.ports.catalog import Capability, ModelEntry, Task, WeightsSource

_RANK_POOLING = 4
_WRITES_TEXT = ("ForCausalLM", "ForConditionalGeneration")
_TEMPLATES = ("chat_template.jinja", "tokenizer_config.json")
_MAX_TEMPLATE_BYTES = 1 << 20


def entry_of(path: Path, name: str, source: WeightsSource) -> ModelEntry:
    """Describe a GGUF file, or a folder as the transformers library writes it.

    Raises:
        InvalidRequestError: It is neither, or a folder's model does not write text.
    """
    return _of_folder(path, name, source) if path.is_dir() else _of_file(path, name, source)


def _of_folder(path: Path, name: str, source: WeightsSource) -> ModelEntry:
    config = read_config(path)
    if not any(kind.endswith(_WRITES_TEXT) for kind in config.architectures):
        raise InvalidRequestError(
            f"{path} holds a model of kind {', '.join(config.architectures) or 'unknown'}; "
            "of such folders only models that write text are served so far."
        )
    return ModelEntry(
        id=name,
        name=name,
        task="text-generation",
        context_tokens=config.context_tokens,
        capabilities=_capabilities(_template_of(path)) | {"lora"},
        weights={"transformers": source},
    )


def _of_file(path: Path, name: str, source: WeightsSource) -> ModelEntry:
    if path.suffix != ".gguf":
        raise InvalidRequestError(
            f"{path} is neither a .gguf file nor a folder of a transformers model."
        )
    header = read_header(path)
    task = _task_of(header)
    return ModelEntry(
        id=name,
        name=header.text("general.name") or name,
        task=task,
        context_tokens=header.context_tokens,
        capabilities=_capabilities(header.text("tokenizer.chat_template") or "")
        if task == "text-generation"
        else frozenset(),
        license=header.text("general.license"),
        parameters=header.text("general.size_label"),
        weights={"llamacpp": source},
    )


def _task_of(header: GgufHeader) -> Task:
    pooling = header.integer("{arch}.pooling_type")
    if pooling == _RANK_POOLING:
        return "rerank"
    return "text-embeddings" if pooling or "bert" in header.architecture else "text-generation"


def _template_of(folder: Path) -> str:
    """The text in which the chat template stands, if any."""
    found = [folder / name for name in _TEMPLATES if (folder / name).is_file()]
    return "".join(path.read_text(encoding="utf-8")[:_MAX_TEMPLATE_BYTES] for path in found)


def _capabilities(template: str) -> frozenset[Capability]:
    found: set[Capability] = {"json_schema", "streaming"}
    if "tools" in template:
        found.add("tools")
    if "enable_thinking" in template or "reasoning_effort" in template or "<think>" in template:
        found.add("reasoning")
    return frozenset(found)
