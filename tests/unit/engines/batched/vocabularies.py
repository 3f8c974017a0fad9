"""Small vocabularies of the kinds that models have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

import openworks

TINY_CHAT = Path(openworks.__file__).parent / "models" / "tiny-chat"


def byte_level(*special: str) -> tokenizers.Tokenizer:
    """A vocabulary of bytes, as GPT-2's without its merges; the special tokens come first."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: at for at, text in enumerate([*special, *letters])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    return backend


PIECES = ["▁", "a", "b", "c", "▁a", "▁▁", "▁▁▁", "ab", "▁ab", "é", "。"]


def sentence_piece(
    decoder: Literal["strip", "keep", "metaspace", "metaspace-never"] = "strip",
) -> tokenizers.Tokenizer:
    """A vocabulary as Llama 2's: `▁` for blanks, a token for each byte that has no other."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    merges = [("▁", "a"), ("▁", "▁"), ("▁▁", "▁"), ("a", "b"), ("▁", "ab")]
    model = models.BPE(
        vocab={name: at for at, name in enumerate(names)},
        merges=merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    match decoder:
        case "strip":
            backend.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
        case "keep":
            backend.decoder = decoders.Sequence(parts)
        case "metaspace":
            backend.decoder = decoders.Metaspace()
        case "metaspace-never":
            backend.decoder = decoders.Metaspace(prepend_scheme="never")
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def words(
    vocab: dict[str, int], decoder: Literal["ByteLevel", "Fuse", "WordPiece"] = "ByteLevel"
) -> tokenizers.Tokenizer:
    """A vocabulary of whole words."""
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="a"))
    backend.decoder = getattr(decoders, decoder)()
    return backend
