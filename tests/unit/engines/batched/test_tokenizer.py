from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from tokenizers import AddedToken, processors

from openworks.core.errors import ModelUnavailableError
from openworks.core.json import JsonObject
from openworks.engines.batched.tokenizer import Tokenizer
from tests.unit.engines.batched.vocabularies import (
    TINY_CHAT,
    byte_level,
    sentence_piece,
    words,
)


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return Tokenizer.load(TINY_CHAT)


def written(folder: Path, backend: object, **configs: JsonObject) -> Path:
    backend.save(str(folder / "tokenizer.json"))  # type: ignore[attr-defined] # of tokenizers
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    return folder


def test_text_becomes_tokens_whose_bytes_are_the_text(tiny: Tokenizer) -> None:
    text = "Grüße, 你好! <|im_start|>user\n 12  🙂<tool_call>"
    ids = tiny.encode(text, add_bos=True)
    assert b"".join(map(tiny.token_bytes, ids)).decode() == text
    assert tiny.special_ids & set(ids) == {1}


def test_special_tokens_are_letters_when_they_are_not_to_be_read(tiny: Tokenizer) -> None:
    ids = tiny.encode("a<|im_end|>", add_bos=False, parse_special=False)
    assert not tiny.special_ids & set(ids)
    assert b"".join(map(tiny.token_bytes, ids)) == b"a<|im_end|>"
    assert tiny.encode("a<|im_end|>", add_bos=False)[-1] == 2  # and it stays so


def test_what_the_tiny_model_ships_is_read(tiny: Tokenizer) -> None:
    assert tiny.num_tokens == 1024
    assert tiny.unused_ids == ()
    assert tiny.eos_ids == (0, 2)
    assert tiny.bos_id is None
    assert tiny.special_ids == {0, 1, 2}
    assert tiny.added_ids["<tool_call>"] == 1022
    assert tiny.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def test_a_part_of_a_character_is_bytes_and_a_replacement_for_the_eye(tiny: Tokenizer) -> None:
    first, *_ = tiny.encode("禿", add_bos=False)
    assert tiny.token_bytes(first) == "禿".encode()[:1]
    assert tiny.token_text(first) == "\ufffd"


def test_padding_of_the_models_tables_has_no_bytes(tiny: Tokenizer) -> None:
    assert tiny.token_bytes(1024) == b""


@pytest.mark.parametrize("text", ["ab", "<s>ab", ""])
def test_a_text_begins_with_one_bos(text: str) -> None:
    backend = sentence_piece()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    tokenizer = Tokenizer(backend)
    assert tokenizer.encode(text, add_bos=True).count(1) == 1
    assert tokenizer.encode(text, add_bos=True)[0] == 1
    assert tokenizer.encode("ab", add_bos=False).count(1) == 0


@pytest.mark.parametrize(("wanted", "bos"), [(True, [1]), (False, [])])
def test_the_models_own_word_on_bos_counts(tmp_path: Path, wanted: bool, bos: list[int]) -> None:
    config: JsonObject = {"bos_token": {"content": "<s>"}, "add_bos_token": wanted}
    tokenizer = Tokenizer.load(written(tmp_path, sentence_piece(), tokenizer_config=config))
    plain = tokenizer.encode("ab", add_bos=False)
    assert tokenizer.encode("ab", add_bos=True) == [*bos, *plain]


def test_an_answer_ends_by_what_any_file_names(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        byte_level("<a>", "<b>", "<c>", "<|eot_id|>"),
        tokenizer_config={"eos_token": "<a>"},
        generation_config={"eos_token_id": [1, 9999]},
        config={"eos_token_id": 2},
    )
    assert Tokenizer.load(folder).eos_ids == (0, 1, 2, 3)


def test_the_end_of_a_message_ends_no_answer_in_harmony() -> None:
    harmony = Tokenizer(byte_level("<|end|>", "<|return|>", "<|call|>"))
    assert harmony.eos_ids == (1, 2)
    assert Tokenizer(byte_level("<|end|>")).eos_ids == (0,)


def test_a_token_that_only_the_config_knows_is_added(tmp_path: Path) -> None:
    backend = byte_level()
    size = backend.get_vocab_size()
    added: JsonObject = {str(size): {"content": "<new>", "special": True}}
    folder = written(tmp_path, backend, tokenizer_config={"added_tokens_decoder": added})
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode("a<new>", add_bos=False)[-1] == size
    assert size in tokenizer.special_ids


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    added: JsonObject = {"99999": {"content": "<new>"}}
    folder = written(tmp_path, byte_level(), tokenizer_config={"added_tokens_decoder": added})
    with pytest.raises(ModelUnavailableError, match="'<new>' the id 99999"):
        Tokenizer.load(folder)


def test_named_tokens_are_special_though_they_are_not_marked() -> None:
    backend = byte_level()
    backend.add_tokens([AddedToken("<x>"), AddedToken("<y>"), AddedToken("<z>")])
    tokenizer = Tokenizer(
        backend, configs=[{"pad_token": "<x>", "additional_special_tokens": ["<y>"]}]
    )
    texts = {tokenizer.token_text(each) for each in tokenizer.special_ids}
    assert texts == {"<x>", "<y>"}


def test_ids_that_stand_for_nothing_are_known() -> None:
    assert Tokenizer(words({"a": 0, "b": 3})).unused_ids == (1, 2)


def test_a_vocabulary_that_decodes_in_an_unknown_way_is_refused_by_name() -> None:
    with pytest.raises(ModelUnavailableError, match="WordPiece"):
        Tokenizer(words({"a": 0}, decoder="WordPiece"))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, byte_level())
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelUnavailableError, match=r"config\.json"):
        Tokenizer.load(folder)
