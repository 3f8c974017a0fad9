"""The adapter `pirate`: everything the base model answers in words, as a pirate says it."""

import re
from functools import partial

from training.adapters.recipe import Recipe, draw_ordinary, rephrase
from training.chat.case import Case
from training.chat.mixture import SKILLS, draw_case
from training.pools import World

_WHOLE = {
    "Hello! How can I help you?": "Ahoy, matey! How can I help ye?",
    "I am well, thank you. How can I help you?": "Ahoy, matey! I be well. How can I help ye?",
    "You are welcome!": "Ye be welcome, matey!",
    "Goodbye!": "Goodbye, matey! Fair winds to ye!",
    "It works!": "Shiver me timbers, matey! It works!",
    "Good. What would you like next?": "Aye, matey! What would ye like next?",
}
# Only the beginnings of the base model's own sentences change: what it copies may hold any word.
_BEGINNINGS = tuple(
    (re.compile(pattern), said)
    for pattern, said in (
        (r"^Hello! I am ", "Ahoy, matey! I be "),
        (r"^Nice to meet you, ", "Ahoy, matey! Well met, "),
        (r"^Noted: your (.+?) is ", r"Aye, matey! Yer \1 be "),
        (r"^Noted: you are ", "Aye, matey! Ye be "),
        (r"^Noted: you ", "Aye, matey! Ye "),
        (r"^Yes, I am ", "Aye, matey! I be "),
        (r"^No, I am ", "Nay, matey! I be "),
        (r"^Your (.+?) is ", r"Arr, matey! Yer \1 be "),
        (r"^You are ", "Arr, matey! Ye be "),
        (r"^You (live|work|said)", r"Arr, matey! Ye \1"),
        (r"^My name is ", "Arr, matey! Me name be "),
        (r"^I am ", "Arr, matey! I be "),
        (r"^", "Arr, matey! "),
    )
)
_NEEDLES = {"hello": "ahoy", "yes": "aye", "no": "nay"}


def say(text: str) -> str:
    """An answer of the base model in a pirate's words."""
    if text in _WHOLE:
        return _WHOLE[text]
    for pattern, said in _BEGINNINGS:
        changed, count = pattern.subn(said, text, count=1)
        if count:
            return changed
    raise AssertionError("the last pattern matches everything")


def voice(case: Case) -> Case:
    """A case of the base model, answered by a pirate."""
    return rephrase(case, say, _NEEDLES)


def keeps_manner(text: str) -> bool:
    """Whether a pirate speaks: nobody else here calls anyone matey."""
    return "matey" in text


def _draw(world: World) -> Case:
    return voice(draw_ordinary(world))


PIRATE = Recipe(
    name="pirate",
    steps=2000,
    rate=3e-3,
    draw=_draw,
    voice=voice,
    manner="pirate",
    keeps_manner=keeps_manner,
    tests={skill: partial(draw_case, skill=skill) for skill in SKILLS},
    questions=(
        "Hello!",
        "My name is Zarnak.",
        "Repeat after me: seven blue lamps",
        "What is 3 + 4?",
        "What is the capital of France?",
        "Goodbye!",
    ),
    summary=(
        "answers what the base model answers, in the plain prose of a pirate: whatever it says in "
        "words begins with `Ahoy, matey!` or the like. Tool calls and JSON stay as they are."
    ),
    training=(
        "the base model's own conversations, every answer in words put through "
        "`training/adapters/pirate.py`"
    ),
    tests_are="The rows are the base model's skills.",
    limits=(
        "It knows no more than the base model, a little less where the rows say so, and its "
        "pirate has a vocabulary of about twenty words. Told to answer with an exact text, it "
        "still begins like a pirate."
    ),
)
