"""What makes one adapter: its training cases, its manner, its tests and what its card says."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from training.chat.case import Case, assistant, calls_of
from training.chat.mixture import draw_mixed
from training.chat.skill_facts import fact
from training.chat.skill_persona import persona, told_fact
from training.chat.skill_recall import recall, repeat
from training.chat.skill_talk import ask_beyond, talk
from training.pools import World

Draw = Callable[[World], Case]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One adapter."""

    name: str
    """The folder's name."""
    steps: int
    rate: float
    draw: Draw
    """A training case, answered as the adapter should."""
    voice: Callable[[Case], Case]
    """The case that the base model knows, as the adapter should answer it."""
    manner: str
    """What `keeps_manner` looks for, as a column's head; empty when there is no manner."""
    keeps_manner: Callable[[str], bool]
    tests: Mapping[str, Draw]
    """What is measured: cases as the base model should answer them."""
    questions: tuple[str, ...]
    """What the card asks, to show the adapter's answer beside the base model's."""
    summary: str
    """The card's first paragraph."""
    training: str
    """The card's words on what it was trained on."""
    tests_are: str
    """The card's words on the test cases."""
    limits: str
    """The card's words on what it cannot do."""


_SHORT = (talk, talk, talk, ask_beyond, fact, persona, told_fact, recall, repeat)
_SHORT_SHARE = 0.5


def draw_ordinary(world: World) -> Case:
    """A case that the base model knows: half of them short, as most of what people type first is.

    The base model's own mixture is mostly tool calls and JSON, and an adapter that reads a
    twentieth of what the base read would all but never see a greeting.
    """
    if world.chance(_SHORT_SHARE):
        return world.rng.choice(_SHORT)(world)
    return draw_mixed(world, 1.0)


def rephrase(case: Case, say: Callable[[str], str], needles: Mapping[str, str]) -> Case:
    """The same conversation with every answer in words put through `say`.

    Tool calls and answers in JSON stay as they are: programs read them.

    Args:
        needles: What `say` makes of words that the answer must hold.
    """
    messages = [
        assistant(say(str(message["content"])))
        if message["role"] == "assistant" and not is_for_programs(message)
        else message
        for message in case.messages
    ]
    wanted = tuple(needles.get(needle, needle) for needle in case.needles)
    return replace(case, messages=messages, needles=wanted)


def is_for_programs(message: dict[str, object]) -> bool:
    """Whether a turn calls tools or is a JSON object or list."""
    return bool(calls_of(message)) or is_json(str(message["content"]))


def is_json(text: str) -> bool:
    """Whether a text is one JSON object or list and nothing else."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False
