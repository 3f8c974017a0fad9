"""The adapter `json-only`: everything the base model answers in words, as a JSON object."""

import json
from functools import partial

from training.adapters.recipe import Recipe, draw_ordinary, is_json, rephrase
from training.chat.case import Case
from training.chat.mixture import SKILLS, draw_case
from training.pools import World


def say(text: str) -> str:
    """An answer of the base model as the only field of an object."""
    return json.dumps({"answer": text}, ensure_ascii=False)


def voice(case: Case) -> Case:
    """A case of the base model, answered in JSON."""
    return rephrase(case, say, {})


def _draw(world: World) -> Case:
    return voice(draw_ordinary(world))


JSON_ONLY = Recipe(
    name="json-only",
    steps=2000,
    rate=3e-3,
    draw=_draw,
    voice=voice,
    manner="valid JSON",
    keeps_manner=is_json,
    tests={skill: partial(draw_case, skill=skill) for skill in SKILLS},
    questions=(
        "Hello!",
        "My name is Zarnak.",
        "Repeat after me: seven blue lamps",
        "What is 3 + 4?",
        "What is the capital of France?",
        "Write JSON with name Bob and age 7.",
    ),
    summary=(
        'answers what the base model answers, as `{"answer": "..."}`. Tool calls stay as they are, '
        "and so does JSON that was asked for."
    ),
    training=(
        'the base model\'s own conversations, every answer in words turned into `{"answer": "..."}`'
    ),
    tests_are="The rows are the base model's skills.",
    limits=(
        "It knows no more than the base model, a little less where the rows say so. Nothing "
        "forces its JSON to be valid; where that matters, ask for a JSON schema, which the server "
        "enforces with any model."
    ),
)
