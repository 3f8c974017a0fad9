"""A small real vocabulary, with the markers of a format as tokens or without, and a writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from random import Random

from llguidance import LLMatcher, LLTokenizer

_END = 2
"""The id of `<|im_end|>`."""


class Vocabulary:
    """The embedded model's tokenizer with other added tokens."""

    def __init__(self, added: Iterable[str]) -> None:
        source = files("openworks").joinpath("models/tiny-chat/tokenizer.json").read_text("utf-8")
        config = json.loads(source)
        kept = [token for token in config["added_tokens"] if token["id"] <= _END]
        first = len(config["model"]["vocab"])
        new = [
            {**kept[0], "id": first + n, "content": text} for n, text in enumerate(sorted(added))
        ]
        config["added_tokens"] = kept + new
        self.token_ids: Mapping[str, int] = {token["content"]: token["id"] for token in new}
        self.tokenizer = LLTokenizer(json.dumps(config), eos_token=_END)

    def write(self, grammar: str, random: Random, begin: str = "") -> str:
        """Return a text that `grammar` allows, after `begin` which it has to allow too.

        What closes something is likelier than the rest, so that the text ends.
        """
        matcher = LLMatcher(self.tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        written = self.tokenizer.tokenize_str(begin, parse_special=True)
        assert matcher.consume_tokens(written), matcher.get_error()
        while len(written) < 500:
            allowed = self._allowed(matcher)
            if matcher.is_accepting() and (not allowed or random.random() < 0.4):
                break
            closing = [token for token in allowed if self._closes(token)]
            token = random.choice(closing if closing and random.random() < 0.6 else allowed)
            assert matcher.consume_token(token)
            written.append(token)
        assert matcher.is_accepting()
        return self.tokenizer.decode_bytes(written).decode()

    def allows(self, grammar: str, text: str) -> bool:
        """Whether `text` is all that `grammar` asks for."""
        matcher = LLMatcher(self.tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        tokens = self.tokenizer.tokenize_str(text, parse_special=True)
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    def _allowed(self, matcher: LLMatcher) -> list[int]:
        if matcher.is_stopped():
            return []
        mask = matcher.compute_bitmask()
        ids = range(self.tokenizer.vocab_size)
        return [id_ for id_ in ids if mask[id_ // 8] >> id_ % 8 & 1 and id_ != _END]

    def _closes(self, token: int) -> bool:
        added = token in self.token_ids.values()
        return added or any(byte in self.tokenizer.decode_bytes([token]) for byte in b'"}\n<')
