"""OpenAI's Agents SDK runs against this server, where it is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.api.test_meaning import CHAT_MODEL
from tests.api.test_meaning import pytestmark as needs_models
from tests.conftest import open_async_client
from tests.server import ServerProcess

agents = pytest.importorskip("agents")

pytestmark = needs_models


@pytest.fixture(scope="module", autouse=True)
def _without_tracing() -> Iterator[None]:
    """Tell nobody outside of what the tests do."""
    agents.set_tracing_disabled(True)
    yield
    agents.set_tracing_disabled(False)


@pytest.fixture
async def sdk(server: ServerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with open_async_client(server.url) as client:
        yield client


def an_agent(sdk: AsyncOpenAI, name: str = "assistant", **options: Any) -> Any:
    settings = {"temperature": 0, **options.pop("settings", {})}
    return agents.Agent(
        name=name,
        model=agents.OpenAIResponsesModel(CHAT_MODEL, sdk),
        model_settings=agents.ModelSettings(**settings),
        **options,
    )


def a_weather_agent(sdk: AsyncOpenAI, cities: list[str]) -> Any:
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        cities.append(city)
        return "hail"

    return an_agent(sdk, "weather", tools=[agents.function_tool(get_weather)])


async def test_agent_calls_a_function_and_uses_what_it_returns(sdk: AsyncOpenAI) -> None:
    cities: list[str] = []

    result = await agents.Runner.run(a_weather_agent(sdk, cities), "What is the weather in Paris?")

    assert cities == ["Paris"]
    assert "hail" in result.final_output


async def test_streamed_agent_ends_as_the_other(sdk: AsyncOpenAI) -> None:
    cities: list[str] = []

    result = agents.Runner.run_streamed(
        a_weather_agent(sdk, cities), "What is the weather in Rome?"
    )
    kinds = [event.data.type async for event in result.stream_events() if hasattr(event, "data")]

    assert cities == ["Rome"]
    assert "hail" in result.final_output
    assert kinds.count("response.created") == kinds.count("response.completed") == 2
    assert "response.function_call_arguments.delta" in kinds
    assert "response.output_text.delta" in kinds


async def test_agent_hands_off_to_another(sdk: AsyncOpenAI) -> None:
    cities: list[str] = []
    first = an_agent(
        sdk,
        "desk",
        handoffs=[a_weather_agent(sdk, cities)],
        settings={"tool_choice": "required"},
    )

    result = await agents.Runner.run(first, "What is the weather in Paris?")

    assert result.last_agent.name == "weather"
    assert result.final_output


async def test_agent_answers_in_a_type(sdk: AsyncOpenAI) -> None:
    class City(BaseModel):
        city: str
        is_large: bool

    result = await agents.Runner.run(an_agent(sdk, output_type=City), "Paris is a large city.")

    assert isinstance(result.final_output, City)


async def test_agent_goes_on_from_its_last_response(sdk: AsyncOpenAI) -> None:
    agent = an_agent(sdk)
    first = await agents.Runner.run(agent, "My name is Anna.")

    second = await agents.Runner.run(
        agent, "What is my name?", previous_response_id=first.last_response_id
    )

    assert "Anna" in second.final_output


async def test_session_keeps_its_items_in_a_conversation(sdk: AsyncOpenAI) -> None:
    session = agents.OpenAIConversationsSession(openai_client=sdk)
    agent = an_agent(sdk)
    await agents.Runner.run(agent, "My name is Anna.", session=session)

    second = await agents.Runner.run(agent, "What is my name?", session=session)

    assert "Anna" in second.final_output
    kept = await session.get_items()
    assert [item["role"] for item in kept] == ["user", "assistant", "user", "assistant"]
    popped = await session.pop_item()
    assert popped == kept[-1]
    assert await session.get_items() == kept[:-1]
    await session.clear_session()


async def test_session_keeps_calls_and_their_results(sdk: AsyncOpenAI) -> None:
    session = agents.OpenAIConversationsSession(openai_client=sdk)
    cities: list[str] = []
    agent = a_weather_agent(sdk, cities)
    for city in ("Paris", "Rome"):
        await agents.Runner.run(agent, f"What is the weather in {city}?", session=session)

    kinds = [item["type"] for item in await session.get_items()]

    assert cities == ["Paris", "Rome"]
    assert kinds == ["message", "function_call", "function_call_output", "message"] * 2


async def test_agent_runs_within_a_conversation(sdk: AsyncOpenAI) -> None:
    conversation = await sdk.conversations.create()
    cities: list[str] = []

    result = await agents.Runner.run(
        a_weather_agent(sdk, cities),
        "What is the weather in Paris?",
        conversation_id=conversation.id,
    )

    assert "hail" in result.final_output
    page = await sdk.conversations.items.list(conversation.id)
    assert len(page.data) == 4
