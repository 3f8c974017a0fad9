"""Words and phrasings, each split by hash into what training sees and what only tests see."""

import random
import re
import zlib
from collections.abc import Callable, Sequence
from itertools import product

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SYLLABLE_STARTS = [
    "b",
    "bl",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "qu",
    "r",
    "s",
    "sh",
    "sk",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "x",
    "z",
]
_VOWELS = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ee", "oo", "ou"]
_SYLLABLE_ENDS = [
    "",
    "",
    "",
    *["l", "m", "n", "r", "s", "t", "k", "x", "nd", "rn", "sk", "st", "th"],
]
_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def is_held_out(text: str) -> bool:
    """Whether a word or phrasing belongs to the tests: one in five, by its checksum."""
    return zlib.crc32(text.lower().encode()) % 5 == 0


def expand(pattern: str) -> list[str]:
    """Spell out `[a|b]` alternatives: `"[Hi|Hello] there"` gives two phrasings."""
    parts = [part.split("|") if i % 2 else [part] for i, part in enumerate(_CHOICE.split(pattern))]
    return ["".join(choice) for choice in product(*parts)]


class Pool:
    """A closed set of words; `seen` and `held_out` never share one."""

    def __init__(self, words: str | Sequence[str], separator: str | None = None) -> None:
        """Split `words`; a plain string is cut at `separator` (white space by default)."""
        items = words.split(separator) if isinstance(words, str) else list(words)
        items = list(dict.fromkeys(item.strip() for item in items))
        self.seen = [item for item in items if not is_held_out(item)]
        self.held_out = [item for item in items if is_held_out(item)]
        if not self.held_out and len(self.seen) > 1:
            self.held_out = [self.seen.pop()]
        if not self.seen and len(self.held_out) > 1:
            self.seen = [self.held_out.pop()]


class Phrases(Pool):
    """Sentence templates with `{slots}`, written with `[a|b]` alternatives."""

    def __init__(self, *patterns: str) -> None:
        """Expand every pattern, then split the expanded phrasings."""
        super().__init__([phrase for pattern in patterns for phrase in expand(pattern)])
        # A long pattern must not drown a short one, so a phrasing is drawn in two steps.
        self.seen_groups = self._groups(patterns, held_out=False)
        self.held_out_groups = self._groups(patterns, held_out=True)

    def _groups(self, patterns: Sequence[str], *, held_out: bool) -> list[list[str]]:
        side = set(self.held_out if held_out else self.seen)
        groups = [[p for p in map(str.strip, expand(x)) if p in side] for x in patterns]
        return [group for group in groups if group]


class World:
    """Draws words and phrasings from one side of the split.

    Args:
        rng: The only source of randomness.
        new_values: Draw words that training never sees.
        new_phrasings: Draw phrasings that training never sees.
    """

    def __init__(
        self, rng: random.Random, *, new_values: bool = False, new_phrasings: bool = False
    ) -> None:
        self.rng = rng
        self.new_values = new_values
        self.new_phrasings = new_phrasings

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def pick(self, pool: Pool) -> str:
        """One word of the pool."""
        items = pool.held_out if self.new_values else pool.seen
        return self.rng.choice(items or pool.seen)

    def pick_some(self, pool: Pool, count: int) -> list[str]:
        """`count` different words of the pool, fewer when it has fewer."""
        items = (pool.held_out if self.new_values else pool.seen) or pool.seen
        return self.rng.sample(items, min(count, len(items)))

    def phrase(self, phrases: Phrases) -> str:
        """One phrasing, its slots not yet filled."""
        groups = phrases.held_out_groups if self.new_phrasings else phrases.seen_groups
        return self.rng.choice(self.rng.choice(groups or phrases.seen_groups))

    def say(self, phrases: Phrases, **slots: object) -> str:
        """A phrasing as a person types it: sometimes lower-cased, unpunctuated or polite."""
        return self.casual(self.phrase(phrases)).format(**slots)

    def casual(self, template: str) -> str:
        """Add typing noise to a template; the values that fill it later stay exact."""
        rng = self.rng
        if rng.random() < 0.2:
            template = template.lower()
        elif rng.random() < 0.03 and "{" not in template:
            template = template.upper()
        if rng.random() < 0.2 and template[-1] in ".?!" and not template.endswith("}."):
            template = template[:-1]
        if rng.random() < 0.06:
            template = (
                rng.choice(("Please ", "please, ", "Hey, ", "ok, ", "Hi! ", "So, ")) + template
            )
        return template

    def number(self, low: int, high: int) -> int:
        """A whole number of the right side; ranges below 20 are too short to split."""
        while True:
            number = self.rng.randint(low, high)
            if high - low < 20 or is_held_out(str(number)) == self.new_values:
                return number

    def _own(self, make: Callable[[], str]) -> str:
        while True:
            text = make()
            if is_held_out(text) == self.new_values:
                return text

    def made_up(self) -> str:
        """A pronounceable word that nobody has seen, such as `zarnak`."""
        return self._own(self._syllables)

    def _syllables(self) -> str:
        rng = self.rng
        count = rng.choice((1, 2, 2, 2, 2, 3))
        return "".join(
            rng.choice(_SYLLABLE_STARTS) + rng.choice(_VOWELS) + rng.choice(_SYLLABLE_ENDS)
            for _ in range(count)
        )

    def code(self) -> str:
        """A meaningless identifier such as `B7-k20Q`."""
        return self._own(self._letters_and_digits)

    def _letters_and_digits(self) -> str:
        rng = self.rng
        alphabet = rng.choice((_ALPHANUMERIC, _ALPHANUMERIC[26:], _ALPHANUMERIC[:26]))
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(3, 9)))
        if rng.random() < 0.25:
            text = text[:2] + rng.choice("-_.:/") + text[2:]
        return text
