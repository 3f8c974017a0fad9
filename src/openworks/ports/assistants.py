"""Assistants: a model with instructions, tools and settings, under an id of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject, JsonValue
from openworks.core.pages import Page, PageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantSettings:
    """What its owner says of an assistant, checked, in OpenAI's names and shapes."""

    model: str
    """As the caller names it."""
    name: str | None = None
    description: str | None = None
    instructions: str | None = None
    tools: tuple[JsonObject, ...] = ()
    tool_resources: JsonObject = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    temperature: float | None = None
    """None leaves it to the model; so do the following."""
    top_p: float | None = None
    reasoning_effort: str | None = None
    response_format: JsonValue = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistant:
    """An assistant of an account."""

    id: str
    account_id: AccountId
    created_at_s: float
    settings: AssistantSettings


class AssistantStore(Protocol):
    """Where assistants are kept. What belongs to another account is not there."""

    async def insert(self, assistant: Assistant) -> None:
        """Keep an assistant.

        Raises:
            ConflictError: Its id is there already.
        """
        ...

    async def get(self, account_id: AccountId, assistant_id: str) -> Assistant | None:
        """Find one."""
        ...

    async def list(self, account_id: AccountId, page: PageRequest) -> Page[Assistant]:
        """Return a page, ordered by creation, then id; `before` as with stored completions.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of an assistant of the account.
        """
        ...

    async def update(
        self, account_id: AccountId, assistant_id: str, changes: JsonObject
    ) -> Assistant | None:
        """Replace the settings that `changes` names, and no others; None when there is none.

        Updates that come together all take effect.
        """
        ...

    async def delete(self, account_id: AccountId, assistant_id: str) -> bool:
        """Remove one; False when there is none."""
        ...
