"""Which bytes of text a token stands for, as the decoder of a `tokenizer.json` has it.

A token's bytes do not depend on its neighbours (but for a blank at the very beginning), so that
text can be made token by token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from openworks.core.errors import ModelUnavailableError
from openworks.core.json import JsonObject, JsonValue

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDecoder:
    """What a decoder does to one token."""

    byte_level: bool = False
    """Each character stands for one byte, as in GPT-2's vocabulary."""
    byte_fallback: bool = False
    """`<0x0A>` and its like stand for one byte."""
    replacements: tuple[tuple[str, str], ...] = ()
    """Texts to be replaced in a token, such as SentencePiece's `▁` by a blank."""
    blanks_cut: int = 0
    """How many blanks at the beginning of a whole text are not part of it."""
    mark_cut: str = ""
    """What is not part of the first token of a text."""

    def bytes_of(self, token: str) -> bytes:
        """Return the bytes of a token that is not the first."""
        if self.byte_level:
            try:
                return bytes(_BYTE_OF[letter] for letter in token)
            except KeyError:  # an added token, written as it is
                return token.encode()
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.byte_fallback and (byte := _BYTE_TOKEN.fullmatch(token)) is not None:
            return bytes([int(byte[1], 16)])
        return token.encode()

    def first_bytes_of(self, token: str) -> bytes:
        """Return the bytes of the token with which a text begins."""
        return self.bytes_of(token.replace(self.mark_cut, "") if self.mark_cut else token)


def read_decoder(tokenizer_json: str) -> TokenDecoder:
    """Read the decoder of a `tokenizer.json`.

    Raises:
        ModelUnavailableError: It decodes in a way that is not known here; names it.
    """
    decoder: JsonValue = json.loads(tokenizer_json).get("decoder")
    if not isinstance(decoder, dict):
        raise _unknown("no decoder")
    parts = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    assert isinstance(parts, list)  # tokenizers has read it
    byte_level, byte_fallback, blanks, mark = False, False, 0, ""
    replacements: list[tuple[str, str]] = []
    for part in parts:
        assert isinstance(part, dict)
        match part.get("type"):
            case "ByteLevel":
                byte_level = True
            case "ByteFallback":
                byte_fallback = True
            case "Replace":
                replacements.append(_replacement(part))
            case "Strip" if part.get("content") == " " and not part.get("stop"):
                blanks = _count(part.get("start"))
            case "Metaspace":
                replacements.append((str(part["replacement"]), " "))
                mark = "" if part.get("prepend_scheme") == "never" else str(part["replacement"])
            case "Fuse":
                pass
            case other:
                raise _unknown(f"the decoder {other!r}")
    return TokenDecoder(
        byte_level=byte_level,
        byte_fallback=byte_fallback,
        replacements=tuple(replacements),
        blanks_cut=blanks,
        mark_cut=mark,
    )


def _replacement(part: JsonObject) -> tuple[str, str]:
    pattern = part.get("pattern")
    if not (isinstance(pattern, dict) and isinstance(old := pattern.get("String"), str)):
        raise _unknown(f"the replacement of {pattern!r}")
    return old, str(part.get("content"))


def _count(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


def _unknown(what: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"This model's tokenizer has {what}, which the batched engine does not read."
    )


def _byte_of() -> Mapping[str, int]:
    """Return GPT-2's letter for each byte, turned round: what is printable stands for itself."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTE_OF = _byte_of()
