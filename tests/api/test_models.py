"""`/v1/models` through the official SDK."""

from __future__ import annotations

from urllib.parse import quote

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.api.asks import HELLO
from tests.api.raw import ask
from tests.server import ServerProcess

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


def test_delete_refuses_a_model_that_is_not_a_fine_tune(client: OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="not a fine-tuned model"):
        client.models.delete("talker")


def test_delete_of_an_unknown_model_is_a_404(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.models.delete("no-such-model")


def test_a_used_model_is_shown_as_loaded(client: OpenAI) -> None:
    client.chat.completions.create(model="talker", messages=HELLO, max_tokens=1)

    fields = client.models.retrieve("talker").to_dict()

    assert fields["state"] == "ready"
    assert isinstance(fields["memory_bytes"], int)
    assert fields["memory_bytes"] > 0
