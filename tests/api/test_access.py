"""Keys: needed or not, wrong, revoked, expired, limited; and accounts that see their own alone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import openai
import pytest
from openai import OpenAI

from tests.api.asks import HELLO
from tests.api.raw import ask, bearer
from tests.api.weights import TestModels
from tests.conftest import ClientFor, StartServer
from tests.server import ServerProcess, wait_until

TOKEN = "the-operator's-own-secret"


@pytest.fixture(scope="module")
def guarded(
    models: TestModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that nobody may use without a secret."""
    files = [str(models.plain), str(models.encoder), str(models.talker)]
    process = ServerProcess(
        {"models": files, "access.token": TOKEN}, tmp_path_factory.mktemp("guarded")
    )
    yield process
    assert process.stop() == 0


@pytest.fixture
def as_key(guarded: ServerProcess, client_for: ClientFor) -> Callable[[str], OpenAI]:
    return lambda secret: client_for(guarded, key=secret)


def use(client: OpenAI, model: str = "talker") -> None:
    client.chat.completions.create(model=model, messages=HELLO, max_tokens=1)


def test_an_open_server_takes_any_key(server: ServerProcess, client_for: ClientFor) -> None:
    use(client_for(server, key="sk-made-up"))


def test_an_open_server_takes_no_key(server: ServerProcess) -> None:
    assert ask(server, "GET", "/v1/models").status == 200


def test_an_open_server_is_guarded_as_soon_as_there_is_a_key(
    start_server: StartServer, models: TestModels, client_for: ClientFor
) -> None:
    server = start_server({"models": [str(models.talker)]})
    assert ask(server, "GET", "/v1/models").status == 200

    _, secret = server.make_key()

    wait_until(lambda: ask(server, "GET", "/v1/models").status == 401, what="a guarded server")
    use(client_for(server, key=secret))


def test_without_a_key_everything_but_health_is_a_401(guarded: ServerProcess) -> None:
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/v1/models/talker"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/rerank"),
        ("GET", "/metrics"),
    ):
        reply = ask(guarded, method, path)
        assert (reply.status, reply.error()["code"]) == (401, "missing_api_key"), path
        assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_needs_no_key(guarded: ServerProcess, path: str) -> None:
    assert ask(guarded, "GET", path).status == 200


def test_a_good_key_is_answered(guarded: ServerProcess, as_key: Callable[[str], OpenAI]) -> None:
    _, secret = guarded.make_key()

    use(as_key(secret))


def test_the_operators_token_may_do_everything(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    use(as_key(TOKEN))
    assert ask(guarded, "GET", "/metrics", headers=bearer(TOKEN)).status == 200


@pytest.mark.parametrize("secret", ["wrong", "sk-ow-" + "x" * 24, "ключ", "x" * 5000])
def test_a_wrong_key_is_a_401_that_does_not_repeat_it(guarded: ServerProcess, secret: str) -> None:
    header = {"Authorization": f"Bearer {secret}".encode().decode("latin-1")}

    reply = ask(guarded, "GET", "/v1/models", headers=header)

    assert (reply.status, reply.error()["code"]) == (401, "invalid_api_key")
    assert secret not in reply.error()["message"]


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic dTpw", "token", ""])
def test_a_header_without_a_key_is_a_401(guarded: ServerProcess, header: str) -> None:
    reply = ask(guarded, "GET", "/v1/models", headers={"Authorization": header})

    assert (reply.status, reply.error()["code"]) == (401, "missing_api_key")


def test_the_sdk_raises_its_own_class(as_key: Callable[[str], OpenAI]) -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        as_key("sk-wrong").models.list()


def test_a_revoked_key_stops_working(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    key_id, secret = guarded.make_key()
    use(as_key(secret))

    guarded.revoke_key(key_id)

    wait_until(
        lambda: ask(guarded, "GET", "/v1/models", headers=bearer(secret)).status == 401,
        what="the end of a revoked key",
    )


def test_a_key_stops_working_when_it_expires(guarded: ServerProcess) -> None:
    _, old = guarded.make_key(expires_at_s=time.time() - 1)
    _, young = guarded.make_key(expires_at_s=time.time() + 3600)

    assert ask(guarded, "GET", "/v1/models", headers=bearer(old)).status == 401
    assert ask(guarded, "GET", "/v1/models", headers=bearer(young)).status == 200


def test_a_key_without_the_scope_is_a_403_that_names_it(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    _, inference = guarded.make_key(scopes=("inference",))
    _, admin = guarded.make_key(scopes=("admin",))

    reply = ask(guarded, "GET", "/metrics", headers=bearer(inference))
    assert (reply.status, reply.error()["code"]) == (403, "insufficient_permissions")
    assert "'admin'" in reply.error()["message"]
    with pytest.raises(openai.PermissionDeniedError, match="'inference'"):
        use(as_key(admin))


def test_a_key_for_some_models_may_not_use_others(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    _, secret = guarded.make_key(allowed_models=("talker", "encoder"))
    client = as_key(secret)

    use(client, "talker")
    client.embeddings.create(model="encoder", input="Hello")
    with pytest.raises(openai.PermissionDeniedError, match="'plain'") as caught:
        use(client, "plain")

    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")


def test_a_key_for_some_models_sees_only_those(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    _, secret = guarded.make_key(allowed_models=("talker",))
    client = as_key(secret)

    assert [model.id for model in client.models.list()] == ["talker"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("plain")


def test_a_key_for_a_model_may_use_it_under_another_name(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    _, by_id = guarded.make_key(allowed_models=("talker",))
    _, by_alias = guarded.make_key(allowed_models=("gpt-4o-mini",))

    use(as_key(by_id), "gpt-4o-mini")
    use(as_key(by_alias), "gpt-4o-mini")
    use(as_key(by_alias), "talker")
    with pytest.raises(openai.PermissionDeniedError):
        use(as_key(by_alias), "plain")


def test_accounts_see_their_own_completions_alone(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    _, secret = guarded.make_key(account="ada")
    ada = as_key(secret)
    eve = as_key(guarded.make_key(account="eve")[1])
    kept = ada.chat.completions.create(
        model="talker", messages=HELLO, max_tokens=1, store=True, metadata={"for": "ada"}
    ).id

    for call in (
        lambda: eve.chat.completions.retrieve(kept),
        lambda: eve.chat.completions.update(kept, metadata={}),
        lambda: eve.chat.completions.delete(kept),
        lambda: eve.chat.completions.messages.list(kept),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    assert kept not in [each.id for each in eve.chat.completions.list()]
    with pytest.raises(openai.BadRequestError):
        eve.chat.completions.list(after=kept)
    assert ada.chat.completions.retrieve(kept).metadata == {"for": "ada"}


def test_two_keys_of_an_account_share_its_completions(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    one, two = (as_key(guarded.make_key(account="grace")[1]) for _ in range(2))
    kept = one.chat.completions.create(model="talker", messages=HELLO, max_tokens=1, store=True).id

    assert two.chat.completions.retrieve(kept).id == kept


def test_records_say_which_key_and_account_called(
    guarded: ServerProcess, as_key: Callable[[str], OpenAI]
) -> None:
    key_id, secret = guarded.make_key(account="hedy")
    use(as_key(secret))

    def mine() -> list[str]:
        return [str(each.account_id) for each in guarded.records() if each.key_id == key_id]

    wait_until(lambda: mine() == ["hedy"], what="one record of that key")


def test_keys_stay_out_of_the_log(guarded: ServerProcess, as_key: Callable[[str], OpenAI]) -> None:
    _, secret = guarded.make_key()
    use(as_key(secret))

    log = guarded.log.read_text()
    assert secret not in log
    assert TOKEN not in log


def test_stranger_is_refused_before_the_body_is_read(guarded: ServerProcess) -> None:
    with socket.create_connection(guarded.address, timeout=30) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
