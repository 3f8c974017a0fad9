"""`/v1/models` through the official SDK."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import quote

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from starlette.requests import Request

from openworks.api.answers import Json
from openworks.api.context import Context, Services
from openworks.api.openai.models import list_models
from openworks.app.settings import load_settings
from openworks.app.state import make_catalog, make_weights
from openworks.core.ids import AccountId, RequestId
from openworks.ports.calls import Principal
from openworks.ports.engines import Residency
from openworks.services.finetune_documents import Finetune
from tests.api.asks import HELLO
from tests.api.raw import ask
from tests.api.weights import TestModels
from tests.conftest import ClientFor, StartServer
from tests.server import ServerProcess, wait_until

SLASHED = "@cf/stabilityai/stable-diffusion-xl-base-1.0"
"""A model of the catalogue, which can be described whether or not its weights are here."""


def test_list_holds_every_served_model_and_begins_with_the_defaults(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]

    assert set(ids[:2]) == {"talker", "encoder"}
    assert {"plain", "talker", "encoder"} <= set(ids)
    assert len(ids) == len(set(ids))


async def test_list_is_read_by_the_asynchronous_client(async_client: AsyncOpenAI) -> None:
    assert "talker" in [model.id async for model in async_client.models.list()]


def test_retrieve_describes_one_model(client: OpenAI) -> None:
    model = client.models.retrieve("encoder")

    assert (model.id, model.object) == ("encoder", "model")
    assert model.to_dict()["task"] == "text-embeddings"


def test_retrieve_takes_a_name_that_openai_code_carries(client: OpenAI) -> None:
    assert client.models.retrieve("gpt-4o-mini").id == "talker"


def test_retrieve_takes_an_id_with_slashes_from_the_sdk(client: OpenAI) -> None:
    assert client.models.retrieve(SLASHED).id == SLASHED


@pytest.mark.parametrize("name", [SLASHED, quote(SLASHED, safe=""), quote(SLASHED, safe="@")])
def test_retrieve_takes_slashes_raw_and_percent_encoded(server: ServerProcess, name: str) -> None:
    reply = ask(server, "GET", f"/v1/models/{name}")

    assert (reply.status, reply.json()["id"]) == (200, SLASHED)


def test_retrieve_of_an_unknown_model_is_a_404(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"no/such-model") as caught:
        client.models.retrieve("no/such-model")

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("name", ["a--b/c", "..%2F..", "a..b/c", "a" * 300])
def test_retrieve_of_what_no_model_is_named_is_a_404(server: ServerProcess, name: str) -> None:
    reply = ask(server, "GET", f"/v1/models/{name}")

    assert (reply.status, reply.error()["code"]) == (404, "model_not_found")
    assert reply.error()["param"] == "model"
    assert len(reply.error()["message"]) < 200


@pytest.mark.parametrize("name", ["a--b/c", "../..", "a..b/c", "a" * 300])
def test_chat_with_what_no_model_is_named_is_a_404(client: OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=name, messages=HELLO)

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_delete_refuses_a_model_that_is_not_a_fine_tune(client: OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="not a fine-tuned model"):
        client.models.delete("talker")


def test_delete_of_an_unknown_model_is_a_404(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.models.delete("no-such-model")


def test_key_limited_to_an_alias_sees_the_model_that_it_stands_for(
    start_server: StartServer, models: TestModels, client_for: ClientFor
) -> None:
    server = start_server({"models": [str(models.plain), str(models.talker)]})
    _, secret = server.make_key(allowed_models=("gpt-4o-mini",))
    client = client_for(server, key=secret)

    assert [model.id for model in client.models.list()] == ["talker"]
    assert client.models.retrieve("gpt-4o-mini").id == "talker"
    with pytest.raises(openai.NotFoundError, match="'plain' does not exist or you do not have"):
        client.models.retrieve("plain")


def test_pinned_model_that_loads_slowly_is_a_warning_without_a_traceback(
    start_server: StartServer, models: TestModels
) -> None:
    server = start_server(
        {
            "models": [str(models.talker)],
            "catalog.models": {"talker": {"pinned": True}, "gpt-9": {"pinned": True}},
            "engines.restart.load_wait_s": 0,
        }
    )

    wait_until(lambda: "engine.preload_failed" in server.log.read_text(), what="both events")
    wait_until(lambda: server.engines()["talker"]["state"] == "ready", what="the pinned model")
    events = [json.loads(line) for line in server.log.read_text().splitlines()]
    told = {event["event"]: event for event in events if "preload" in event["event"]}

    assert told["engine.preload_slow"]["model"] == "talker"
    assert "does not exist" in told["engine.preload_failed"]["error"]
    assert {event["level"] for event in told.values()} == {"warning"}
    assert "Traceback" not in server.log.read_text()


class _CountingEngines:
    """Engines that count how often they are asked what is loaded."""

    def __init__(self) -> None:
        self.asked = 0

    def residency(self) -> list[Residency]:
        self.asked += 1
        return []


class _NoAdapters:
    """Names without adapters."""

    async def adapters(self, account: AccountId) -> list[Finetune]:
        return []


async def test_list_asks_once_what_is_loaded(models: TestModels, tmp_path: Path) -> None:
    settings = load_settings(
        flags={"models": [str(models.plain), str(models.talker)], "data_dir": tmp_path}
    )
    weights = make_weights(settings)
    engines = _CountingEngines()
    catalog = await make_catalog(settings, weights, on_progress=lambda *_: None)
    services = cast(
        "Services", SimpleNamespace(catalog=catalog, engines=engines, deployments=_NoAdapters())
    )
    context = Context(
        services=services,
        request=Request({"type": "http"}),
        request_id=RequestId("req_1"),
        principal=Principal(account_id=AccountId("default")),
        route="/v1/models",
        body=b"",
    )
    try:
        answer = await list_models(context)
    finally:
        await weights.close()

    assert isinstance(answer, Json)
    assert len(catalog.served()) > 1
    assert engines.asked == 1


def test_a_used_model_is_shown_as_loaded(client: OpenAI) -> None:
    client.chat.completions.create(model="talker", messages=HELLO, max_tokens=1)

    fields = client.models.retrieve("talker").to_dict()

    assert fields["state"] == "ready"
    assert isinstance(fields["memory_bytes"], int)
    assert fields["memory_bytes"] > 0
