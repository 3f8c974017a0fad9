"""Documents of one kind, of all accounts: for the jobs that run by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from openworks.ports.documents import Document, DocumentKind


class DocumentScan(Protocol):
    """Reads every document of a kind."""

    def scan(self, kind: DocumentKind, *, batch: int = 200) -> AsyncIterator[Sequence[Document]]:
        """Yield all, by account, parent and id; secrets stay sealed."""
        ...
