"""Finetunes as their owners manage them: made, filled with two checked files, listed, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Final
from weakref import WeakValueDictionary

from pydantic import Field

from openworks.core.clock import Clock
from openworks.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from openworks.core.ids import AccountId, NewId
from openworks.core.safetensors import (
    LENGTH_BYTES,
    SafetensorsHeader,
    header_length,
    parse_header,
    read_header,
)
from openworks.ports.blobs import Blobs, UploadedFile
from openworks.ports.catalog import ModelEntry
from openworks.ports.documents import DocumentStore
from openworks.services.adapter_base import AdapterBase
from openworks.services.adapter_check import (
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    WEIGHTS_FILE,
    AdapterConfig,
    check_config,
    check_name,
    check_pair,
    check_tensors,
    check_values,
)
from openworks.services.audit import Actor, Audit
from openworks.services.catalog import Catalog
from openworks.services.finetune_documents import (
    PUBLIC,
    Asset,
    Finetune,
    asset_document,
    of_public,
    to_asset,
    to_document,
    to_finetune,
    to_public,
)
from openworks.services.known_finetunes import KnownFinetunes
from openworks.wire.cloudflare.finetunes import NewFinetune

FILES: Final = frozenset({CONFIG_FILE, WEIGHTS_FILE})


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunesConfig:
    """What adapters users may bring, and where they are kept on this machine."""

    max_rank: Annotated[int, Field(ge=1)] = 64
    """The highest rank of an adapter."""
    max_bytes: Annotated[int, Field(ge=1)] = 300_000_000
    """The largest file of an adapter; a larger one gets a 413 while it is read."""
    per_account: Annotated[int, Field(ge=1)] = 100
    """How many adapters an account may have."""
    max_uploads: Annotated[int, Field(ge=1)] = 4
    """Files under way at once; a further one gets a 503."""
    upload_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 900.0
    """Seconds within which a whole file must have come; a slower one gets a 408."""
    local_mib: Annotated[int, Field(ge=1)] = 8192
    """Disk for adapters that are, or were lately, in use; the rest stays with the blobs."""


class Finetunes:
    """Makes, fills, lists and deletes finetunes."""

    def __init__(
        self,
        store: DocumentStore,
        blobs: Blobs,
        audit: Audit,
        catalog: Catalog,
        known: KnownFinetunes,
        *,
        base_of: Callable[[ModelEntry], AdapterBase],
        on_deleted: Callable[[Finetune], None],
        config: FinetunesConfig,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        """Put together what it needs.

        Args:
            store: Keeps what is known of them.
            blobs: Keeps their files.
            audit: Notes changes.
            catalog: Knows the base models.
            known: Is told of changes.
            base_of: Reads what adapters of a model must fit; blocks.
            on_deleted: Lets go of what is elsewhere of a finetune that is no more.
            config: The limits.
            clock: Of this process.
            new_id: Makes ids.
        """
        self._store = store
        self._blobs = blobs
        self._audit = audit
        self._catalog = catalog
        self._known = known
        self._base_of = base_of
        self._on_deleted = on_deleted
        self._config = config
        self._clock = clock
        self._new_id = new_id
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, actor: Actor, given: NewFinetune) -> Finetune:
        """Make one, which waits for its files.

        Raises:
            ModelNotFoundError: There is no such base model.
            InvalidRequestError: It takes no adapters.
            ConflictError: The name is taken, or the account has as many as it may.
        """
        entry = self._base(given.model)
        if len(await self.list(actor.account_id)) >= self._config.per_account:
            raise ConflictError(
                f"The account has {self._config.per_account} finetunes, which is the limit.",
                code="too_many_finetunes",
            )
        now_s = self._clock.now_s()
        finetune = Finetune(
            id=self._new_id("ft-"),
            account_id=actor.account_id,
            model=entry.id,
            name=given.name,
            description=given.description,
            is_public=given.public,
            created_at_s=now_s,
            modified_at_s=now_s,
            assets={},
        )
        document = to_document(finetune)
        try:
            await self._store.insert(document, self._audit.created(actor, document))
        except ConflictError:
            raise ConflictError(
                f"The account has a finetune named {given.name!r} already.", param="name"
            ) from None
        self._known.forget(finetune)
        return finetune

    async def list(self, account: AccountId) -> Sequence[Finetune]:
        """Return all of an account, newest first."""
        return [to_finetune(item) for item in await self._store.list("finetune", account, "")]

    async def list_public(self) -> Sequence[Finetune]:
        """Return all that every account may use, newest first."""
        return [of_public(item) for item in await self._store.list("public_finetune", PUBLIC, "")]

    async def upload(
        self, actor: Actor, reference: str, file_name: str, uploaded: UploadedFile
    ) -> Finetune:
        """Check one of the two files of a finetune, and keep it for good.

        Raises:
            NotFoundError: The account has no such finetune.
            InvalidRequestError: The file is not one of the two, is broken, or does not fit the
                base model or the other file; nothing of it is kept.
            ModelNotFoundError: The base model is not on this machine.
            ConflictError: The file was uploaded before.
        """
        check_name(file_name)
        finetune = await self._own(actor.account_id, reference)
        async with self._turn(finetune):
            finetune = await self._own(actor.account_id, finetune.id)  # it may have been deleted
            before = await self._assets(finetune)
            if file_name in before:
                # Whoever stored it may have been ended before the last step.
                await self._complete(actor, finetune, before)
                raise ConflictError(
                    f"The finetune {finetune.name!r} has its {file_name} already, and files cannot "
                    "be changed: make another finetune.",
                    code="asset_exists",
                    param="file_name",
                )
            rank = await self._check(finetune, file_name, uploaded, before)
            asset = Asset(
                blob=finetune.blob_name(file_name, uploaded.sha256),
                size_bytes=uploaded.size_bytes,
                sha256=uploaded.sha256,
                rank=rank,
            )
            await self._blobs.put_file(asset.blob, uploaded.file)
            document = asset_document(finetune, file_name, asset, self._clock.now_s())
            await self._store.insert(document, self._audit.created(actor, document))
            return await self._complete(actor, finetune, await self._assets(finetune))

    async def delete(self, actor: Actor, reference: str) -> Finetune:
        """Delete one with its files; answers that are being written with it are finished.

        Raises:
            NotFoundError: The account has no such finetune.
        """
        finetune = await self._own(actor.account_id, reference)
        async with self._turn(finetune):
            assets = await self._assets(finetune)
            document = to_document(finetune)
            entry = self._audit.deleted(actor, document)
            if not await self._store.delete("finetune", actor.account_id, "", finetune.name, entry):
                raise _no_finetune(reference)
            await self._unpublish(actor, finetune)
            self._known.forget(finetune)
            self._on_deleted(finetune)
            for asset in assets.values():
                await self._blobs.delete(asset.blob)
        return finetune

    def _base(self, model: str) -> ModelEntry:
        entry = self._catalog.find(model)
        if entry is None:
            raise self._catalog.unknown(model)
        if entry.task != "text-generation" or "lora" not in entry.capabilities:
            raise no_lora(entry.id)
        return entry

    async def _own(self, account: AccountId, reference: str) -> Finetune:
        found = await self.list(account)
        by_id = (item for item in found if item.id == reference)
        by_name = (item for item in found if item.name == reference)
        finetune = next(by_id, None) or next(by_name, None)
        if finetune is None:
            raise _no_finetune(reference)
        return finetune

    def _turn(self, finetune: Finetune) -> asyncio.Lock:
        """Return what keeps two changes of one finetune apart: each looks at the other's file."""
        lock = self._turns.get(finetune.id)
        if lock is None:
            lock = self._turns[finetune.id] = asyncio.Lock()
        return lock

    async def _assets(self, finetune: Finetune) -> Mapping[str, Asset]:
        documents = await self._store.list("finetune_asset", finetune.account_id, finetune.folder)
        return {item.id: to_asset(item.body) for item in documents}

    async def _complete(
        self, actor: Actor, finetune: Finetune, assets: Mapping[str, Asset]
    ) -> Finetune:
        """Let calls find a finetune, once both of its files are there."""
        if finetune.is_ready or assets.keys() != FILES:
            return finetune
        done = replace(finetune, assets=assets, modified_at_s=self._clock.now_s())
        document, public = to_document(done), to_public(done)
        if done.is_public:
            with suppress(ConflictError):  # made before, and not followed by the next step
                await self._store.insert(public, self._audit.created(actor, public))
        entry = self._audit.updated(actor, document, to_document(finetune).body)
        if not await self._store.replace(document, entry):
            await self._unpublish(actor, done)
            raise _no_finetune(finetune.name)  # deleted meanwhile, through another server
        self._known.forget(done)
        return done

    async def _unpublish(self, actor: Actor, finetune: Finetune) -> None:
        if finetune.is_public:
            entry = self._audit.deleted(actor, to_public(finetune))
            await self._store.delete("public_finetune", PUBLIC, "", finetune.id, entry)

    async def _check(
        self,
        finetune: Finetune,
        file_name: str,
        uploaded: UploadedFile,
        others: Mapping[str, Asset],
    ) -> int:
        """Return the rank of a file that fits the base model, and the other file if it is there."""
        base = await asyncio.to_thread(self._base_of, self._base(finetune.model))
        if file_name == CONFIG_FILE:
            config = await self._config_of(uploaded, base)
            if (weights := others.get(WEIGHTS_FILE)) is not None:
                check_pair(config, await self._stored_header(weights))
            return config.rank
        header, rank = await asyncio.to_thread(self._check_weights, uploaded, base)
        if (stored := others.get(CONFIG_FILE)) is not None:
            text = _there(await self._blobs.get(stored.blob), stored)
            check_pair(check_config(text, base, max_rank=self._config.max_rank), header)
        return rank

    async def _config_of(self, uploaded: UploadedFile, base: AdapterBase) -> AdapterConfig:
        uploaded.file.seek(0)
        data = await asyncio.to_thread(uploaded.file.read, MAX_CONFIG_BYTES + 1)
        return check_config(data, base, max_rank=self._config.max_rank)

    def _check_weights(
        self, uploaded: UploadedFile, base: AdapterBase
    ) -> tuple[SafetensorsHeader, int]:
        header = read_header(uploaded.file, uploaded.size_bytes)
        rank = check_tensors(header, base, max_rank=self._config.max_rank)
        check_values(uploaded.file, header)
        return header, rank

    async def _stored_header(self, asset: Asset) -> SafetensorsHeader:
        """Read the header of weights that were found good when they came."""
        prefix = await self._blobs.get_range(asset.blob, start=0, length=LENGTH_BYTES)
        length = header_length(_there(prefix, asset), asset.size_bytes)
        text = await self._blobs.get_range(asset.blob, start=LENGTH_BYTES, length=length)
        return parse_header(_there(text, asset), asset.size_bytes)


def no_lora(model: str) -> InvalidRequestError:
    """Make the error for a base model that takes no adapters."""
    return InvalidRequestError(
        f"The model {model!r} does not support LoRA adapters.",
        code="lora_unsupported",
        param="model",
    )


def _no_finetune(reference: str) -> NotFoundError:
    return NotFoundError(f"Finetune {reference[:80]!r} not found.", code="finetune_not_found")


def _there(data: bytes | None, asset: Asset) -> bytes:
    if data is None:
        raise StorageError(f"The blob {asset.blob!r} is missing.")
    return data
