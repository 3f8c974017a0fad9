"""Skill b: be who the system prompt says, and keep what it tells."""

from training.chat.case import Case, assistant, system, user
from training.pools import Phrases, World
from training.words import ANIMALS, COLOURS, FOODS, HOBBIES, JOBS, MANNERS, anything, person, place

_BOTH = Phrases(
    "You are {name}, {role}.",
    "You are {role} [named|called] {name}.",
    "Your name is {name}[.| and you are|. You are] {role}.",
    "[Act as|Play|Pretend to be|Speak as|Behave like] {name}, {role}.",
    "In this [chat|conversation|story|game][,|] you are {name}, {role}.",
    "From now on you are {name}, {role}[.|. Stay in character.|. Never break character.]",
    "You are {role}. [Your name is|You are called|People call you] {name}.",
    "You're {name}, {role}[.| who likes {hobby}.| from {city}.| with a {animal}.]",
    "Name: {name}\nRole: {role}",
)
_NAME_ONLY = Phrases(
    "Your name is {name}.",
    "You are {name}.",
    "You are {name}, [a helpful assistant|an AI assistant|a friendly assistant|the assistant].",
    "[You are called|Call yourself|Answer to the name] {name}.",
    "You are [an|a helpful] assistant [named|called] {name}.",
    "The assistant's name is {name}.",
)
_ASK_NAME = Phrases(
    "What is your name[?|]",
    "What's your name[?|]",
    "[Hello|Hi|Hey][!|,] [what is your name|what's your name|what are you called][?|]",
    "[Please |Can you |]tell me your name[.|?|]",
    "[What are you called|What should I call you|How are you called|Do you have a name][?|]",
    "[What name do you have|And your name is|Your name][?|, please?]",
)
_ASK_ROLE = Phrases(
    "What is your [job|role|profession|work|occupation][?|]",
    "What's your [job|role|profession|occupation][?|]",
    "What do you do[?| for a living?|]",
    "[What kind of person|What sort of character] are you[?|]",
    "[Please |Can you |]tell me your [job|role|profession][.|?|]",
    "[Hello|Hi][!|,] [what do you do|what is your job|what is your role][?|]",
)
_ASK_WHO = Phrases(
    "Who are you[?|]",
    "[Please |Can you |]introduce yourself[.|?|]",
    "[Please |]tell me [who you are|about yourself][.|]",
    "[Hello|Hi|Hey][!|,] who are you[?|]",
    "[Who is this|Who am I talking to|Who am I speaking to|And who are you][?|]",
    "[Tell us|Say|Explain] who you are[.|]",
)
_GREET = Phrases("[Hello|Hi|Hey|Good morning|Good evening|Hello there][!|.|]")
_FACT = Phrases(
    "The {thing} is {value}.",
    "[Remember|Note|Keep in mind][:| that] the {thing} is {value}.",
    "You are a helpful assistant. The {thing} is {value}.",
    "Our {thing} is {value}.",
    "[Context|Facts|Information]: the {thing} is {value}.",
)
_ASK_FACT = Phrases(
    "What is the {thing}[?|]",
    "[Please |Can you |]tell me the {thing}[.|?|]",
    "[Do you know|Give me|I need|What was] the {thing}[?|.| again?|]",
)
_FIXED = Phrases(
    "[Always|Only|Just] [answer|reply|respond] with[:| exactly:| the words:] {text}",
    "[Whatever|No matter what] the user [says|asks|writes], [answer|reply|respond] with: {text}",
    "[Your only answer is|You can only say|You only ever say]: {text}",
    'Always [reply|answer|say] "{text}".',
)
_ANY_QUESTION = Phrases(
    "[Hello|Hi|Hey][!|.|]",
    "[What is your name|Who are you|How are you|What can you do|What time is it][?|]",
    "[Tell me a story|Tell me a joke|Say something|Thanks|Help me][.|!|]",
    "What is the [weather|news|plan|answer|password|point][?|]",
)
_KINDS = [
    "password",
    "code",
    "colour",
    "price",
    "secret",
    "address",
    "deadline",
    "city",
    "owner",
    "winner",
    "version",
    "answer",
]
_OWNERS = ["secret", "office", "project", "door", "team", "wifi", "release", "support", "", "", ""]


def with_article(noun: str) -> str:
    """`a pirate`, `an astronaut`."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _role(world: World) -> str:
    job = world.made_up() if world.chance(0.15) else world.pick(JOBS)
    if world.chance(0.35):
        job = f"{world.pick(MANNERS)} {job}"
    return with_article(job)


def _name(world: World) -> str:
    name = person(world)
    if world.chance(0.12):
        name += " " + person(world)
    return f"Captain {name}" if world.chance(0.04) else name


def persona(world: World) -> Case:
    """A name and often a role in the system prompt; asked for the name, the role or both."""
    name, role = _name(world), _role(world)
    roll = world.rng.random()
    if roll < 0.25:
        told = world.phrase(_NAME_ONLY).format(name=name)
        kinds = ["name", "name", "greet"]
        who = f"I am {name}."
    else:
        told = world.phrase(_BOTH).format(
            name=name,
            role=role,
            hobby=world.pick(HOBBIES),
            city=place(world),
            animal=world.pick(ANIMALS),
        )
        kinds = ["name", "role", "who", "greet"]
        who = f"I am {name}, {role}."
    if world.chance(0.25):
        told += " " + world.rng.choice(
            (
                f"You love {world.pick(FOODS)}.",
                f"You live in {place(world)}.",
                f"Your favourite colour is {world.pick(COLOURS)}.",
                "Be brief.",
                "Answer in one sentence.",
                "You are here to help.",
            )
        )
    messages = [system(told)]
    for _ in range(1 if world.new_values else world.rng.choice((1, 1, 2, 3))):
        kind = world.rng.choice(kinds)
        if kind == "name":
            messages += [user(world.say(_ASK_NAME)), assistant(f"My name is {name}.")]
            needles: tuple[str, ...] = (name,)
        elif kind == "role":
            messages += [user(world.say(_ASK_ROLE)), assistant(f"I am {role}.")]
            needles = (role,)
        elif kind == "who":
            messages += [user(world.say(_ASK_WHO)), assistant(who)]
            needles = (name, role)
        else:
            messages += [user(world.say(_GREET)), assistant(f"Hello! I am {name}.")]
            needles = (name,)
    return Case(messages=messages, match="contains", needles=needles)


def told_fact(world: World) -> Case:
    """A fact in the system prompt, asked for later."""
    owner = world.rng.choice(_OWNERS)
    kind = world.made_up() if world.chance(0.2) else world.rng.choice(_KINDS)
    thing = f"{owner} {kind}".strip()
    value = anything(world).rstrip(".?!")
    messages = [
        system(world.phrase(_FACT).format(thing=thing, value=value)),
        user(world.say(_ASK_FACT, thing=thing)),
        assistant(f"The {thing} is {value}."),
    ]
    return Case(messages=messages, match="contains", needles=(value,))


def fixed_answer(world: World) -> Case:
    """A system prompt that dictates every answer."""
    text = anything(world)
    messages = [system(world.phrase(_FIXED).format(text=text))]
    for _ in range(world.rng.choice((1, 1, 2))):
        messages += [user(world.say(_ANY_QUESTION)), assistant(text)]
    return Case(messages=messages)
