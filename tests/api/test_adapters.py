"""Adapters as models of the OpenAI API, and as `lora` of Cloudflare's `run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest
from cloudflare import Cloudflare
from openai import OpenAI

from tests.adapters import TINY_CHAT, adapter_config, adapter_tensors, safetensors
from tests.api.asks import HELLO
from tests.conftest import ClientFor
from tests.server import ServerProcess

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GOOD = {CONFIG: adapter_config(), WEIGHTS: safetensors(adapter_tensors())}
PIRATE = f"{TINY_CHAT}+pirate"


@pytest.fixture(scope="module")
def adapter_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A guarded server with the embedded model alone."""
    flags = {"access.token": "token-of-the-owner"}
    process = ServerProcess(flags, tmp_path_factory.mktemp("adapters"))
    yield process
    assert process.stop() == 0


class Account:
    """An account of a test's own, with both of its clients."""

    def __init__(self, server: ServerProcess, name: str, client: OpenAI, secret: str) -> None:
        self.name = name
        self.client = client
        self.secret = secret
        self.url = f"{server.url}/client/v4"
        self.cloudflare = Cloudflare(base_url=self.url, api_token=secret, max_retries=0)

    def bring(self, name: str = "pirate", *, files: tuple[str, ...] = (CONFIG, WEIGHTS)) -> str:
        """Make a finetune with these files; return its id."""
        return self._bring(name, files, public=False)

    def publish(self, name: str = "pirate") -> str:
        """Make one that everybody may use."""
        return self._bring(name, (CONFIG, WEIGHTS), public=True)

    def _bring(self, name: str, files: tuple[str, ...], *, public: bool) -> str:
        finetunes = self.cloudflare.ai.finetunes
        made = finetunes.create(account_id=self.name, model=TINY_CHAT, name=name, public=public)
        assert made is not None
        for file_name in files:
            finetunes.assets.create(
                made.id,
                account_id=self.name,
                file=(file_name, GOOD[file_name]),
                file_name=file_name,
            )
        return made.id

    def models(self) -> dict[str, dict[str, Any]]:
        """What is listed, by id."""
        return {model.id: model.to_dict() for model in self.client.models.list()}

    def run(self, model: str, **fields: Any) -> tuple[int, Any]:
        """Run a model by Cloudflare's API; return status and body."""
        answer = httpx2.post(
            f"{self.url}/accounts/{self.name}/ai/run/{model}",
            json={"prompt": "Hi", **fields},
            headers={"authorization": f"Bearer {self.secret}"},
            timeout=60.0,
        )
        return answer.status_code, answer.json()


@pytest.fixture
def account_of(adapter_server: ServerProcess, client_for: ClientFor) -> Iterator[Any]:
    made: list[Account] = []

    def make(name: str = "mine", **key: Any) -> Account:
        full = f"{name}-{uuid4().hex}"
        _, secret = adapter_server.make_key(account=full, scopes=("inference", "admin"), **key)
        client = client_for(adapter_server, key=secret)
        made.append(Account(adapter_server, full, client, secret))
        return made[-1]

    yield make
    for account in made:
        account.cloudflare.close()


def test_adapter_is_listed_as_a_model_of_its_account(account_of: Any) -> None:
    mine = account_of()
    id_ = mine.bring()

    model = mine.models()[PIRATE]

    assert (model["owned_by"], model["object"]) == (mine.name, "model")
    assert (model["root"], model["parent"]) == (TINY_CHAT, TINY_CHAT)
    assert model["created"] > 1_700_000_000
    assert (model["finetune_id"], model["state"]) == (id_, "stored")


def test_adapter_without_its_files_is_not_listed(account_of: Any) -> None:
    mine = account_of()
    mine.bring(files=(CONFIG,))

    assert PIRATE not in mine.models()


@pytest.mark.parametrize("form", ["{base}+{name}", "{base}+{id}", "gpt-4o-mini+{name}", "{ft}"])
def test_adapter_is_retrieved_and_deleted_by_any_of_its_names(account_of: Any, form: str) -> None:
    mine = account_of()
    id_ = mine.bring()
    full = f"ft:tiny-chat:{mine.name}:pirate:{id_[-8:]}"
    name = form.format(base=TINY_CHAT, name="pirate", id=id_, ft=full)

    assert mine.client.models.retrieve(name).id == PIRATE
    deleted = mine.client.models.delete(name)

    assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
    assert PIRATE not in mine.models()
    with pytest.raises(openai.NotFoundError):
        mine.client.models.retrieve(name)


def test_adapter_of_another_account_is_an_unknown_model(account_of: Any) -> None:
    id_ = account_of("theirs").bring()
    mine = account_of()

    assert PIRATE not in mine.models()
    for name in (PIRATE, f"{TINY_CHAT}+{id_}"):
        with pytest.raises(openai.NotFoundError) as unseen:
            mine.client.models.retrieve(name)
        assert unseen.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            mine.client.models.delete(name)
        with pytest.raises(openai.NotFoundError) as unheard:
            mine.client.chat.completions.create(model=name, messages=HELLO)
        assert (unheard.value.code, unheard.value.param) == ("model_not_found", "model")


def test_public_adapter_is_seen_and_not_deleted_by_others(account_of: Any) -> None:
    theirs = account_of("theirs")
    id_ = theirs.publish("shared")
    mine = account_of()
    name = f"{TINY_CHAT}+{id_}"

    assert mine.client.models.retrieve(name).id == f"{TINY_CHAT}+shared"
    assert f"{TINY_CHAT}+shared" not in mine.models()
    with pytest.raises(openai.PermissionDeniedError, match="another account's"):
        mine.client.models.delete(name)
    assert theirs.client.models.delete(name).deleted


def test_key_for_calls_alone_deletes_nothing(
    account_of: Any, adapter_server: ServerProcess, client_for: ClientFor
) -> None:
    mine = account_of()
    mine.bring()
    _, secret = adapter_server.make_key(account=mine.name)

    with pytest.raises(openai.PermissionDeniedError, match="admin"):
        client_for(adapter_server, key=secret).models.delete(PIRATE)

    assert PIRATE in mine.models()


@pytest.mark.parametrize(
    ("allowed", "is_seen"),
    [("gpt-4o-mini", True), ("gpt-4o-mini+pirate", True), ("@openworks/tiny-embed", False)],
)
def test_key_limited_to_models_sees_adapters_of_theirs(
    account_of: Any,
    adapter_server: ServerProcess,
    client_for: ClientFor,
    allowed: str,
    is_seen: bool,
) -> None:
    mine = account_of()
    mine.bring()
    _, secret = adapter_server.make_key(account=mine.name, allowed_models=(allowed,))
    client = client_for(adapter_server, key=secret)

    assert (PIRATE in [model.id for model in client.models.list()]) == is_seen
    if not is_seen:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(PIRATE)


def test_call_of_an_incomplete_adapter_says_what_is_missing(account_of: Any) -> None:
    mine = account_of()
    mine.bring(files=(WEIGHTS,))

    with pytest.raises(openai.BadRequestError, match="missing required files") as caught:
        mine.client.chat.completions.create(model=PIRATE, messages=HELLO)

    assert caught.value.code == "finetune_incomplete"


@pytest.mark.parametrize("raw", [True, "true", None])
def test_run_of_an_unknown_finetune_is_3037(account_of: Any, raw: object) -> None:
    mine = account_of()
    account_of("theirs").bring("hidden")

    for lora in ("nobody", "hidden"):
        status, body = mine.run(TINY_CHAT, lora=lora, raw=raw)
        assert (status, body["success"]) == (404, False)
        assert body["errors"] == [{"code": 3037, "message": f"Finetune {lora!r} not found."}]


def test_run_of_an_incomplete_finetune_is_3039(account_of: Any) -> None:
    mine = account_of()
    mine.bring(files=(CONFIG,))

    status, body = mine.run(TINY_CHAT, lora="pirate")

    assert (status, body["errors"][0]["code"]) == (400, 3039)


def test_lora_for_a_model_that_takes_none_is_5005(account_of: Any) -> None:
    status, body = account_of().run("@cf/meta/llama-2-7b-chat-int8", lora="pirate")

    assert (status, body["errors"][0]["code"]) == (405, 5005)
    assert "does not support LoRA" in body["errors"][0]["message"]


def test_lora_that_is_no_name_is_refused(account_of: Any) -> None:
    status, body = account_of().run(TINY_CHAT, lora=5)

    assert status == 400
    assert "lora" in body["errors"][0]["message"]


@pytest.mark.parametrize(
    "fields", [{}, {"raw": True}, {"raw": True, "prompt": None, "messages": HELLO}]
)
def test_run_answers_with_an_adapter(account_of: Any, fields: dict[str, Any]) -> None:
    mine = account_of()
    id_ = mine.bring()

    for lora in ("pirate", id_):
        status, body = mine.run(TINY_CHAT, lora=lora, max_tokens=4, **fields)
        assert status == 200, body
        assert isinstance(body["result"]["response"], str)


def test_open_server_keeps_adapters_of_accounts_apart(tmp_path: Any, client_for: ClientFor) -> None:
    server = ServerProcess({}, tmp_path)
    try:
        mine = Account(server, "mine", client_for(server), "none")
        mine.bring()
        assert mine.run(TINY_CHAT, lora="pirate", max_tokens=2)[0] == 200
        mine.name = "other"
        assert mine.run(TINY_CHAT, lora="pirate")[1]["errors"][0]["code"] == 3037
    finally:
        mine.cloudflare.close()
        server.stop()
