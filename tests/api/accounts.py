"""A server on which every test has an account of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from openai import OpenAI

from tests.api.weights import TestModels
from tests.conftest import open_client
from tests.server import ServerProcess


class Accounts:
    """Makes keys of accounts that nobody has used."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self._numbers = count(1)

    def secret(self, *, allowed_models: tuple[str, ...] | None = None) -> str:
        """Return a key of a new account."""
        account = f"account-{next(self._numbers)}"
        return self.server.make_key(account=account, allowed_models=allowed_models)[1]

    @contextmanager
    def client(self, *, allowed_models: tuple[str, ...] | None = None) -> Iterator[OpenAI]:
        """Lend a client of a new account."""
        secret = self.secret(allowed_models=allowed_models)
        with open_client(self.server.url, key=secret) as client:
            yield client


@contextmanager
def serving_accounts(models: TestModels, folder: Path) -> Iterator[Accounts]:
    """Serve the test models to those who have a key."""
    files = [str(models.plain), str(models.encoder), str(models.talker)]
    server = ServerProcess({"models": files, "access.token": "the-operator's"}, folder)
    yield Accounts(server)
    assert server.stop() == 0
