from __future__ import annotations

from pathlib import Path, PosixPath
from queue import Queue
from threading import Event
from typing import NoReturn

import pytest

pytest.importorskip("torch")

from benchmarks.hf_folder import write_random_adapter
from benchmarks.random_model import PRESETS
from openworks.core.errors import (
    AppError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelUnavailableError,
)
from openworks.engines.batched.adapter_loader import AdapterLoader
from openworks.engines.batched.executor import AdapterWeights
from tests.unit.engines.batched.scripts import LONG_S


class Strange(PosixPath):
    """A folder with which something goes wrong that nobody has foreseen."""

    def __truediv__(self, name: object) -> NoReturn:
        raise MemoryError


def outcomes(*folders: Path) -> list[AdapterWeights | AppError]:
    """What a loader says of each folder, in the order in which it says it."""
    said: Queue[AdapterWeights | AppError] = Queue()
    loader = AdapterLoader()
    for folder in folders:
        loader.load(folder, said.put, said.put)
    found = [said.get(timeout=LONG_S) for _ in folders]
    assert said.empty()
    return found


def test_adapters_are_read_one_after_another(tmp_path: Path) -> None:
    for rank in (2, 4):
        write_random_adapter(tmp_path / str(rank), PRESETS["tiny"], rank=rank)
    found = outcomes(tmp_path / "4", tmp_path / "2")
    assert [each.rank for each in found if isinstance(each, AdapterWeights)] == [4, 2]


def test_adapter_whose_files_are_gone_was_deleted(tmp_path: Path) -> None:
    (found,) = outcomes(tmp_path / "nowhere")
    assert isinstance(found, ModelNotFoundError)


def test_adapter_without_its_weights_is_broken_and_the_next_is_read(tmp_path: Path) -> None:
    for name in ("broken", "whole"):
        write_random_adapter(tmp_path / name, PRESETS["tiny"], rank=2)
    (tmp_path / "broken" / "adapter_model.safetensors").unlink()
    broken, whole = outcomes(tmp_path / "broken", tmp_path / "whole")
    assert isinstance(broken, InvalidRequestError)
    assert isinstance(whole, AdapterWeights)


def test_adapter_that_breaks_the_reader_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_random_adapter(tmp_path / "whole", PRESETS["tiny"], rank=2)
    strange, whole = outcomes(Strange(tmp_path), tmp_path / "whole")
    assert isinstance(strange, ModelUnavailableError)
    assert isinstance(whole, AdapterWeights)
    assert "adapter.load_failed" in caplog.text


def test_adapter_that_was_expected_is_there_at_once(tmp_path: Path) -> None:
    write_random_adapter(tmp_path / "soon", PRESETS["tiny"], rank=2)
    write_random_adapter(tmp_path / "next", PRESETS["tiny"], rank=4)
    loader = AdapterLoader()
    loader.expect(tmp_path / "soon")
    said: Queue[AdapterWeights | AppError] = Queue()
    loader.load(tmp_path / "next", said.put, said.put)
    said.get(timeout=LONG_S)  # one thread reads in order: the first has been read too

    loader.load(tmp_path / "soon", said.put, said.put)

    found = said.get_nowait()
    assert isinstance(found, AdapterWeights)
    assert found.rank == 2


def test_expected_adapter_that_changed_since_is_read_once_for_each_request(tmp_path: Path) -> None:
    write_random_adapter(tmp_path / "it", PRESETS["tiny"], rank=2)
    loader = AdapterLoader()
    loader.expect(tmp_path / "it")
    said: Queue[AdapterWeights | AppError] = Queue()
    loader.load(tmp_path / "it", said.put, said.put)
    said.get(timeout=LONG_S)
    write_random_adapter(tmp_path / "it", PRESETS["tiny"], rank=4)

    loader.load(tmp_path / "it", said.put, said.put)

    found = said.get(timeout=LONG_S)
    assert isinstance(found, AdapterWeights)
    assert found.rank == 4


def read_everything(loader: AdapterLoader, nowhere: Path) -> None:
    """Wait until a loader has read all that it was told of: one thread reads in order."""
    said: Queue[AdapterWeights | AppError] = Queue()
    loader.load(nowhere, said.put, said.put)
    said.get(timeout=LONG_S)


def test_no_more_than_two_adapters_are_read_ahead(tmp_path: Path) -> None:
    loader = AdapterLoader()
    goes_on = Event()
    loader.load(tmp_path / "first", lambda _: None, lambda _: assert_set(goes_on))
    for name in ("one", "two", "three"):
        loader.expect(tmp_path / name)  # nothing is there yet
    goes_on.set()
    read_everything(loader, tmp_path / "nowhere")
    said: Queue[AdapterWeights | AppError] = Queue()
    for name in ("two", "three"):
        write_random_adapter(tmp_path / name, PRESETS["tiny"], rank=2)
        loader.load(tmp_path / name, said.put, said.put)

    assert isinstance(said.get(timeout=LONG_S), AppError)
    assert isinstance(said.get(timeout=LONG_S), AdapterWeights)


def test_what_was_read_ahead_and_not_asked_for_makes_way(tmp_path: Path) -> None:
    loader = AdapterLoader()
    for name in ("one", "two"):
        loader.expect(tmp_path / name)  # nothing is there yet
    read_everything(loader, tmp_path / "nowhere")
    for name in ("one", "three"):
        write_random_adapter(tmp_path / name, PRESETS["tiny"], rank=2)
    loader.expect(tmp_path / "three")
    read_everything(loader, tmp_path / "nowhere")
    said: Queue[AdapterWeights | AppError] = Queue()

    loader.load(tmp_path / "three", said.put, said.put)

    assert isinstance(said.get_nowait(), AdapterWeights)
    loader.load(tmp_path / "one", said.put, said.put)
    assert isinstance(said.get(timeout=LONG_S), AdapterWeights)


def assert_set(event: Event) -> None:
    assert event.wait(LONG_S)
