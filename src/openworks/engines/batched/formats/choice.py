"""Finds the format of a model in its chat template."""

from __future__ import annotations

from openworks.engines.batched.formats.base import Format, Markers
from openworks.engines.batched.formats.harmony import Harmony
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.llama import Llama
from openworks.engines.batched.formats.mistral import Mistral
from openworks.engines.batched.formats.plain import Plain
from openworks.engines.batched.formats.qwen_coder import QwenCoder

_REASONING = (Markers("<think>", "</think>"), Markers("[THINK]", "[/THINK]"))


def detect(template_source: str) -> Format:
    """Return the format that a chat template shows past calls and reasoning in.

    A template that shows none that is known gives the plain format.
    """
    reasoning = next((marks for marks in _REASONING if marks.close in template_source), None)
    if "<|channel|>" in template_source:
        return Harmony()
    if "[TOOL_CALLS]" in template_source:
        return Mistral(reasoning=reasoning, names_first="[ARGS]" in template_source)
    if "<function=" in template_source:
        return QwenCoder(reasoning=reasoning)
    if "<tool_call>" in template_source:
        return Hermes(reasoning=reasoning)
    if _is_llama(template_source):
        return Llama(reasoning=reasoning)
    return Plain(reasoning=reasoning)


def _is_llama(source: str) -> bool:
    if "<|python_tag|>" in source:
        return True
    return "<|start_header_id|>" in source and "tools" in source and "parameters" in source
