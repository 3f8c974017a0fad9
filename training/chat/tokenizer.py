"""A byte-level BPE in which a word has the same tokens wherever it stands.

Copying is what a small model does best, and it copies token by token. In the usual byte-level BPE
" Zarnak" and "Zarnak" share no tokens; here no merge joins a space, a digit or a punctuation mark
to anything, so they differ by one leading space token. The result still declares the ordinary
pre-tokenizer that llama.cpp calls `smollm`: merges that do not exist cannot be applied.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE = 1024
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALL_START, CALL_END = "<tool_call>", "</tool_call>"
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
VISIBLE_TOKENS = (CALL_START, CALL_END)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn merges inside words only, then declare the pre-tokenizer that everyone knows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\p{L}\p{M}]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(VISIBLE_TOKENS),
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=12,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False) for text in VISIBLE_TOKENS])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a trained `tokenizer.json`."""
    return Tokenizer.from_file(str(path))


def id_of(tokenizer: Tokenizer, text: str) -> int:
    """The id of a token that must exist."""
    index = tokenizer.token_to_id(text)
    if index is None:
        raise KeyError(f"The tokenizer has no token {text!r}.")
    return index
