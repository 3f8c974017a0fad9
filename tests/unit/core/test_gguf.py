from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.random_model import PRESETS, write_random_llama
from openworks.core.errors import InvalidRequestError
from openworks.core.gguf import read_header


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_random_llama(path, PRESETS["tiny"])
    return path


def test_header_tells_what_the_writer_wrote(model: Path) -> None:
    header = read_header(model)
    shape = PRESETS["tiny"]
    assert header.architecture == "llama"
    assert header.context_tokens == shape.context_tokens
    assert header.integer("{arch}.block_count") == shape.layers
    assert "<|im_start|>" in (header.text("tokenizer.chat_template") or "")
    assert "tokenizer.ggml.tokens" not in header.metadata


def test_kv_bytes_follow_from_the_shape(model: Path) -> None:
    shape = PRESETS["tiny"]
    per_head = shape.dim // shape.heads
    assert read_header(model).kv_bytes_per_token() == 4 * shape.layers * shape.kv_heads * per_head


def test_other_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    with pytest.raises(InvalidRequestError, match=r"notes\.gguf is not a readable GGUF file"):
        read_header(path)


@given(cut=st.integers(0, 4000), flips=st.lists(st.integers(4, 3000), max_size=5))
def test_broken_header_is_refused_and_never_crashes(
    model: Path, tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[int]
) -> None:
    data = bytearray(model.read_bytes()[:cut])
    for at in flips:
        if at < len(data):
            data[at] ^= 0xFF
    path = tmp_path_factory.mktemp("broken") / "broken.gguf"
    path.write_bytes(bytes(data))
    with suppress(InvalidRequestError):
        read_header(path)
