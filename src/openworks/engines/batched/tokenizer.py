"""Text to tokens, and what a model's files say of its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers

from openworks.core.errors import ModelUnavailableError
from openworks.core.json import JsonObject, JsonValue
from openworks.engines.batched.token_bytes import TokenDecoder, read_decoder

_ENDS_OF_TURNS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|return|>",
    "<|call|>",
)
"""Special tokens that end an answer, whether the model's files say so or not."""
_HARMONY_END = "<|end|>"
"""Ends a message, not the answer, in the format that has `<|return|>` too."""
_CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
)
"""The files that speak of tokens; what an earlier one says stands."""
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class Tokenizer:
    """A model's vocabulary. Safe to use from several threads."""

    def __init__(
        self, backend: tokenizers.Tokenizer, *, configs: Sequence[JsonObject] = ()
    ) -> None:
        """Take a vocabulary.

        Args:
            backend: What `tokenizer.json` holds; it is the tokenizer's from now on.
            configs: The contents of the files beside it, in the order of precedence.

        Raises:
            ModelUnavailableError: It decodes in a way that is not known here, or its files
                contradict each other.
        """
        backend.no_padding()
        backend.no_truncation()
        for config in configs:
            _add_missing_tokens(backend, config)
        self._backend = backend
        self.decoder: TokenDecoder = read_decoder(backend.to_str())
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.num_tokens = 1 + max(vocabulary.values())
        """Ids from here on are padding of the model's tables."""
        texts: list[str | None] = [None] * self.num_tokens
        for text, token in vocabulary.items():
            texts[token] = text
        self.unused_ids = tuple(token for token, text in enumerate(texts) if text is None)
        """Ids below `num_tokens` that stand for nothing."""
        self._texts = [text or "" for text in texts]
        self._bytes = [self.decoder.bytes_of(text) for text in self._texts]
        added = backend.get_added_tokens_decoder()
        self.added_ids: Mapping[str, int] = {each.content: id_ for id_, each in added.items()}
        """Tokens that are matched as a whole, special or not: text → id."""
        self.special_tokens = _special_tokens(configs)
        """Names of templates' variables, such as `bos_token` → text."""
        named = {self.added_ids.get(text) for text in self.special_tokens.values()}
        named |= {self.added_ids.get(text) for text in _further_special_tokens(configs)}
        marked = {id_ for id_, each in added.items() if each.special}
        marked |= {id_ for config in configs for id_ in _marked_special(config)}
        self.special_ids = frozenset(marked | {id_ for id_ in named if id_ is not None})
        """Tokens that are no text of an answer."""
        self.bos_id = vocabulary.get(self.special_tokens.get("bos_token", ""))
        self.eos_ids = self._eos_ids(configs)
        """Tokens that end an answer, in ascending order."""
        self._prefix = self._found_prefix(configs)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read a model's folder.

        Raises:
            ModelUnavailableError: There is no `tokenizer.json`, or it cannot be read.
        """
        path = folder / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as exc:  # the library raises nothing more specific
            raise ModelUnavailableError(f"No tokenizer can be read from {path}: {exc}") from exc
        return cls(backend, configs=[_read_json(folder / name) for name in _CONFIGS])

    def encode(self, text: str, *, add_bos: bool, parse_special: bool = True) -> list[int]:
        """Return the tokens of a text.

        Args:
            text: Well-formed Unicode.
            add_bos: Put before it what the model wants before a text, if it wants anything and the
                text does not begin with it: what a template made often does.
            parse_special: Read `<|im_end|>` and its like as tokens. Otherwise they are letters;
                added tokens that are not special are read as tokens either way.
        """
        backend = self._backend if parse_special else self._literal_backend
        ids = backend.encode(text, add_special_tokens=False).ids
        prefix = self._prefix if add_bos else []
        return ids if ids[: len(prefix)] == prefix else [*prefix, *ids]

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token: a part of a character, it may be; none for padding."""
        return self._bytes[token] if token < self.num_tokens else b""

    def first_token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token that begins a text."""
        if not self.decoder.mark_cut or token >= self.num_tokens:
            return self.token_bytes(token)
        return self.decoder.first_bytes_of(self._texts[token])

    def token_text(self, token: int) -> str:
        """Return a token for human eyes; what is not a whole character becomes U+FFFD."""
        return self.token_bytes(token).decode(errors="replace")

    def vocabulary_json(self) -> str:
        """Return the vocabulary as a `tokenizer.json`, with all its added tokens."""
        return self._backend.to_str()

    @cached_property
    def _literal_backend(self) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = True  # a switch of the object: hence another one
        return backend

    def _eos_ids(self, configs: Sequence[JsonObject]) -> tuple[int, ...]:
        named = self.added_ids.get(self.special_tokens.get("eos_token", ""))
        found = set() if named is None else {named}
        for config in configs:
            value = config.get("eos_token_id")
            values = value if isinstance(value, list) else [value]
            found |= {each for each in values if isinstance(each, int)}
        for text in _ENDS_OF_TURNS:
            is_inner = text == _HARMONY_END and "<|return|>" in self.added_ids
            if self.added_ids.get(text) in self.special_ids and not is_inner:
                found.add(self.added_ids[text])
        return tuple(sorted(token for token in found if 0 <= token < self.num_tokens))

    def _found_prefix(self, configs: Sequence[JsonObject]) -> list[int]:
        """Return what the model wants before a text, as its files say or its tokenizer does."""
        for config in configs:
            if isinstance(wanted := config.get("add_bos_token"), bool):
                return [self.bos_id] if wanted and self.bos_id is not None else []
        plain = self._backend.encode("a", add_special_tokens=False).ids
        whole = self._backend.encode("a", add_special_tokens=True).ids
        starts = range(len(whole) - len(plain) + 1)
        return next((whole[:at] for at in starts if whole[at : at + len(plain)] == plain), [])


def _read_json(path: Path) -> JsonObject:
    """Return what is in a file; nothing, if there is none."""
    try:
        value: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ModelUnavailableError(f"{path} cannot be read: {exc}") from exc
    return value if isinstance(value, dict) else {}


def _special_tokens(configs: Sequence[JsonObject]) -> Mapping[str, str]:
    """Return the named tokens; the first file that names one decides."""
    found: dict[str, str] = {}
    for config in configs:
        for name in _NAMED:
            if (text := _content(config.get(name))) is not None:
                found.setdefault(name, text)
    return found


def _further_special_tokens(configs: Sequence[JsonObject]) -> Iterator[str]:
    for config in configs:
        for name in ("additional_special_tokens", "extra_special_tokens"):
            value = config.get(name)
            several = value if isinstance(value, list) else []
            for each in value.values() if isinstance(value, dict) else several:
                if (text := _content(each)) is not None:
                    yield text


def _content(value: JsonValue) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _declared(config: JsonObject) -> Iterator[tuple[int, JsonObject]]:
    """Yield the tokens that a `tokenizer_config.json` adds, by id."""
    declared = config.get("added_tokens_decoder")
    if isinstance(declared, dict):
        pairs = [(int(id_), token) for id_, token in declared.items()]
        for id_, token in sorted(pairs, key=lambda pair: pair[0]):
            if isinstance(token, dict):
                yield id_, token


def _marked_special(config: JsonObject) -> Iterator[int]:
    return (id_ for id_, token in _declared(config) if token.get("special") is True)


def _add_missing_tokens(backend: tokenizers.Tokenizer, config: JsonObject) -> None:
    for id_, token in _declared(config):
        text = _content(token)
        if text is None or backend.id_to_token(id_) == text:
            continue
        flags = {
            name: token.get(name) is True for name in ("lstrip", "rstrip", "single_word", "special")
        }
        backend.add_tokens([tokenizers.AddedToken(text, normalized=False, **flags)])
        if backend.token_to_id(text) != id_:
            raise ModelUnavailableError(
                f"tokenizer_config.json gives the token {text!r} the id {id_}, "
                f"tokenizer.json has it as {backend.token_to_id(text)}."
            )
