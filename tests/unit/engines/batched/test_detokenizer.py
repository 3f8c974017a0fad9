from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tokenizers")

import tokenizers

from openworks.engines.batched.detokenizer import Detokenizer
from openworks.engines.batched.tokenizer import Tokenizer
from tests.unit.engines.batched.vocabularies import (
    PIECES,
    TINY_CHAT,
    byte_level,
    sentence_piece,
)

TINY = Tokenizer.load(TINY_CHAT)
TINY_BACKEND = tokenizers.Tokenizer.from_file(str(TINY_CHAT / "tokenizer.json"))
SENTENCE_PIECE = {
    name: (Tokenizer(sentence_piece(name)), sentence_piece(name))
    for name in ("strip", "keep", "metaspace", "metaspace-never")
}
NUM_PIECES = 3 + 256 + len(PIECES)


def detokenized(tokenizer: Tokenizer, ids: list[int], **options: object) -> str:
    detokenizer = Detokenizer(tokenizer, **options)  # type: ignore[arg-type] # of the test's own
    return "".join(map(detokenizer.feed, ids)) + detokenizer.finish()


@given(st.lists(st.integers(0, 1023)))
def test_pieces_join_to_what_decoding_at_once_gives(ids: list[int]) -> None:
    assert detokenized(TINY, ids) == TINY_BACKEND.decode(ids, skip_special_tokens=True)
    kept = frozenset(TINY.added_ids)
    assert detokenized(TINY, ids, keep_special=kept) == TINY_BACKEND.decode(
        ids, skip_special_tokens=False
    )


@given(st.text())
def test_a_text_comes_back(text: str) -> None:
    ids = TINY.encode(text, add_bos=False, parse_special=False)
    assert detokenized(TINY, ids) == text


@pytest.mark.parametrize("decoder", SENTENCE_PIECE)
@given(st.lists(st.integers(0, 2) | st.integers(3 + 256, NUM_PIECES - 1)))
def test_blanks_are_where_sentence_piece_has_them(decoder: str, ids: list[int]) -> None:
    tokenizer, backend = SENTENCE_PIECE[decoder]
    assert detokenized(tokenizer, ids) == backend.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("decoder", ["strip", "keep"])
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_of_byte_tokens_comes_back_as_decoding_at_once_gives_it(
    decoder: str, text: str
) -> None:
    tokenizer, backend = SENTENCE_PIECE[decoder]
    ids = tokenizer.encode(text, add_bos=False)
    assert detokenized(tokenizer, ids) == backend.decode(ids, skip_special_tokens=True)


@given(st.lists(st.integers(3, 258)))
def test_bytes_that_are_no_text_are_replaced_as_everywhere(ids: list[int]) -> None:
    # (The library replaces all bytes of a run, good ones too, and knows so only at its end.)
    expected = bytes(each - 3 for each in ids).decode(errors="replace")
    assert detokenized(SENTENCE_PIECE["keep"][0], ids) == expected


@given(st.text(min_size=1))
def test_only_whole_characters_are_given_out(text: str) -> None:
    tokenizer = Tokenizer(byte_level())
    detokenizer = Detokenizer(tokenizer)
    said = ""
    for token in tokenizer.encode(text, add_bos=False):
        said += detokenizer.feed(token)
        assert text.startswith(said)
    assert (said, detokenizer.finish()) == (text, "")


def test_a_character_that_never_becomes_complete_is_replaced_at_the_end() -> None:
    detokenizer = Detokenizer(TINY)
    first, second, *_ = TINY.encode("禿", add_bos=False)
    assert [detokenizer.feed(first), detokenizer.feed(second)] == ["", ""]
    assert detokenizer.finish() == "\ufffd"


def test_a_dropped_special_token_does_not_cut_a_character() -> None:
    first, *rest = TINY.encode("禿", add_bos=False)
    assert detokenized(TINY, [first, 2, *rest]) == "禿"


def test_special_tokens_stay_only_where_they_are_wanted() -> None:
    ids = TINY.encode("<|im_start|>a<tool_call>b<|im_end|>", add_bos=False)
    assert detokenized(TINY, ids) == "a<tool_call>b"
    kept = frozenset({"<|im_end|>", "<none>"})
    assert detokenized(TINY, ids, keep_special=kept) == "a<tool_call>b<|im_end|>"


@pytest.mark.parametrize("decoder", ["strip", "metaspace"])
def test_the_blank_before_a_word_counts_when_a_text_goes_on(decoder: str) -> None:
    tokenizer, _ = SENTENCE_PIECE[decoder]
    ids = tokenizer.encode("ab a", add_bos=False)
    assert detokenized(tokenizer, ids) == "ab a"
    assert detokenized(tokenizer, ids, continues=True) == " ab a"


def test_padding_is_no_text() -> None:
    assert detokenized(TINY, [5000]) == ""
