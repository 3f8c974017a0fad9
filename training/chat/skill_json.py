"""Skill i: write simple fields as JSON."""

import json
from collections.abc import Callable
from typing import Any

from training.chat.case import Case, assistant, system, user
from training.pools import Phrases, Pool, World
from training.words import (
    ADJECTIVES,
    COLOURS,
    DAYS,
    FOODS,
    JOBS,
    NOUNS,
    THINGS,
    date,
    email,
    person,
    phrase,
    place,
)  # fmt: skip

_Draw = Callable[[World], Any]


def _of(pool: Pool) -> _Draw:
    return lambda world: world.made_up() if world.chance(0.2) else world.pick(pool)


_KEYS: tuple[tuple[str, _Draw], ...] = (
    ("name", person),
    ("age", lambda world: world.number(1, 99)),
    ("city", place),
    ("email", email),
    ("job", _of(JOBS)),
    ("color", _of(COLOURS)),
    ("colour", _of(COLOURS)),
    ("food", _of(FOODS)),
    ("item", _of(THINGS)),
    ("title", lambda world: phrase(world, 1, 3)),
    ("quantity", lambda world: world.number(1, 500)),
    ("price", lambda world: world.number(1, 9999)),
    ("temperature", lambda world: world.number(0, 40)),
    ("date", date),
    ("day", _of(DAYS)),
    ("status", _of(ADJECTIVES)),
    ("active", lambda world: world.chance(0.5)),
    ("id", lambda world: world.code()),
    ("year", lambda world: world.number(1900, 2040)),
    ("country", _of(NOUNS)),
    ("score", lambda world: world.number(0, 100)),
)
_GIVEN = Phrases(
    "[Write|Give me|Return|Output|Produce|Make] [JSON|a JSON object|json] with {fields}[.|]",
    "[Answer|Reply|Respond] [in|as|with] JSON: {fields}[.|]",
    "[Turn this into|Convert to|As|Format as] JSON: {fields}[.|]",
    "{fields}. [Answer in JSON|As JSON, please|Give it as JSON|JSON][.|]",
)
_EXTRACT = Phrases(
    "[Extract|Find|Get] {keys} [from|in] [this|the text|this text] as JSON: {text}",
    "{text} [Answer in JSON|Return JSON|Give me JSON] with [the keys |keys |]{keys}[.|]",
    "{text}\n[Extract|Return] {keys} as [JSON|a JSON object][.|]",
)
_SYSTEM = Phrases(
    "[Extract|Return|Find] {keys} as JSON.",
    "[Always answer|Answer only|Reply] in JSON with [the |]keys {keys}.",
)
_LIST = Phrases(
    "[Write|Give me|Return|Output] [this|the list|these] as a JSON [list|array]: {items}",
    "[Turn|Convert|Put] {items} into a JSON [list|array][.|]",
)
_STATEMENTS: dict[str, Phrases] = {
    "name": Phrases("[My name is|I am|This is|The name is|We met] {v}."),
    "age": Phrases("[The age is|Aged|I am aged] {v}."),
    "city": Phrases("[I live|We met|It is|We are] in {v}.", "The city is {v}."),
    "email": Phrases("[Write to|Mail|Contact] {v}", "The email is {v}"),
    "job": Phrases("[I work as a|The job is] {v}."),
    "color": Phrases("[The color is|It is painted|I like the color] {v}."),
    "food": Phrases("[I eat|We had|The food is] {v}."),
    "item": Phrases("[I bought a|The item is a|They sell a] {v}."),
    "quantity": Phrases("[There are|We need|I ordered] {v} pieces.", "The quantity is {v}."),
    "price": Phrases("[It costs|The price is|I paid] {v} dollars."),
    "temperature": Phrases("[It is|It has|We had] {v} degrees.", "The temperature is {v}."),
    "date": Phrases("[It was on|The date is|It happens on] {v}."),
    "day": Phrases("[We meet on|The day is|It opens on] {v}."),
    "year": Phrases("[It was in the year|The year is] {v}."),
}


def _spoken(keys: list[str]) -> str:
    return ", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0]


def _pairs(world: World, keys: tuple[tuple[str, _Draw], ...]) -> dict[str, Any]:
    chosen = world.rng.sample(keys, world.rng.choice((1, 2, 2, 3, 3, 4)))
    pairs = {key: draw(world) for key, draw in chosen}
    if world.chance(0.15):
        pairs[world.made_up()] = phrase(world, 1, 2)
    return pairs


def write_json(world: World) -> Case:
    """Fields given, told in sentences or listed; the answer is one line of JSON."""
    roll = world.rng.random()
    if roll < 0.15:
        items = [
            world.made_up() if world.chance(0.3) else world.pick(THINGS)
            for _ in range(world.rng.randint(2, 5))
        ]
        asked = user(world.say(_LIST, items=", ".join(items)))
        return Case(messages=[asked, assistant(json.dumps(items, ensure_ascii=False))])
    if roll < 0.55:
        pairs = _pairs(world, _KEYS)
        link = world.rng.choice((" ", " ", ": ", " = ", " is "))
        fields = _spoken(
            [f"{k}{link}{str(v).lower() if isinstance(v, bool) else v}" for k, v in pairs.items()]
        )
        messages = [user(world.say(_GIVEN, fields=fields))]
    else:
        pairs = _pairs(world, tuple(pair for pair in _KEYS if pair[0] in _STATEMENTS))
        pairs = {key: value for key, value in pairs.items() if key in _STATEMENTS}
        told = [world.phrase(_STATEMENTS[key]).format(v=value) for key, value in pairs.items()]
        keys = _spoken(list(pairs))
        if world.chance(0.4):
            world.rng.shuffle(told)
        text = " ".join(told)
        if world.chance(0.2):
            messages = [system(world.phrase(_SYSTEM).format(keys=keys)), user(text)]
        else:
            messages = [user(world.say(_EXTRACT, keys=keys, text=text))]
    return Case(messages=[*messages, assistant(json.dumps(pairs, ensure_ascii=False))])
