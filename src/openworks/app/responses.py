"""Builds what responses and conversations need: who makes them, and who keeps them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from openworks.app.work import Work
from openworks.core.clock import Clock
from openworks.core.ids import NewId
from openworks.gateway.pipeline import Pipeline
from openworks.ports.converters import Converter
from openworks.services.conversations import Conversations
from openworks.services.files import Files
from openworks.services.journal import Journal
from openworks.services.responses.context import ItemReader
from openworks.services.responses.jobs import ResponseJobs
from openworks.services.responses.responses import Responses
from openworks.services.responses.work import Responder
from openworks.storage.sql.conversations import SqlConversationStore
from openworks.storage.sql.database import Database
from openworks.storage.sql.events import SqlEventStore
from openworks.storage.sql.responses import SqlResponseStore

_SEEDS = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseParts:
    """What the pieces below are made of."""

    database: Database
    pipeline: Pipeline
    files: Files
    converter: Converter
    clock: Clock
    new_id: NewId

    def jobs(self, journal: Journal) -> ResponseJobs:
        """Return what brings responses to their ends that nobody waits for."""
        events = SqlEventStore(self.database)
        return ResponseJobs(self._store(), events, journal, self._responder())

    def conversations(self) -> Conversations:
        """Return what keeps conversations."""
        return Conversations(
            SqlConversationStore(self.database),
            self._store(),
            clock=self.clock,
            new_id=self.new_id,
        )

    def responses(self, work: Work) -> Responses:
        """Return what makes responses and finds them."""
        return Responses(
            self._store(),
            SqlEventStore(self.database),
            self.conversations(),
            self.pipeline,
            self._responder(),
            work.workers,
            work.journal,
            clock=self.clock,
            new_id=self.new_id,
            new_seed=lambda: secrets.randbelow(_SEEDS),
        )

    def _store(self) -> SqlResponseStore:
        return SqlResponseStore(self.database, clock=self.clock)

    def _responder(self) -> Responder:
        reader = ItemReader(self.files, self.converter)
        return Responder(self.pipeline, reader, clock=self.clock, new_id=self.new_id)
