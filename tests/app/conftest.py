"""The command line, and a server that was started with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.command import Command, Serving
from tests.models import random_model


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that answers with nonsense."""
    return random_model(tmp_path_factory.mktemp("weights") / "nonsense.gguf")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command line in the folder of `serving`."""
    return Command(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def serving(shared: Command, weights: Path) -> Iterator[Serving]:
    """A server with the chat model `nonsense`, one for each module."""
    with shared.serve("--model", weights) as served:
        yield served
