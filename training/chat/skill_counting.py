"""Skill h: count up and down, count words and items, add two digits."""

from training.chat.case import Case, assistant, user
from training.pools import Phrases, World, is_held_out
from training.words import FOODS, PLAIN, THINGS

_NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
]
_COUNT_TO = Phrases(
    "[Count|Please count|Can you count|Count up|Count for me|Now count] to {n}[.|]",
    "[List|Write|Print|Say|Give me] the numbers [up to|from 1 to|from one to] {n}[.|]",
)
_COUNT_FROM = Phrases(
    "[Count|Please count|Can you count|Count up] from {m} to {n}[.|]",
    "[List|Write|Print|Say|Give me] [the numbers|all numbers|numbers] from {m} to {n}[.|]",
)
_COUNT_DOWN = Phrases(
    "[Count down|Count backwards|Please count down] from {n}[ to 1|][.|]",
)
_HOW_MANY_WORDS = Phrases(
    "[How many words are|Count the words|How many words do you see] in[:| this:| this text:] "
    "{text}",
    "How many words does [this|the following] [have|contain][:|?] {text}",
    "[Count the words|Count words|Number of words|Word count]: {text}",
)
_HOW_MANY_ITEMS = Phrases(
    "[How many items are|Count the items|How many things are] in[ this list|][:| the list] {text}",
    "[Count these|Count the items|How many]: {text}",
    "I have {text}. How many [things|items] do I have[?|]",
)
_SUM = Phrases(
    "What is {a} [+|plus] {b}[?|]",
    "[What's|Calculate|Compute|How much is|Tell me|And] {a} [+|plus] {b}[?|]",
    "[Add|Please add|Sum|Add up] {a} and {b}[.|]",
    "[What is the|Compute the|Give me the|Find the] sum of {a} and {b}[.|?|]",
    "{a} [+|plus] {b}[ =| = ?|?| is| makes]",
    "[If I have|I have|Tom has] {a} {thing}s and [get|buy|find] {b} more, how many [are there|is "
    "that][?|]",
)
_NEXT = Phrases(
    "[What|Which number] comes after {n}[?|]",
    "What is the [next number after|number after|successor of] {n}[?|]",
)


def _numbers(first: int, last: int) -> str:
    step = 1 if first <= last else -1
    return ", ".join(str(number) for number in range(first, last + step, step))


def _spoken(world: World, number: int) -> str:
    """The number in digits, sometimes as a word."""
    if number < len(_NUMBER_WORDS) and world.chance(0.12):
        return _NUMBER_WORDS[number]
    return str(number)


def count_up(world: World) -> Case:
    """`1, 2, 3`: the test ranges are pairs of ends that training never saw together."""
    rng = world.rng
    roll = rng.random()
    if roll < 0.35:
        n = rng.randint(2, 25)
        asked, text = world.say(_COUNT_TO, n=_spoken(world, n)), _numbers(1, n)
    elif roll < 0.85:
        while True:
            first = rng.choice((0, 1, 1, rng.randint(0, 95)))
            last = min(first + rng.randint(2, 19), 110)
            if is_held_out(f"count {first} {last}") == world.new_values:
                break
        asked = world.say(_COUNT_FROM, m=_spoken(world, first), n=_spoken(world, last))
        text = _numbers(first, last)
    elif roll < 0.93:
        n = rng.randint(2, 20)
        asked, text = world.say(_COUNT_DOWN, n=_spoken(world, n)), _numbers(n, 1)
    else:
        n = world.number(0, 110)
        asked, text = world.say(_NEXT, n=n), f"{n + 1}"
    return Case(messages=[user(asked), assistant(text)])


def count_words(world: World) -> Case:
    """How many words or items, up to ten."""
    number = world.rng.randint(1, 10)
    if world.chance(0.55):
        words = [
            world.made_up() if world.chance(0.15) else world.pick(PLAIN) for _ in range(number)
        ]
        asked = world.say(_HOW_MANY_WORDS, text=" ".join(words))
    else:
        number = max(number, 2)
        pool = world.rng.choice((FOODS, THINGS, PLAIN))
        items = [world.pick(pool) for _ in range(number)]
        joined = (
            ", ".join(items) if world.chance(0.7) else ", ".join(items[:-1]) + " and " + items[-1]
        )
        asked = world.say(_HOW_MANY_ITEMS, text=joined)
    return Case(messages=[user(asked), assistant(str(number))])


def add_digits(world: World) -> Case:
    """One-digit sums; all hundred facts are learned, the tests ask them in new ways.

    A sum that was never seen cannot be known, so what is held out is the pair together with a
    phrasing, not the pair.
    """
    rng = world.rng
    while True:
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        template = world.phrase(_SUM)
        if is_held_out(f"{a} {b} {template}") == world.new_values:
            break
    left, right = _spoken(world, a), _spoken(world, b)
    asked = world.casual(template).format(a=left, b=right, thing=world.pick(THINGS))
    return Case(messages=[user(asked), assistant(f"{a} + {b} = {a + b}")])
