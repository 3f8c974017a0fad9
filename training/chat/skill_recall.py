"""Skill c: repeat, quote, and recall what was said earlier in the conversation."""

from collections.abc import Callable

from training.chat.case import Case, Message, assistant, system, user
from training.chat.skill_talk import ask_beyond, plain_system, talk
from training.pools import Phrases, Pool, World
from training.words import (
    ANIMALS,
    CITIES,
    COLOURS,
    FOODS,
    HOBBIES,
    JOBS,
    MONTHS,
    NOUNS,
    PLAIN,
    anything,
    person,
    phrase,
    place,
    sentence,
)

_REPEAT = Phrases(
    "[Repeat|Please repeat|Can you repeat|Repeat exactly|Now repeat][: | after me: |] {text}",
    "[Repeat|Say|Echo|Write|Copy|Print|Output] [this|the following|these words|this text][:|] "
    "{text}",
    "[Say|Please say|Echo|Just say|Now say][:|] {text}",
    '[Say|Repeat|Please say|Echo|Quote|Reply with|Answer with|Write] "{text}"[.|]',
    "[Say|Repeat|Echo|Please say|Reply with|Answer with] '{text}'[.|]",
    "[Reply|Answer|Respond] with[ exactly|][:| this text:] {text}",
    "[Reply|Answer|Respond] [only |]with the [text|words|phrase|message][:|] {text}",
    "[Repeat|Copy|Say] [word for word|exactly|without changes|verbatim]: {text}",
    "[Repeat|Copy|Echo] what I [say|write|type]: {text}",
    "[Say|Please say|Now say|Can you say] {text}",
    '[What does|How would you say|Read] "{text}" [say|aloud][?|.|]',
)
_ONE_WORD = Phrases(
    "[Reply|Answer|Respond] with the [single |one |]word {text}[.|]",
    "[Say|Please say|Write|Just say] the [single |]word {text}[.|]",
    "[Reply|Answer|Respond] with [just|only] {text}[.|]",
    "[Say|Reply|Answer|Echo] {text}[.|]",
    "[Say|Write] {text} and nothing else[.|]",
)
_TWICE = Phrases(
    "[Say|Repeat|Write] {text} [twice|two times][.|]",
)
_QUOTE = Phrases(
    "What did I [just say|say before|say|write before|tell you][?|]",
    "What was my [last|previous] [message|sentence][?|]",
    "[Repeat|Quote] [my last message|what I said|what I just said|my previous message][.|]",
    "[Can you|Please] [repeat|quote] [my last message|what I said before][?|.|]",
)
_FIRST = Phrases(
    "What did I say first[?|]",
    "What was my first [message|sentence][?|]",
    "[Repeat|Quote] [my first message|the first thing I said][.|]",
)
_YOU_SAID = Phrases(
    "What did you [just say|say before|say|answer][?|]",
    "[Repeat|Quote] [your last message|your last answer|what you said][.|]",
    "[Say that again|Can you say that again|Please repeat that|Come again][.|?|]",
)

_Value = Callable[[World], str]


def _pool(pool: Pool) -> _Value:
    def draw(world: World) -> str:
        return world.made_up() if world.chance(0.25) else world.pick(pool)

    return draw


def _number(low: int, high: int) -> _Value:
    return lambda world: str(world.number(low, high))


# What people tell about themselves: how they say it, what they get back, how they ask later.
_FACTS: tuple[tuple[_Value, Phrases, str, Phrases, str], ...] = (
    (
        person,
        Phrases(
            "My name is {v}[.|!|]",
            "[Hi|Hello|Hey][,|!] [I am|I'm|my name is] {v}[.|!|]",
            "[I am|I'm|Call me|You can call me|People call me|This is] {v}[.|!|]",
            "[Remember|Note] [that |]my name is {v}[.|]",
        ),
        "Nice to meet you, {v}.",
        Phrases(
            "What is my name[?|]",
            "What's my name[?|]",
            "[Who am I|What am I called|How am I called][?|]",
            "[Do you remember|Do you know|Can you tell me|Tell me][ what|] my name[ is|][?|]",
            "[What did I say|And what was|So what is] my name[?| again?| was?|]",
        ),
        "Your name is {v}.",
    ),
    (
        place,
        Phrases(
            "I live in {v}[.|]",
            "I [am from|come from|moved to] {v}[.|]",
            "My [home|city|home town] is {v}[.|]",
        ),
        "Noted: you live in {v}.",
        Phrases(
            "Where do I live[?|]",
            "Where [am I from|is my home|do I come from][?|]",
            "[Which|What] city [do I live in|is my home|am I from][?|]",
            "[Do you remember|Tell me] where I live[?|.|]",
        ),
        "You live in {v}.",
    ),
    (
        _pool(JOBS),
        Phrases(
            "I work as a {v}[.|]", "My job is {v}[.|]", "I am a {v}[.| by trade.| by profession.]"
        ),
        "Noted: you work as a {v}.",
        Phrases(
            "What is my job[?|]",
            "What do I [do|work as|do for a living][?|]",
            "[Do you remember|Tell me] my job[?|.|]",
        ),
        "You work as a {v}.",
    ),
    (
        _number(5, 99),
        Phrases("I am {v} years old[.|]", "My age is {v}[.|]", "I just turned {v}[.|]"),
        "Noted: you are {v} years old.",
        Phrases(
            "How old am I[?|]",
            "What is my age[?|]",
            "[Do you remember|Tell me] [my age|how old I am][?|]",
        ),
        "You are {v} years old.",
    ),
)
_MY = Phrases(
    "My {k} is {v}[.|!|]",
    "[Remember|Note|Please remember|Keep in mind|Don't forget][:| that] my {k} is {v}[.|]",
    "[By the way|FYI|Also|So][,|] my {k} is {v}[.|]",
    "The {k} I have is {v}[.|]",
)
_WHAT_IS_MY = Phrases(
    "What is my {k}[?|]",
    "What's my {k}[?|]",
    "[Do you remember|Do you know|Can you tell me|Tell me] my {k}[?|.|]",
    "[What was|And what is|So what is|What did I say was] my {k}[?| again?|]",
    "[Remind me|Please tell me|I forgot][:|,| of] [what is |]my {k}[.|?|]",
)
_FAVOURITES: tuple[tuple[str, _Value], ...] = (
    ("favourite colour", _pool(COLOURS)),
    ("favorite color", _pool(COLOURS)),
    ("favourite food", _pool(FOODS)),
    ("favorite animal", _pool(ANIMALS)),
    ("favourite city", _pool(CITIES)),
    ("favorite number", _number(0, 999)),
    ("lucky number", _number(0, 999)),
    ("hobby", _pool(HOBBIES)),
    ("birth month", _pool(MONTHS)),
    ("dog's name", person),
    ("cat's name", person),
    ("sister's name", person),
    ("brother's name", person),
    ("password", lambda world: world.code()),
    ("order number", _number(1000, 999999)),
    ("phone number", _number(10000, 9999999)),
    ("favourite word", lambda world: world.made_up()),
    ("team", _pool(ANIMALS)),
    ("plan", lambda world: phrase(world, 2, 4)),
    ("motto", lambda world: phrase(world, 3, 5)),
)


def repeat(world: World) -> Case:
    """Say a text exactly as it was given."""
    roll = world.rng.random()
    if roll < 0.25:
        text = world.made_up() if world.chance(0.5) else world.pick(PLAIN)
        text = text.capitalize() if world.chance(0.2) else text
        asked = world.say(_ONE_WORD, text=text)
    elif roll < 0.3:
        text = world.made_up() if world.chance(0.5) else world.pick(PLAIN)
        asked, text = world.say(_TWICE, text=text), f"{text} {text}"
    else:
        text = anything(world)
        asked = world.say(_REPEAT, text=text)
    messages = [user(asked), assistant(text)]
    if world.chance(0.2):
        messages.insert(0, system(plain_system(world)))
    return Case(messages=messages)


def tell_and_ask(world: World) -> tuple[list[Message], list[Message], str]:
    """A fact about the user: the turns that tell it, the turns that ask for it, its value."""
    if world.chance(0.45):
        draw, tell, noted, ask, answer = world.rng.choice(_FACTS)
        slots = {"v": draw(world)}
    else:
        key, draw = world.rng.choice(_FAVOURITES)
        if world.chance(0.25):
            key, draw = f"{world.made_up()}", lambda world: anything(world).rstrip(".?!")
            key = key if world.chance(0.5) else f"{world.pick(NOUNS)} {key}"
        slots = {"k": key, "v": draw(world)}
        tell, noted, ask, answer = _MY, "Noted: your {k} is {v}.", _WHAT_IS_MY, "Your {k} is {v}."
    told = [user(world.say(tell, **slots)), assistant(noted.format(**slots))]
    asked = [user(world.say(ask, **slots)), assistant(answer.format(**slots))]
    return told, asked, slots["v"]


def filler(world: World) -> list[Message]:
    """Turns that have nothing to do with what was told."""
    roll = world.rng.random()
    if roll < 0.4:
        return [m for m in talk(world).messages if m["role"] != "system"]
    if roll < 0.6:
        return ask_beyond(world).messages
    if roll < 0.8:
        return [m for m in repeat(world).messages if m["role"] != "system"]
    return chatter(world)


def chatter(world: World) -> list[Message]:
    """A longer remark and a short reply, to fill a context."""
    text = " ".join(sentence(world) for _ in range(world.rng.randint(1, 6)))
    return [user(text), assistant("I see. Tell me more.")]


def recall(world: World) -> Case:
    """One to three facts, something else in between, then one of them asked."""
    facts = [tell_and_ask(world) for _ in range(world.rng.choice((1, 1, 2, 3)))]
    if len({_subject(asked) for _, asked, _ in facts}) < len(facts):
        facts = facts[:1]
    messages: list[Message] = []
    for told, _, _ in facts:
        messages += told
        if world.chance(0.3):
            messages += filler(world)
    for _ in range(world.rng.choice((0, 0, 1, 2, 3))):
        messages += filler(world)
    world.rng.shuffle(facts)
    for _, asked, value in facts[: 1 if world.new_values else 2]:
        messages += asked
        needle = value
    if world.chance(0.2):
        messages.insert(0, system(plain_system(world)))
    return Case(messages=messages, match="contains", needles=(needle,))


def recall_far(world: World, num_characters: int) -> Case:
    """A fact, then about `num_characters` of something else, then the question.

    Training tells a few facts on the way and asks for all of them.
    """
    facts = [tell_and_ask(world) for _ in range(1 if world.new_values else 4)]
    facts = list({_subject(asked): (told, asked, value) for told, asked, value in facts}.values())
    messages: list[Message] = []
    for told, _, _ in facts:
        messages += told
        length = 0
        while length < num_characters / len(facts):
            turns = chatter(world) if world.chance(0.7) else filler(world)
            length += sum(len(turn["content"]) for turn in turns)
            messages += turns
    world.rng.shuffle(facts)
    for _, asked, _ in facts:
        messages += asked
    return Case(messages=messages, match="contains", needles=(facts[-1][2],))


def _subject(asked: list[Message]) -> str:
    """What an answer is about: `Your favourite colour`, `You live in Rome.`"""
    answer = str(asked[1]["content"])
    return answer.split(" is ")[0] if " is " in answer else " ".join(answer.split()[:2])


def quote(world: World) -> Case:
    """Say again what the user or the model said before."""
    said, reply = sentence(world), "I see. Tell me more."
    first = [user(said), assistant(reply)]
    roll = world.rng.random()
    if roll < 0.5:
        asked = [user(world.say(_QUOTE)), assistant(f'You said: "{said}"')]
        before = filler(world) if world.chance(0.4) else []
        return Case(messages=before + first + asked)
    if roll < 0.75:
        asked = [user(world.say(_FIRST)), assistant(f'You said: "{said}"')]
        return Case(messages=first + filler(world) + asked)
    turns = filler(world)
    asked = [user(world.say(_YOU_SAID)), assistant(str(turns[-1]["content"]))]
    return Case(messages=turns + asked)
