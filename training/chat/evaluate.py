"""Scores of the exported GGUF on cases that training never saw, decoded greedily."""

import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from training.chat.case import Case, Message
from training.chat.mixture import SKILLS, draw_case
from training.chat.skill_recall import recall_far
from training.pools import World
from training.server import LocalServer

log = logging.getLogger(__name__)

_EVALUATION_SEED = 20_000_003
_FAR_CHARACTERS = 2500
FAR_SKILL = "c. recall over about 1,500 tokens"


@dataclass(slots=True)
class Score:
    """How one skill fared."""

    skill: str
    num_cases: int
    new_words: int
    """Right answers where words are new and phrasings known."""
    new_phrasings: int
    """Right answers where words and phrasings are new."""
    prompt_tokens: list[int] = field(default_factory=list)
    failures: list[tuple[list[Message], Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Right answers among both kinds of cases."""
        return (self.new_words + self.new_phrasings) / (2 * self.num_cases)


def evaluate(path: Path, num_cases: int, *, threads: int = 2) -> list[Score]:
    """Ask `num_cases` of each kind for every skill.

    Args:
        path: The GGUF file.
        num_cases: Cases with new words, and as many with new words and phrasings.
        threads: Threads of the server.
    """
    server = LocalServer(path, threads=threads)
    makers: dict[str, Callable[[World], Case]] = {
        skill: partial(draw_case, skill=skill) for skill in SKILLS
    }
    makers[FAR_SKILL] = lambda world: recall_far(world, _FAR_CHARACTERS)
    scores = []
    for index, (skill, make) in enumerate(makers.items()):
        score = Score(skill, num_cases, 0, 0)
        for new_phrasings in (False, True):
            rng = random.Random(_EVALUATION_SEED + 2 * index + new_phrasings)
            world = World(rng, new_values=True, new_phrasings=new_phrasings)
            right = sum(_is_right(server, make(world), score) for _ in range(num_cases))
            if new_phrasings:
                score.new_phrasings = right
            else:
                score.new_words = right
        log.info("%s: %d, %d of %d", skill, score.new_words, score.new_phrasings, num_cases)
        scores.append(score)
    return scores


def _is_right(server: LocalServer, case: Case, score: Score) -> bool:
    body: dict[str, Any] = {"messages": as_sent(case.messages[:-1]), "max_tokens": 200}
    if case.tools:
        body["tools"] = case.tools
        body["parallel_tool_calls"] = True
    answer = server.chat(body)
    if "choices" not in answer:
        score.failures.append((case.messages, answer))
        return False
    score.prompt_tokens.append(answer["usage"]["prompt_tokens"])
    message = answer["choices"][0]["message"]
    right = case.accepts(message)
    if not right:
        score.failures.append((case.messages, message))
    return right


def as_sent(messages: list[Message]) -> list[Message]:
    """Messages as an OpenAI client sends them: arguments as text, results with ids."""
    sent: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            sent.append({**message, "tool_call_id": waiting.pop(0)})
            continue
        if "tool_calls" not in message:
            sent.append(message)
            continue
        calls = []
        for index, call in enumerate(message["tool_calls"]):
            name = call["function"]["name"]
            arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
            waiting.append(f"call_{len(sent)}_{index}")
            function = {"name": name, "arguments": arguments}
            calls.append({"id": waiting[-1], "type": "function", "function": function})
        sent.append({**message, "tool_calls": calls})
    return sent
