"""Drills in copying and looking up, with tokens that mean nothing."""

import random
from dataclasses import dataclass

from tokenizers import Tokenizer

from training.chat.tokenizer import CONTROL_TOKENS, TURN_END, TURN_START, VISIBLE_TOKENS, id_of


@dataclass(frozen=True, slots=True)
class Sequence:
    """One conversation; `weights[i]` tells how much it matters to predict `ids[i]`."""

    ids: list[int]
    weights: list[float]


def answer_weights(num_tokens: int) -> list[float]:
    """A label of two tokens must not drown among calls of fifty: each weighs one over the root."""
    return [num_tokens**-0.5] * num_tokens if num_tokens else []


class Drills:
    """Draws sequences of random tokens in the form of a conversation."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._start = id_of(tokenizer, TURN_START)
        self._end = id_of(tokenizer, TURN_END)
        self._user = tokenizer.encode("user\n").ids
        self._assistant = tokenizer.encode("assistant\n").ids
        self._line = tokenizer.encode("\n").ids
        self._colon = tokenizer.encode(": ").ids
        self._space = tokenizer.encode(" ").ids
        special = {id_of(tokenizer, text) for text in (*CONTROL_TOKENS, *VISIBLE_TOKENS)}
        self._plain = [i for i in range(tokenizer.get_vocab_size()) if i not in special]

    def draw(self, rng: random.Random) -> Sequence:
        """A copy of distinct tokens, a copy of tokens that recur, or a table to look up in."""
        roll = rng.random()
        if roll < 0.25:
            return self._copy(rng, self._plain)
        # Where few tokens recur, the one before does not tell which comes next; the two or three
        # before do. Ordinary text, with its spaces, is like that.
        alphabet = rng.sample(self._plain, rng.randint(3, 24))
        if roll < 0.6:
            return self._copy(rng, alphabet)
        return self._look_up(rng, alphabet if rng.random() < 0.5 else self._plain)

    def _tokens(self, rng: random.Random, alphabet: list[int], count: int) -> list[int]:
        tokens = [rng.choice(alphabet) for _ in range(count)]
        if rng.random() < 0.5:
            for place in range(rng.randint(1, 3), count, rng.randint(2, 4)):
                tokens[place] = self._space[0]
        return tokens

    def _copy(self, rng: random.Random, alphabet: list[int]) -> Sequence:
        count = rng.randint(2, 40) if rng.random() < 0.85 else rng.randint(40, 100)
        tokens = self._tokens(rng, alphabet, count)
        # A copy that starts in the middle is announced by its first tokens.
        start = 0 if rng.random() < 0.5 else rng.randrange(count)
        cue = tokens[start : start + 3] if start else []
        turns = _Turns(self._start, self._end, self._line)
        turns.add([*self._user, *tokens, *self._line, *cue])
        turns.add(self._assistant, tokens[start:])
        return turns.sequence()

    def _look_up(self, rng: random.Random, alphabet: list[int]) -> Sequence:
        table: dict[tuple[int, ...], list[int]] = {}
        for _ in range(rng.randint(2, 9)):
            key = tuple(self._tokens(rng, self._plain, rng.randint(1, 3)))
            table[key] = self._tokens(rng, alphabet, rng.randint(1, 6))
        rows = [[*key, *self._colon, *value, *self._line] for key, value in table.items()]
        turns = _Turns(self._start, self._end, self._line)
        asked = rng.sample(list(table), min(len(table), 4))
        turns.add([*self._user, *(token for row in rows for token in row), *asked[0]])
        turns.add(self._assistant, table[asked[0]])
        for key in asked[1:]:
            turns.add([*self._user, *key])
            turns.add(self._assistant, table[key])
        return turns.sequence()


class _Turns:
    """Puts turns together and marks the answers."""

    def __init__(self, start: int, end: int, line: list[int]) -> None:
        self._start, self._end, self._line = start, end, line
        self._ids: list[int] = []
        self._weights: list[float] = []

    def add(self, said: list[int], answer: list[int] | None = None) -> None:
        """One turn; only `answer` and the mark that ends it have to be learned."""
        learned = [] if answer is None else [*answer, self._end]
        closing = self._line if learned else [self._end, *self._line]
        self._ids += [self._start, *said, *learned, *closing]
        self._weights += [0.0] * (1 + len(said)) + answer_weights(len(learned))
        self._weights += [0.0] * len(closing)

    def sequence(self) -> Sequence:
        """What was put together."""
        return Sequence(self._ids, self._weights)
