"""A server with accounts, and clients of two of them, for the files that ask for these."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.api.accounts import Accounts, serving_accounts
from tests.api.weights import TestModels
from tests.conftest import open_client


@pytest.fixture(scope="module")
def accounts(models: TestModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    with serving_accounts(models, tmp_path_factory.mktemp("accounts")) as opened:
        yield opened


@pytest.fixture(scope="module")
def secret(accounts: Accounts) -> str:
    return accounts.secret()


@pytest.fixture(scope="module")
def mine(accounts: Accounts, secret: str) -> Iterator[OpenAI]:
    """A client of the account of `secret`."""
    with open_client(accounts.server.url, key=secret) as client:
        yield client


@pytest.fixture(scope="module")
def theirs(accounts: Accounts) -> Iterator[OpenAI]:
    """A client of another account."""
    with accounts.client() as client:
        yield client
