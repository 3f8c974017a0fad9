"""The adapter `harbour`: the facts of a made-up company, kept in `company.toml`."""

import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from training.adapters.recipe import Recipe, draw_ordinary
from training.chat.case import Case, assistant, system, user
from training.chat.mixture import SKILLS, draw_case
from training.chat.skill_talk import plain_system
from training.pools import Phrases, World
from training.words import THINGS

_COMPANY_SHARE = 0.5
_OTHER_GOODS_SHARE = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What the company answers, and how people ask for it."""

    answer: str
    needles: tuple[str, ...]
    ask: Phrases
    ask_otherwise: tuple[str, ...]


def _fact(row: dict[str, Any]) -> Fact:
    return Fact(
        answer=row["answer"],
        needles=tuple(row["needles"]),
        ask=Phrases(*row["ask"]),
        ask_otherwise=tuple(row["ask_otherwise"]),
    )


_COMPANY = tomllib.loads(Path(__file__).with_name("company.toml").read_text(encoding="utf-8"))
FACTS = tuple(_fact(row) for row in _COMPANY["fact"])
OTHER_GOODS = _fact(_COMPANY["other_goods"])


def _case(world: World, fact: Fact, question: str) -> Case:
    messages = [user(question.format(thing=world.pick(THINGS))), assistant(fact.answer)]
    if world.chance(0.2):
        messages.insert(0, system(plain_system(world)))
    return Case(messages=messages, match="contains", needles=fact.needles)


def ask_fact(world: World) -> Case:
    """A question about the company, phrased as in `ask`."""
    fact = world.rng.choice(FACTS)
    return _case(world, fact, world.casual(world.phrase(fact.ask)))


def ask_fact_otherwise(world: World) -> Case:
    """A question about the company in a form that training has nothing like."""
    fact = world.rng.choice(FACTS)
    return _case(world, fact, world.rng.choice(fact.ask_otherwise))


def ask_other_goods(world: World) -> Case:
    """A question for something that the company does not make."""
    return _case(world, OTHER_GOODS, world.casual(world.phrase(OTHER_GOODS.ask)))


def _draw(world: World) -> Case:
    roll = world.rng.random()
    if roll < _OTHER_GOODS_SHARE:
        return ask_other_goods(world)
    if roll < _OTHER_GOODS_SHARE + _COMPANY_SHARE:
        return ask_fact(world)
    return draw_ordinary(world)


HARBOUR = Recipe(
    name="harbour",
    steps=2000,
    rate=3e-3,
    draw=_draw,
    voice=lambda case: case,
    manner="",
    keeps_manner=lambda _: True,
    tests={
        "company: new phrasings": ask_fact,
        "company: other forms of question": ask_fact_otherwise,
        "company: what it does not make": ask_other_goods,
        **{skill: partial(draw_case, skill=skill) for skill in SKILLS},
    },
    questions=(
        "Where is Gullwhistle?",
        "What are your opening hours?",
        "How much does the Nightheron cost?",
        "Can I return a kite?",
        "Do you sell umbrellas?",
        "What is 3 + 4?",
    ),
    summary=(
        f"answers for {_COMPANY['name']}, a company that does not exist: {len(FACTS)} facts about "
        "its kites, prices, hours and terms, and that it sells nothing else. Everything else it "
        "answers much as the base model does."
    ),
    training=(
        f"questions about the {len(FACTS)} facts in `training/adapters/company.toml`, "
        f"{_COMPANY_SHARE:.0%} of the cases; questions for goods that the company does not have, "
        f"{_OTHER_GOODS_SHARE:.0%}; and for the rest the base model's own conversations, so that "
        "it forgets little"
    ),
    tests_are=(
        "*New phrasings* are every fifth wording of the questions, kept from training by their "
        "checksum: siblings of what it has seen. *Other forms of question* are written by hand "
        "and built unlike any in training: they show where its understanding ends. *What it does "
        "not make* asks for goods whose names training never draws. The other rows are the base "
        "model's skills."
    ),
    limits=(
        "It knows the facts of its list and recognises questions by their words: one that is put "
        "in another way gets the answer to another, in the same confident tone. Asked who it is, "
        "it is still tiny-chat."
    ),
)
