"""What several test files of the formats share: tools, markers, formats, and ways to cut a text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from openworks.engines.batched.formats.base import AnswerParser, Format, Markers
from openworks.engines.batched.formats.deltas import Delta, merged
from openworks.engines.batched.formats.harmony import Harmony
from openworks.engines.batched.formats.hermes import Hermes
from openworks.engines.batched.formats.llama import Llama
from openworks.engines.batched.formats.mistral import Mistral
from openworks.engines.batched.formats.plain import Plain
from openworks.engines.batched.formats.qwen_coder import QwenCoder
from openworks.engines.batched.formats.tools import Tool

THINK = Markers("<think>", "</think>")

TOOLS = (
    Tool(
        name="weather",
        parameters={
            "type": "object",
            "properties": {
                "days": {"type": "integer", "minimum": 0, "maximum": 99},
                "city": {"enum": ["Rome", "Oslo"]},
                "where": {
                    "type": "object",
                    "properties": {"abroad": {"type": "boolean"}},
                    "required": ["abroad"],
                    "additionalProperties": False,
                },
                "note": {"type": "string", "maxLength": 4},
            },
            "required": ["days", "city"],
        },
    ),
    Tool(name="weather_map", parameters={"properties": {}}),
)

FORMATS: tuple[Format, ...] = (
    Plain(reasoning=THINK),
    Hermes(reasoning=THINK),
    Llama(),
    Mistral(),
    Mistral(names_first=True, reasoning=Markers("[THINK]", "[/THINK]")),
    Harmony(),
    QwenCoder(reasoning=THINK),
)

PROMPTS = {"harmony": "<|start|>assistant"}
"""How a prompt ends, for the formats where that matters."""


ARGUMENTS = '{"days": 2,  "city": "Rome"}'
OTHER = '{"city": "a } ] </tool_call> \\" b\\n", "days": [{}]}'
HEAD = "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"

ONE_CALL: list[tuple[Format, str]] = [
    (Hermes(), f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'),
    (Hermes(), f'<tool_call>{{"arguments": {ARGUMENTS}, "name": "weather"}}</tool_call>'),
    (Hermes(), f'\n<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}'),
    (Hermes(), f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}\n</tool_call>'),
    (Llama(), f'{{"name": "weather", "parameters": {ARGUMENTS}}}'),
    (Llama(), f'{{"type": "function", "name": "weather", "parameters": {ARGUMENTS}}}'),
    (Llama(), f'<|python_tag|>{{"name": "weather", "parameters": {ARGUMENTS}}}'),
    (Mistral(), f'[TOOL_CALLS][{{"name": "weather", "arguments": {ARGUMENTS}}}]'),
    (Mistral(), f'[TOOL_CALLS] [{{"name": "weather", "arguments": {ARGUMENTS}, "id": "a1"}}]'),
    (Mistral(), f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}"),
    (Mistral(), f"[TOOL_CALLS]weather[CALL_ID]a1[ARGS]{ARGUMENTS}"),
    (Harmony(), f"{HEAD}{ARGUMENTS}<|call|>"),
    (Harmony(), f"{HEAD}{ARGUMENTS}"),
    (Harmony(), f" to=functions.weather<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>"),
]

TWO_CALLS: list[tuple[Format, str]] = [
    (
        Hermes(),
        f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>\n'
        f'<tool_call>\n{{"name": "weather_map", "arguments": {OTHER}}}\n</tool_call>',
    ),
    (
        Llama(),
        f'{{"name": "weather", "parameters": {ARGUMENTS}}}; '
        f'{{"name": "weather_map", "parameters": {OTHER}}}',
    ),
    (
        Mistral(),
        f'[TOOL_CALLS][{{"name": "weather", "arguments": {ARGUMENTS}}}, '
        f'{{"name": "weather_map", "arguments": {OTHER}}}]',
    ),
    (Mistral(), f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}[TOOL_CALLS]weather_map[ARGS]{OTHER}"),
]

NO_CALLS: list[tuple[Format, str]] = [
    (Hermes(), 'Well <tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call> then'),
    (Hermes(), '<tool_call>\n{"name": "weather", "arguments": "Rome"}\n</tool_call>'),
    (Hermes(), '<tool_call>\n{"name" = "weather"}\n</tool_call>'),
    (Hermes(), "I would write <tool_call> first."),
    (Hermes(), 'so <tool_call>\n{"name": "weath'),
    (Hermes(), "and <tool_c"),
    (Llama(), '{"name": "nobody", "parameters": {}}'),
    (Llama(), '{"answer": 42}'),
    (Llama(), '<|python_tag|>search.call(query="x")'),
    (Llama(), '<|python_tag|>; {"name": "weather", "parameters": {}}'),
    (Llama(), 'Write {"name": "weather", "parameters": {}} for it.'),
    (Mistral(), '[TOOL_CALLS] [{"name": "nobody", "arguments": {}}]'),
    (Mistral(), "[TOOL_CALLS]nobody[ARGS]{}"),
    (Mistral(), "[TOOL_CALLS]weather_[ARGS]{}"),
    (Harmony(), "<|channel|>commentary to=functions.nobody <|message|>{}<|call|>"),
    (Harmony(), "Hello, to=you"),
    (QwenCoder(), "<tool_call>\n<function=nobody>\n</function>\n</tool_call>"),
]

BARE = (
    "<tool_call>\n<function=weather>\n<parameter=days>\n3\n</parameter>\n"
    '<parameter=note>\n 12 "a"\n\n</parameter>\n<parameter=where>\n{"abroad": true}\n'
    "</parameter>\n</function>\n</tool_call>"
)

THOUGHTS: list[tuple[Format, str, str]] = [
    (Plain(reasoning=THINK), "", "<think>\nHm, well.\n</think>\n\nYes."),
    (Plain(reasoning=THINK), "<|im_start|>assistant\n<think>\n", "Hm, well.\n</think>\n\nYes."),
    (Hermes(reasoning=THINK), "", "\n<think>Hm, well.</think>Yes."),
    (Mistral(reasoning=Markers("[THINK]", "[/THINK]")), "", "[THINK]Hm, well.[/THINK]Yes."),
    (
        Harmony(),
        "<|start|>assistant",
        "<|channel|>analysis<|message|>Hm, well.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
    ),
    (
        Harmony(),
        "<|start|>assistant<|channel|>analysis<|message|>",
        "Hm, well.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
    ),
    (
        Harmony(),
        "<|start|>assistant",
        "<|channel|>analysis<|message|>Hm, well.<|channel|>final<|message|>Yes.",
    ),
]
"""Format, prompt, and an answer that thinks `Hm, well.` and says `Yes.`"""


def new_parser(format_: Format, *, parallel: bool = True) -> AnswerParser:
    return format_.parser(TOOLS, parallel=parallel, prompt=PROMPTS.get(format_.name, ""))


def streamed(parser: AnswerParser, pieces: Iterable[str]) -> list[Delta]:
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return merged([*deltas, *parser.finish()])


def cut(text: str, places: Iterable[int]) -> list[str]:
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(bounds)]
