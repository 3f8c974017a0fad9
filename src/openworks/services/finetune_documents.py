"""Finetunes as they are kept: a document each, with one more for each of its two files.

A finetune's document is called by its name, so that no account has two of one name. A file's
document is made once: whoever comes second, through whatever server, finds it taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from openworks.core.ids import AccountId
from openworks.core.json import JsonObject, JsonValue
from openworks.ports.documents import Document
from openworks.services.adapter_check import CONFIG_FILE, WEIGHTS_FILE

PUBLIC: Final = AccountId("*")
"""Under this name, which no account has, the list of public finetunes is kept."""
_ID_TAIL: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One of the two files, as it was stored."""

    blob: str
    size_bytes: int
    sha256: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune:
    """An adapter that an account has, or is about to upload."""

    id: str
    account_id: AccountId
    model: str
    """The catalogue id of its base model."""
    name: str
    description: str | None
    is_public: bool
    """Whether every account may use it."""
    created_at_s: float
    modified_at_s: float
    assets: Mapping[str, Asset]
    """By the name of the file; both, or none as long as one is missing."""

    @property
    def is_ready(self) -> bool:
        """Whether both files are there."""
        return bool(self.assets)

    @property
    def model_name(self) -> str:
        """What callers name as the model."""
        return f"{self.model}+{self.name}"

    @property
    def openai_name(self) -> str:
        """The same in the form of OpenAI's fine-tuned models."""
        short = self.model.rpartition("/")[2]
        return f"ft:{short}:{self.account_id}:{self.name}:{self.id[-_ID_TAIL:]}"

    @property
    def generation(self) -> str:
        """A digest of everything that its answers depend on beside the base model."""
        digests = "".join(self.assets[name].sha256 for name in (CONFIG_FILE, WEIGHTS_FILE))
        return sha256(digests.encode()).hexdigest()

    @property
    def folder(self) -> str:
        """Below which documents of its files lie: not those of a namesake that was deleted."""
        return f"{self.name}/{self.id}"

    def blob_name(self, file_name: str, digest: str) -> str:
        """Where the bytes of a file go; other bytes, another place."""
        account = quote(self.account_id, safe="").replace(".", "%2E")
        return f"adapters/{account}/{self.id}/{digest}/{file_name}"


def to_document(finetune: Finetune) -> Document:
    """Write a finetune."""
    assets: JsonObject = {name: asset_fields(one) for name, one in finetune.assets.items()}
    return Document(
        kind="finetune",
        account_id=finetune.account_id,
        parent="",
        id=finetune.name,
        body={
            "id": finetune.id,
            "model": finetune.model,
            "description": finetune.description,
            "public": finetune.is_public,
            "assets": assets,
        },
        created_at_s=finetune.created_at_s,
        modified_at_s=finetune.modified_at_s,
    )


def to_finetune(document: Document) -> Finetune:
    """Read a finetune."""
    body = document.body
    description, assets = body["description"], body["assets"]
    assert isinstance(assets, dict)
    return Finetune(
        id=str(body["id"]),
        account_id=document.account_id,
        model=str(body["model"]),
        name=document.id,
        description=None if description is None else str(description),
        is_public=body["public"] is True,
        created_at_s=document.created_at_s,
        modified_at_s=document.modified_at_s,
        assets={name: to_asset(fields) for name, fields in assets.items()},
    )


def to_public(finetune: Finetune) -> Document:
    """Write the entry of a finetune in the list of public ones: all of it, under its id."""
    document = to_document(finetune)
    owner: JsonObject = {"account_id": finetune.account_id, "name": finetune.name}
    return replace(
        document,
        kind="public_finetune",
        account_id=PUBLIC,
        id=finetune.id,
        body={**document.body, **owner},
    )


def of_public(document: Document) -> Finetune:
    """Read an entry of the list of public finetunes."""
    owner, name = str(document.body["account_id"]), str(document.body["name"])
    return to_finetune(replace(document, account_id=AccountId(owner), id=name))


def asset_document(finetune: Finetune, file_name: str, asset: Asset, now_s: float) -> Document:
    """Write one of a finetune's files."""
    return Document(
        kind="finetune_asset",
        account_id=finetune.account_id,
        parent=finetune.folder,
        id=file_name,
        body=asset_fields(asset),
        created_at_s=now_s,
        modified_at_s=now_s,
    )


def asset_fields(asset: Asset) -> JsonObject:
    """Write what is known of a file."""
    return {
        "blob": asset.blob,
        "size_bytes": asset.size_bytes,
        "sha256": asset.sha256,
        "rank": asset.rank,
    }


def to_asset(fields: JsonValue) -> Asset:
    """Read what is known of a file."""
    assert isinstance(fields, dict)
    size_bytes, rank = fields["size_bytes"], fields["rank"]
    assert isinstance(size_bytes, int)
    assert isinstance(rank, int)
    return Asset(
        blob=str(fields["blob"]), size_bytes=size_bytes, sha256=str(fields["sha256"]), rank=rank
    )
