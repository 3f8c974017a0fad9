"""The memory budget: who is evicted, who is not, and what does not fit."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.api.asks import HELLO, NO_END
from tests.api.weights import TestModels
from tests.conftest import ClientFor, StartServer
from tests.server import ServerProcess

ROOM_FOR_TWO_GIB = 0.25
"""Each of the tiny models takes about 0.1 GiB, nearly all of it the process itself."""


@pytest.fixture
def chats(models: TestModels) -> list[str]:
    return [str(models.plain), str(models.talker), str(models.encoder)]


def use(client: OpenAI, *names: str) -> None:
    """Ask each model for something, in turn."""
    for name in names:
        if name == "encoder":
            client.embeddings.create(model=name, input="Hello")
        else:
            client.chat.completions.create(model=name, messages=HELLO, max_tokens=1)


def loaded(server: ServerProcess) -> set[str]:
    return {name for name, row in server.engines().items() if row["state"] == "ready"}


def test_the_least_recently_used_model_makes_room(
    start_server: StartServer, client_for: ClientFor, chats: list[str]
) -> None:
    server = start_server({"models": chats, "engines.memory_budget_gib": ROOM_FOR_TWO_GIB})
    client = client_for(server)

    use(client, "plain", "talker", "plain", "encoder")

    assert loaded(server) == {"plain", "encoder"}
    assert len(server.engine_pids()) == 2


def test_an_evicted_model_comes_back_when_it_is_asked(
    start_server: StartServer, client_for: ClientFor, chats: list[str]
) -> None:
    server = start_server({"models": chats, "engines.memory_budget_gib": ROOM_FOR_TWO_GIB})

    use(client_for(server), "plain", "talker", "encoder", "plain")

    assert loaded(server) == {"encoder", "plain"}


def test_a_pinned_model_stays(
    start_server: StartServer, client_for: ClientFor, chats: list[str]
) -> None:
    server = start_server(
        {
            "models": chats,
            "engines.memory_budget_gib": ROOM_FOR_TWO_GIB,
            "catalog.models": {"plain": {"pinned": True}},
        }
    )

    use(client_for(server), "plain", "talker", "encoder", "talker")

    assert loaded(server) == {"plain", "talker"}
    assert server.engines()["plain"]["pinned"] is True


def test_a_busy_model_stays_and_the_other_is_told_to_come_back(
    start_server: StartServer, client_for: ClientFor, models: TestModels
) -> None:
    server = start_server(
        {
            "models": [str(models.slow), str(models.talker)],
            "engines.memory_budget_gib": ROOM_FOR_TWO_GIB,
            "catalog.parallel": 1,
        }
    )
    client = client_for(server)
    busy: dict[str, Any] = {"model": "slow", "messages": HELLO, "max_tokens": 3000}
    with client.chat.completions.create(**busy, logit_bias=NO_END, stream=True) as stream:
        next(iter(stream))

        with pytest.raises(openai.InternalServerError, match=r"'talker'.*busy or pinned") as caught:
            use(client, "talker")

    assert (caught.value.status_code, caught.value.code) == (503, "insufficient_memory")
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_model_that_can_never_fit_is_refused_with_both_figures(
    start_server: StartServer, client_for: ClientFor, chats: list[str]
) -> None:
    server = start_server({"models": chats, "engines.memory_budget_gib": 0.05})

    with pytest.raises(openai.InternalServerError, match=r"'talker' needs 0\.\d+ GiB") as caught:
        use(client_for(server), "talker")

    assert "budget of 0.05 GiB" in caught.value.message
    assert (caught.value.status_code, caught.value.code) == (503, "model_too_large")
    assert server.engine_pids() == []


def test_models_that_are_asked_in_turn_all_answer(
    start_server: StartServer, client_for: ClientFor, chats: list[str]
) -> None:
    server = start_server({"models": chats, "engines.memory_budget_gib": ROOM_FOR_TWO_GIB})

    use(client_for(server), *["plain", "talker", "encoder"] * 3)

    assert len(server.engine_pids()) == 2
