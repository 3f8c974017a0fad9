"""A server for the whole run, clients for it, and a way to start others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

from openworks.ports.catalog import EngineName
from tests.api.shapes import AsyncCheckedTransport, CheckedTransport
from tests.api.weights import TestModels
from tests.s3_server import S3Server
from tests.server import ServerProcess


class StartServer(Protocol):
    """Start a server of the test's own, with settings by dotted key."""

    def __call__(self, flags: dict[str, Any]) -> ServerProcess: ...


ClientFor = Callable[..., OpenAI]


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> EngineName:
    """What runs the chat models; `tests.engine_choice.EACH_ENGINE` runs a file over all."""
    chosen: EngineName = getattr(request, "param", "llamacpp")
    return chosen


@pytest.fixture(scope="session")
def models(engine: EngineName, tmp_path_factory: pytest.TempPathFactory) -> TestModels:
    return TestModels(tmp_path_factory.mktemp("models"), engine)


@pytest.fixture(scope="session")
def server(
    models: TestModels, engine: EngineName, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Serves `plain`, `encoder` and `talker`, the last being the default chat model."""
    files = [models.plain, models.encoder, models.talker]
    process = ServerProcess(
        {"models": [str(file) for file in files], "catalog.engine": engine},
        tmp_path_factory.mktemp("server"),
    )
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="session")
def server_url(server: ServerProcess) -> str:
    """The address without `/v1`."""
    return server.url


@pytest.fixture(scope="session")
def client(server_url: str) -> Iterator[OpenAI]:
    with open_client(server_url) as opened:
        yield opened


@pytest.fixture
async def async_client(server_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with open_async_client(server_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One for all tests; each takes a prefix of its own."""
    process = S3Server(tmp_path_factory.mktemp("s3"))
    yield process
    process.kill()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    started: list[ServerProcess] = []

    def start(flags: dict[str, Any]) -> ServerProcess:
        process = ServerProcess(flags, tmp_path / f"server-{len(started)}")
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_running():
            process.stop()


@pytest.fixture
def client_for() -> Iterator[ClientFor]:
    """Make clients for servers of the test's own."""
    opened: list[OpenAI] = []

    def make(server: ServerProcess, *, key: str = "none") -> OpenAI:
        opened.append(open_client(server.url, key=key))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def open_client(url: str, *, key: str = "none") -> OpenAI:
    """Return a client that never asks twice, and fails on any body that breaks the API's types."""
    return OpenAI(
        base_url=f"{url}/v1",
        api_key=key,
        max_retries=0,
        timeout=60.0,
        http_client=httpx2.Client(transport=CheckedTransport(), timeout=60.0),
    )


def open_async_client(url: str, *, key: str = "none") -> AsyncOpenAI:
    """Return the same for code that does not block."""
    return AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key=key,
        max_retries=0,
        timeout=60.0,
        http_client=httpx2.AsyncClient(transport=AsyncCheckedTransport(), timeout=60.0),
    )
