"""Builds what concerns adapters that users bring: their store, their files here, their names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from openworks.app.settings import Settings
from openworks.app.state import make_blobs, make_weights
from openworks.core.clock import Clock
from openworks.core.ids import NewId
from openworks.ports.catalog import ModelEntry
from openworks.services.adapter_base import AdapterBase, read_base
from openworks.services.adapter_files import AdapterFiles
from openworks.services.audit import Audit
from openworks.services.catalog import Catalog
from openworks.services.deployments import Deployments
from openworks.services.finetune_documents import Finetune
from openworks.services.finetunes import Finetunes
from openworks.services.known_finetunes import KnownFinetunes
from openworks.storage.sql.database import Database
from openworks.storage.sql.documents import SqlDocumentStore

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What routes and calls use of it."""

    finetunes: Finetunes
    deployments: Deployments


@asynccontextmanager
async def open_adapters(
    settings: Settings,
    database: Database,
    catalog: Catalog,
    *,
    on_deleted: Callable[[str], None],
    clock: Clock,
    new_id: NewId,
) -> AsyncIterator[Adapters]:
    """Open what brings adapters here, and close it.

    Args:
        settings: Of the process.
        database: Keeps what is known of them.
        catalog: Knows the base models.
        on_deleted: Is told the generation of an adapter that is no more.
        clock: Of this process.
        new_id: Makes ids.
    """
    store, blobs = SqlDocumentStore(database), make_blobs(settings)
    weights = make_weights(settings)

    def base_of(entry: ModelEntry) -> AdapterBase:
        return read_base(entry, weights)

    def let_go(finetune: Finetune) -> None:
        files.forget(finetune)
        if finetune.is_ready:
            on_deleted(finetune.generation)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(weights.close)
        known = KnownFinetunes(store, clock=clock)
        stack.push_async_callback(known.close)
        files = AdapterFiles(
            blobs,
            settings.folder / "adapters",
            max_bytes=settings.finetunes.local_mib * _MIB,
            clock=clock,
        )
        stack.push_async_callback(files.close)
        finetunes = Finetunes(
            store,
            blobs,
            Audit(store, clock),
            catalog,
            known,
            base_of=base_of,
            on_deleted=let_go,
            config=settings.finetunes,
            clock=clock,
            new_id=new_id,
        )
        yield Adapters(finetunes=finetunes, deployments=Deployments(catalog, known, files))
