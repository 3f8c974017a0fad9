"""Responses: what was asked, what came of it, and what later ones go on from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from openworks.core.ids import AccountId, KeyId
from openworks.core.json import JsonObject
from openworks.core.pages import Page, PageRequest
from openworks.ports.calls import Usage
from openworks.ports.events import NewEvents
from openworks.ports.jobs import Claim, NewJob

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

UNENDED: frozenset[ResponseStatus] = frozenset({"queued", "in_progress"})
"""The statuses that change by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response of a model."""

    id: str
    account_id: AccountId
    key_id: KeyId | None
    route: str
    """The path template by which it was asked for, for the ledger."""
    created_at_s: float
    model: str
    """The name that the caller used."""
    settings: JsonObject
    """What the caller asked for, in the shape of answers; and what answers do not tell again."""
    seed: int
    """With which the model is asked, so that an attempt that broke off can be repeated."""
    status: ResponseStatus
    is_background: bool = False
    previous_id: str | None = None
    """The response that this one goes on from."""
    conversation_id: str | None = None
    """The conversation that it goes on from and adds to; never beside `previous_id`."""
    conversation_position: int | None = None
    """The place behind the last item of the conversation that it knows of."""
    completed_at_s: float | None = None
    error: JsonObject | None = None
    incomplete_reason: str | None = None
    usage: Usage | None = None
    output: tuple[JsonObject, ...] = ()
    """Items in the shape of answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All items that led to a response, and those that it consists of."""

    items: tuple[JsonObject, ...]
    missing: str | None = None
    """The response or conversation without which it is not whole: it was deleted."""


class ResponseStore(Protocol):
    """Where responses are kept. What belongs to another account is not there.

    Items are objects in the shape of answers, each with an `id`.
    """

    async def insert(
        self,
        response: Response,
        input_items: Sequence[JsonObject],
        job: NewJob,
        *,
        events: NewEvents | None = None,
    ) -> None:
        """Keep a response with the job to bring it to its end, and its first events.

        Raises:
            ConflictError: Its id is there already.
        """
        ...

    async def get(self, account_id: AccountId, response_id: str) -> Response | None:
        """Find one."""
        ...

    async def history(self, account_id: AccountId, response_id: str) -> History | None:
        """Return the items of a response and of all before it; None when there is no such one."""
        ...

    async def list_input(
        self, account_id: AccountId, response_id: str, page: PageRequest
    ) -> Page[JsonObject] | None:
        """Return a page of the items that a response was asked with; None when there is none.

        Raises:
            InvalidRequestError: `after` or `before` is not the id of one of them.
        """
        ...

    async def find_items(
        self, account_id: AccountId, item_ids: Collection[str]
    ) -> Mapping[str, JsonObject]:
        """Return items of any response or conversation by their ids, as many as there are."""
        ...

    async def begin(self, claim: Claim, *, events: NewEvents | None) -> None:
        """Let a queued response be in progress.

        Raises:
            LeaseLostError: Somebody else works on it.
        """
        ...

    async def end(self, claim: Claim, response: Response, *, events: NewEvents | None) -> None:
        """Keep how a response has ended, and put its job to rest.

        If it has a conversation that is still there, its input and its output are added to it,
        unless it was cancelled or has failed.

        Raises:
            LeaseLostError: Somebody else works on it.
        """
        ...

    async def drop(self, claim: Claim) -> None:
        """Forget a response that its caller never heard of, with its job.

        Raises:
            LeaseLostError: Somebody else works on it.
        """
        ...

    async def delete(self, account_id: AccountId, response_id: str) -> bool:
        """Remove a response with its items, events and job; False when there is none."""
        ...
