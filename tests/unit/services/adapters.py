"""What tests of adapters share: services over a store in memory and blobs in a folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from openworks.app.settings import load_settings
from openworks.app.state import make_weights
from openworks.core.ids import AccountId
from openworks.ports.blobs import UploadedFile
from openworks.ports.catalog import ModelEntry
from openworks.ports.documents import Document, DocumentKind
from openworks.services.adapter_base import AdapterBase
from openworks.services.adapter_files import AdapterFiles
from openworks.services.audit import Actor, Audit
from openworks.services.catalog import Catalog, CatalogConfig
from openworks.services.catalog_files import read_catalog
from openworks.services.deployments import Deployments
from openworks.services.finetune_documents import Finetune
from openworks.services.finetunes import Finetunes, FinetunesConfig
from openworks.services.known_finetunes import KnownFinetunes
from openworks.storage.blobs.store import ObjectBlobs
from openworks.wire.cloudflare.finetunes import NewFinetune
from tests.adapters import (
    LAYERS,
    LINEARS,
    TINY_CHAT,
    adapter_config,
    adapter_tensors,
    safetensors,
)
from tests.document_store import MemoryDocumentStore
from tests.fakes import CountingIds, FakeClock

ACME, OTHER = AccountId("acme"), AccountId("other")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GOOD = {CONFIG: adapter_config(), WEIGHTS: safetensors(adapter_tensors())}


class CountingBlobs(ObjectBlobs):
    """Blobs in a folder that count what is brought."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.brought: list[str] = []

    async def get_file(self, name: str, path: Path) -> bool:
        self.brought.append(name)
        return await super().get_file(name, path)


class CountingStore(MemoryDocumentStore):
    """Documents that count how often they are listed."""

    lists = 0

    async def list(
        self, kind: DocumentKind, account_id: AccountId, parent: str
    ) -> Sequence[Document]:
        self.lists += 1
        return await super().list(kind, account_id, parent)


@dataclass
class Workshop:
    """Everything, of one server."""

    folder: Path
    config: FinetunesConfig = field(default_factory=FinetunesConfig)
    local_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.store = CountingStore()
        self.blobs = CountingBlobs(self.folder / "blobs")
        files = read_catalog()
        self.catalog = Catalog(
            files.entries,
            files.task_aliases,
            weights=make_weights(load_settings(flags={"data_dir": self.folder})),
            config=CatalogConfig(),
        )
        self.deleted: list[Finetune] = []
        self.known = KnownFinetunes(self.store, clock=self.clock)
        self.files = AdapterFiles(
            self.blobs,
            self.folder / "adapters",
            max_bytes=self.local_bytes,
            clock=self.clock,
        )
        self.deployments = Deployments(self.catalog, self.known, self.files)
        self.finetunes = Finetunes(
            self.store,
            self.blobs,
            Audit(self.store, self.clock),
            self.catalog,
            self.known,
            base_of=base_of,
            on_deleted=self.deleted.append,
            config=self.config,
            clock=self.clock,
            new_id=CountingIds(),
        )

    async def create(
        self, name: str = "pirate", account: AccountId = ACME, *, public: bool = False
    ) -> Finetune:
        given = NewFinetune(model=TINY_CHAT, name=name, public=public)
        return await self.finetunes.create(actor(account), given)

    async def put(self, finetune: Finetune, file_name: str, data: bytes | None = None) -> Finetune:
        uploaded = upload_of(GOOD[file_name] if data is None else data)
        owner = actor(finetune.account_id)
        return await self.finetunes.upload(owner, finetune.id, file_name, uploaded)

    async def bring(
        self, name: str = "pirate", account: AccountId = ACME, *, public: bool = False
    ) -> Finetune:
        """Make a finetune with both of its files."""
        made = await self.create(name, account, public=public)
        await self.put(made, CONFIG)
        return await self.put(made, WEIGHTS)


def base_of(entry: ModelEntry) -> AdapterBase:
    return AdapterBase(
        id=entry.id, model_types=frozenset({"llama"}), num_layers=LAYERS, linears=LINEARS
    )


def actor(account: AccountId) -> Actor:
    return Actor(account_id=account, name="key-1")


def upload_of(data: bytes) -> UploadedFile:
    return UploadedFile(
        file=io.BytesIO(data), size_bytes=len(data), sha256=sha256(data).hexdigest()
    )
