"""What the model reads when: the share of each skill as training goes on."""

import random
from collections.abc import Callable, Iterator

from training.chat.case import Case
from training.chat.skill_counting import add_digits, count_up, count_words
from training.chat.skill_facts import fact
from training.chat.skill_json import write_json
from training.chat.skill_languages import name_language
from training.chat.skill_passages import list_item, passage
from training.chat.skill_persona import fixed_answer, persona, told_fact
from training.chat.skill_recall import quote, recall, recall_far, repeat
from training.chat.skill_safety import label_safety
from training.chat.skill_talk import ask_beyond, talk
from training.chat.skill_tools import call_tool, call_two, no_call, use_result
from training.pools import World

Skill = Callable[[World], Case]

SKILLS: dict[str, tuple[tuple[Skill, float], ...]] = {
    "a. greetings and identity": ((talk, 1.2),),
    "b. name and persona": ((persona, 1.6), (told_fact, 0.9), (fixed_answer, 0.5)),
    "c. repeat and quote": ((repeat, 1.8), (quote, 0.9)),
    "c. recall": ((recall, 1.2),),
    "d. call the right tool": ((call_tool, 3.5),),
    "d. two calls at once": ((call_two, 2.0),),
    "d. use a tool's result": ((use_result, 0.5),),
    "d. leave tools alone": ((no_call, 2.8),),
    "e. answer from a passage": ((passage, 4.0), (list_item, 1.0)),
    "f. name the language": ((name_language, 2.5),),
    "g. safe or unsafe": ((label_safety, 2.5),),
    "h. count": ((count_up, 1.2), (count_words, 3.5)),
    "h. one-digit sums": ((add_digits, 1.5),),
    "i. write JSON": ((write_json, 4.5),),
}
"""Every measured skill, its generators and their shares."""

_ALL = [pair for pairs in SKILLS.values() for pair in pairs] + [(ask_beyond, 0.8), (fact, 0.8)]
_LONG_CHARACTERS = 2900


def draw_case(world: World, skill: str) -> Case:
    """One case of a measured skill."""
    makers, shares = zip(*SKILLS[skill], strict=True)
    maker: Skill = world.rng.choices(makers, shares)[0]
    return maker(world)


def draw_mixed(world: World, progress: float, *, long: bool = False) -> Case:
    """One training case.

    Args:
        progress: How far training is, 0 to 1; the first tool cases are the easy ones.
        long: Whether to draw one that fills the whole context.
    """
    if long:
        most = 600 + int((_LONG_CHARACTERS - 600) * min(1.0, progress / 0.7))
        return recall_far(world, world.rng.randint(400, most))
    makers, shares = zip(*_ALL, strict=True)
    maker: Skill = world.rng.choices(makers, shares)[0]
    if maker is call_tool:
        max_tools = 1 if progress < 0.1 else 2 if progress < 0.2 else 4
        return call_tool(world, max_tools=max_tools, invented_share=0.55)
    return maker(world)


def sample_texts(seed: int, count: int) -> Iterator[Case]:
    """Cases for the tokenizer to learn from."""
    world = World(random.Random(seed))
    for _ in range(count):
        yield draw_mixed(world, 1.0)
