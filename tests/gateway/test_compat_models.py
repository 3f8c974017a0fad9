"""What a gateway says can be asked through it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.api.weights import TestModels
from tests.gateway.fronts import Front, open_front

TOKEN = "owner-of-the-models"


@pytest.fixture(scope="module")
def front(models: TestModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with open_front(tmp_path_factory.mktemp("models"), models, token=TOKEN) as opened:
        opened.make("with-openai")
        opened.keep_credential("openai", gateway="with-openai")
        opened.make("bare")
        yield opened


def listed(front: Front, gateway: str, path: str, key: str = TOKEN) -> list[str]:
    base_url = f"{front.url}/gateway/v1/default/{gateway}/{path}"
    with OpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
        return [model.id for model in client.models.list()]


@pytest.mark.parametrize("path", ["compat", "compat/v1"])
def test_list_has_this_servers_models_and_those_of_providers_with_a_stored_key(
    front: Front, path: str
) -> None:
    found = listed(front, "with-openai", path)
    assert {"workers-ai/plain", "workers-ai/encoder", "workers-ai/talker"} <= set(found)
    assert "openai/gpt-4.1" in found
    assert not [model for model in found if model.startswith("anthropic/")]
    assert len(found) == len(set(found))


def test_gateway_without_stored_keys_lists_this_servers_models_alone(front: Front) -> None:
    found = listed(front, "bare", "compat")
    assert found
    assert all(model.startswith("workers-ai/") for model in found)


def test_every_listed_model_of_this_server_can_be_asked(front: Front) -> None:
    body = {"model": "workers-ai/plain", "messages": [{"role": "user", "content": "Hi"}]}
    path = "/gateway/v1/default/bare/compat/chat/completions"
    assert "workers-ai/plain" in listed(front, "bare", "compat")
    assert front.post(path, {**body, "max_tokens": 2}).status_code == 200


def test_workers_ai_lists_its_models_by_their_own_names(front: Front) -> None:
    found = listed(front, "with-openai", "workers-ai/v1")
    assert {"plain", "encoder", "talker"} <= set(found)
    assert not [model for model in found if model.startswith("openai/")]


def test_key_sees_only_the_models_that_it_may_use(front: Front) -> None:
    _, secret = front.process.make_key(allowed_models=("plain", "openai/gpt-4.1"))
    assert listed(front, "with-openai", "compat", secret) == ["workers-ai/plain", "openai/gpt-4.1"]


def test_stranger_sees_nothing(front: Front) -> None:
    answer = front.http.get(f"{front.url}/gateway/v1/default/bare/compat/models")
    assert answer.status_code == 401
    assert answer.json()["name"] == "AiGatewayError"


def test_unknown_gateway_is_told_as_such(front: Front) -> None:
    answer = front.get("/gateway/v1/default/nowhere/compat/models")
    assert answer.status_code == 400
    assert answer.json()["error"][0]["code"] == 2001


def test_stranger_makes_no_gateway_in_an_account_of_their_own_choice(front: Front) -> None:
    answer = front.http.get(f"{front.url}/gateway/v1/made-up/default/compat/models")
    assert answer.status_code == 401
    gateways = front.get("/client/v4/accounts/made-up/ai-gateway/gateways")
    assert gateways.status_code == 200
    assert gateways.json()["result"] == []
