"""The stores of responses and conversations for contract suites, over one database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from openworks.ports.conversations import ConversationStore
from openworks.ports.events import EventStore
from openworks.ports.jobs import JobStore
from openworks.ports.responses import ResponseStore
from openworks.storage.sql.conversations import SqlConversationStore
from openworks.storage.sql.events import SqlEventStore
from openworks.storage.sql.jobs import SqlJobStore
from openworks.storage.sql.responses import SqlResponseStore
from tests.contract.conftest import OpenDatabase
from tests.fake_responses import MemoryConversationStore, MemoryResponseStore
from tests.fake_work import MemoryEventStore, MemoryJobStore
from tests.fakes import FakeClock


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStores:
    """What responses and conversations are kept in."""

    responses: ResponseStore
    conversations: ConversationStore
    jobs: JobStore
    events: EventStore


@asynccontextmanager
async def opened_stores(adapter: str, open_database: OpenDatabase) -> AsyncIterator[ResponseStores]:
    """Open empty stores of one kind."""
    if adapter == "memory":
        jobs, conversations = MemoryJobStore(), MemoryConversationStore()
        events = MemoryEventStore(jobs)
        yield ResponseStores(
            responses=MemoryResponseStore(conversations, jobs, events),
            conversations=conversations,
            jobs=jobs,
            events=events,
        )
        return
    async with open_database(adapter) as database:
        yield ResponseStores(
            responses=SqlResponseStore(database, clock=FakeClock()),
            conversations=SqlConversationStore(database),
            jobs=SqlJobStore(database),
            events=SqlEventStore(database),
        )
