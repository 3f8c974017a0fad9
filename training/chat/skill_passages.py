"""Skill e: answer a question from a passage in the prompt, or say that it does not tell."""

from collections.abc import Callable

from training.chat.case import Case, Message, assistant, system, user
from training.pools import Phrases, Pool, World
from training.words import (
    ANIMALS,
    COLOURS,
    DAYS,
    FOODS,
    HOBBIES,
    JOBS,
    MONTHS,
    NOUNS,
    PLAIN,
    THINGS,
    clock_time,
    person,
    phrase,
    place,
    sentence,
)

NOT_TOLD = "The passage does not say."

_Draw = Callable[[World], str]


def _of(pool: Pool) -> _Draw:
    def draw(world: World) -> str:
        return world.made_up() if world.chance(0.2) else world.pick(pool)

    return draw


# How a passage tells something about {n}, how one asks for it, what the answer looks like.
_PEOPLE: tuple[tuple[Phrases, Phrases, _Draw], ...] = (
    (
        Phrases(
            "{n} lives in {v}.",
            "{n} [comes from|has a house in|moved to] {v}.",
            "The home of {n} is {v}.",
        ),
        Phrases(
            "Where does {n} live[?|]",
            "[In which|In what] city does {n} live[?|]",
            "Where is the home of {n}[?|]",
        ),
        place,
    ),
    (
        Phrases("{n} works as a {v}.", "{n} is a {v}[.| by trade.]", "The job of {n} is {v}."),
        Phrases(
            "What is the [job|profession] of {n}[?|]",
            "What does {n} [do|work as][?|]",
            "What is {n}'s job[?|]",
        ),
        _of(JOBS),
    ),
    (
        Phrases(
            "{n} has a {v}.", "{n} [owns|keeps|takes care of] a {v}.", "The pet of {n} is a {v}."
        ),
        Phrases(
            "What [pet|animal] does {n} [have|own|keep][?|]",
            "What is the pet of {n}[?|]",
            "Which animal does {n} have[?|]",
        ),
        _of(ANIMALS),
    ),
    (
        Phrases("{n} likes {v}.", "{n} [loves|enjoys|often does] {v}.", "The hobby of {n} is {v}."),
        Phrases(
            "What is the hobby of {n}[?|]",
            "What does {n} [like|enjoy|love][?|]",
            "What is {n}'s hobby[?|]",
        ),
        _of(HOBBIES),
    ),
    (
        Phrases(
            "{n} eats {v}[.| every day.| for breakfast.]",
            "The favourite food of {n} is {v}.",
            "{n} always orders {v}.",
        ),
        Phrases(
            "What does {n} eat[?|]",
            "What is the favourite food of {n}[?|]",
            "What food does {n} [like|order|eat][?|]",
        ),
        _of(FOODS),
    ),
    (
        Phrases("{n} is {v} years old.", "The age of {n} is {v}.", "{n} turned {v}[.| this year.]"),
        Phrases("How old is {n}[?|]", "What is the age of {n}[?|]", "What is {n}'s age[?|]"),
        lambda world: str(world.number(3, 99)),
    ),
    (
        Phrases("{n} was born in {v}.", "The birthday of {n} is in {v}."),
        Phrases("[When|In which month] was {n} born[?|]", "When is the birthday of {n}[?|]"),
        _of(MONTHS),
    ),
    (
        Phrases("{n} is married to {v}.", "{n} has a [wife|husband|partner] called {v}."),
        Phrases("Who is {n} married to[?|]", "Who is the [wife|husband|partner] of {n}[?|]"),
        person,
    ),
    (
        Phrases("{n} works with {v}.", "A [friend|colleague] of {n} is {v}."),
        Phrases(
            "Who does {n} work with[?|]", "Who is [a friend|a colleague|the friend] of {n}[?|]"
        ),
        person,
    ),
)
_OBJECTS: tuple[tuple[Phrases, Phrases, _Draw], ...] = (
    (
        Phrases("The {n} is {v}.", "The colour of the {n} is {v}.", "They painted the {n} {v}."),
        Phrases(
            "What colour is the {n}[?|]",
            "What is the colour of the {n}[?|]",
            "Which color is the {n}[?|]",
        ),
        _of(COLOURS),
    ),
    (
        Phrases(
            "The {n} costs {v} [dollars|euros].",
            "The price of the {n} is {v} [dollars|euros].",
            "One pays {v} dollars for the {n}.",
        ),
        Phrases(
            "How much [is|does] the {n} [cost|][?|]",
            "What is the price of the {n}[?|]",
            "What does the {n} cost[?|]",
        ),
        lambda world: str(world.number(2, 9999)),
    ),
    (
        Phrases("The {n} opens at {v}.", "The {n} starts at {v}.", "At {v} the {n} begins."),
        Phrases(
            "When does the {n} [open|start|begin][?|]",
            "At what time does the {n} [open|start|begin][?|]",
        ),
        clock_time,
    ),
    (
        Phrases(
            "The {n} was [built|made|founded] in {v}.", "In {v} the {n} was [built|made|founded]."
        ),
        Phrases(
            "When was the {n} [built|made|founded][?|]",
            "In [which|what] year was the {n} [built|made|founded][?|]",
        ),
        lambda world: str(world.number(1500, 2030)),
    ),
    (
        Phrases("The {n} belongs to {v}.", "The owner of the {n} is {v}.", "{v} owns the {n}."),
        Phrases(
            "Who owns the {n}[?|]",
            "Who is the owner of the {n}[?|]",
            "[To whom|Who] does the {n} belong[?| to?]",
        ),
        person,
    ),
    (
        Phrases(
            "The {n} is [in|at|near] the {v}.",
            "[In|Behind|Near] the {v} is the {n}.",
            "They keep the {n} in the {v}.",
        ),
        Phrases(
            "Where is the {n}[?|]", "Where do they keep the {n}[?|]", "Where can I find the {n}[?|]"
        ),
        _of(NOUNS),
    ),
    (
        Phrases("The {n} is closed on {v}.", "On {v} the {n} is closed."),
        Phrases("When is the {n} closed[?|]", "On [which|what] day is the {n} closed[?|]"),
        lambda world: world.pick(DAYS),
    ),
)
_ATTRIBUTE = (
    Phrases("The {k} of {n} is {v}.", "{n} has the {k} {v}.", "{n}'s {k} is {v}."),
    Phrases(
        "What is the {k} of {n}[?|]",
        "What is {n}'s {k}[?|]",
        "Tell me the {k} of {n}[.|]",
        "Which {k} does {n} have[?|]",
    ),
)
_FRAMES = Phrases(
    "[Read the passage and answer the question.|Answer from the passage.|Use the passage to "
    "answer.]"
    "\n\n{p}\n\nQuestion: {q}",
    "[Context|Passage|Text]: {p}\n[Question: |Q: |]{q}",
    "{p}\n\n{q}",
    "{q}\n\n[Passage|Context|Text]: {p}",
    "[Here is a text|Given this passage|Based on this text]: {p} [Question: |]{q}",
    "Answer the question [using|with] the context.\n\nContext:\n{p}\n\nQuestion: {q}[\nAnswer:|]",
    '"{p}"\n{q}',
)
_SYSTEM_FRAMES = Phrases(
    "[Answer from the passage.|Use this context to answer.|Context:|Passage:]\n{p}",
    "You are a helpful assistant. [Answer from this text|Use this passage|Documents]:\n\n{p}",
)


def _facts(world: World, count: int) -> list[tuple[str, str, str]]:
    """Statement, question and answer; no two share their question."""
    names = [person(world) for _ in range(2)]
    things = (
        world.pick_some(THINGS, 2) if world.chance(0.6) else [world.made_up() for _ in range(2)]
    )
    facts: dict[tuple[str, str], tuple[str, str, str]] = {}
    for _ in range(count):
        roll = world.rng.random()
        if roll < 0.5:
            kinds, name = _PEOPLE, world.rng.choice(names)
        elif roll < 0.8:
            kinds, name = _OBJECTS, world.rng.choice(things)
        else:
            key = world.made_up() if world.chance(0.6) else world.pick(NOUNS)
            name = world.rng.choice(names)
            value = phrase(world, 1, 2) if world.chance(0.6) else str(world.number(0, 9999))
            tell, ask = _ATTRIBUTE
            facts[name, key] = (
                world.phrase(tell).format(n=name, k=key, v=value),
                world.say(ask, n=name, k=key),
                value,
            )
            continue
        index = world.rng.randrange(len(kinds))
        tell, ask, draw = kinds[index]
        value = draw(world)
        facts[name, str(index)] = (
            world.phrase(tell).format(n=name, v=value),
            world.say(ask, n=name),
            value,
        )
    return list(facts.values())


def passage(world: World) -> Case:
    """A passage of two to six statements and a question or several about it."""
    facts = _facts(world, world.rng.choice((2, 3, 3, 4, 4, 5, 6)))
    statements = [statement for statement, _, _ in facts]
    hidden = world.chance(0.1) and len(facts) > 1
    if hidden:
        statements = statements[1:]
    if world.chance(0.3):
        statements.insert(world.rng.randint(0, len(statements)), sentence(world))
    text = " ".join(statements)
    asked = list(facts) if hidden else facts
    if hidden:
        asked = [(facts[0][0], facts[0][1], NOT_TOLD)]
    else:
        world.rng.shuffle(asked)
    messages: list[Message] = []
    needle = ""
    for index, (_, question, answer) in enumerate(asked[: 1 if world.new_values else 4]):
        needle = answer
        if index:
            messages.append(user(question))
        elif world.chance(0.2):
            messages += [system(world.phrase(_SYSTEM_FRAMES).format(p=text)), user(question)]
        else:
            messages.append(user(world.phrase(_FRAMES).format(p=text, q=question)))
        messages.append(assistant(answer if answer == NOT_TOLD else f"{answer}."))
    return Case(messages=messages, match="contains", needles=(needle.rstrip("."),))


_AFTER = Phrases(
    "[Which|What] word [comes|stands] [after|right after] {word} in this list: {items}[?|]",
    "In the list {items}, what comes after {word}[?|]",
)
_NTH = Phrases(
    "What is the {nth} [word|item] [in|of] [this list|the list]: {items}[?|]",
    "[Give me|Tell me|Name] the {nth} [word|item] of: {items}",
)


def list_item(world: World) -> Case:
    """The next or the n-th item of a list."""
    items = world.pick_some(PLAIN, world.rng.randint(3, 6))
    spoken = ", ".join(items)
    if world.chance(0.5):
        index = world.rng.randrange(len(items) - 1)
        asked = world.say(_AFTER, word=items[index], items=spoken)
        answer = items[index + 1]
    else:
        index = world.rng.choice((0, 1, 2, len(items) - 1))
        nth = "last" if index == len(items) - 1 else ("first", "second", "third")[index]
        asked, answer = world.say(_NTH, nth=nth, items=spoken), items[index]
    return Case(
        messages=[user(asked), assistant(f"{answer}.")], match="contains", needles=(answer,)
    )
