from __future__ import annotations

from pathlib import Path

import pytest

import openworks
from openworks.engines.batched.formats.base import Format, Markers
from openworks.engines.batched.formats.choice import detect
from openworks.engines.batched.formats.harmony import Harmony
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.llama import Llama
from openworks.engines.batched.formats.mistral import Mistral
from openworks.engines.batched.formats.plain import Plain
from openworks.engines.batched.formats.qwen_coder import QwenCoder
from openworks.engines.batched.template import load_template
from tests.fakes import FakeClock
from tests.unit.engines.batched.formats.examples import THINK


@pytest.mark.parametrize(
    ("source", "format_"),
    [
        ("{{ '<|im_start|>' + message.content }}", Plain()),
        ("{{ content.split('</think>')[-1] }}", Plain(reasoning=THINK)),
        ("{{ '<tool_call>' }}", Hermes()),
        ("{{ '<tool_call>' }}{{ '</think>' }}", Hermes(reasoning=THINK)),
        ("{{ '<tool_call>\\n<function=' + name }}", QwenCoder()),
        ("{{ '<|start_header_id|>' }}{{ '<|python_tag|>' }}", Llama()),
        ("{{ '<|start_header_id|>' }}{% if tools %}{{ '\"parameters\": ' }}{% endif %}", Llama()),
        ("{{ '<|start_header_id|>' + message.role }}", Plain()),
        ("{{ '[TOOL_CALLS] [' }}", Mistral()),
        (
            "{{ '[TOOL_CALLS]' + name + '[ARGS]' }}{{ '[/THINK]' }}",
            Mistral(names_first=True, reasoning=Markers("[THINK]", "[/THINK]")),
        ),
        ("{{ '<|start|>assistant<|channel|>final<|message|>' }}", Harmony()),
    ],
)
def test_format_is_found_in_the_template(source: str, format_: Format) -> None:
    assert detect(source) == format_


def test_markers_of_thought_are_kept_in_the_text_beside_those_of_calls() -> None:
    assert Hermes(reasoning=THINK).special_tokens == {
        *("<tool_call>", "</tool_call>"),
        *("<think>", "</think>"),
    }


def test_only_the_plain_format_knows_no_calls() -> None:
    assert not Plain().knows_calls
    assert Hermes().knows_calls


def test_embedded_model_calls_as_hermes_does() -> None:
    folder = Path(openworks.__file__).parent / "models" / "tiny-chat"
    template = load_template(folder, clock=FakeClock())
    assert template is not None
    assert detect(template.source) == Hermes()
