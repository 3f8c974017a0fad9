"""`openworks adapters`: LoRA adapters that this machine's models are served with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openworks.app.cli.options import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    make_folder,
    read_settings,
)
from openworks.app.cli.terminal import bytes_text, print_json, print_table, stdout, table, time_text
from openworks.core.errors import AppError, InvalidRequestError
from openworks.core.ids import AccountId, new_id

if TYPE_CHECKING:
    from openworks.app.finetunes import Adapters
    from openworks.app.settings import Settings
    from openworks.core.json import JsonObject
    from openworks.services.audit import Actor
    from openworks.services.finetune_documents import Finetune
    from openworks.wire.cloudflare.finetunes import NewFinetune

_ACTOR = "system"

AccountOption = Annotated[str, typer.Option(metavar="NAME", help="Whose adapters they are.")]

app = typer.Typer(no_args_is_help=True, help="Add, list and remove LoRA adapters.")


@app.command()
def add(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Holds adapter_config.json and adapter_model.safetensors, as PEFT writes them.",
        ),
    ],
    model: Annotated[str, typer.Option(metavar="M", help="The base model.", show_default=False)],
    name: Annotated[
        str, typer.Option(metavar="N", help="What follows + in its name.", show_default=False)
    ],
    description: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What it is for.", show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let every account use it.")] = False,
    account: AccountOption = "default",
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Check an adapter and keep it; a running server has it within two seconds."""
    from openworks.wire.cloudflare.fields import checked
    from openworks.wire.cloudflare.finetunes import NewFinetune

    body: JsonObject = {
        "model": model,
        "name": name,
        "description": description,
        "public": public,
    }
    given = checked(NewFinetune, body)
    settings = read_settings(config, data_dir)
    make_folder(settings)
    finetune = asyncio.run(_add(settings, AccountId(account), folder, given))
    if as_json:
        print_json(_fields(finetune))
        return
    stdout().print(f"Added. Ask for the model {finetune.model_name}", markup=False, soft_wrap=True)


@app.command("list")
def list_adapters(
    account: AccountOption = "default",
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """List an account's adapters, newest first."""
    settings = read_settings(config, data_dir)
    make_folder(settings)
    found = asyncio.run(_list(settings, AccountId(account)))
    if as_json:
        print_json([_fields(finetune) for finetune in found])
        return
    if not found:
        stdout().print(
            "No adapters. Add one with: openworks adapters add FOLDER --model M --name N"
        )
        return
    made = table("MODEL", "ID", "STATE", "SIZE", "MADE", right=("SIZE",))
    for finetune in found:
        made.add_row(
            finetune.model_name,
            finetune.id,
            _state(finetune),
            bytes_text(_size_bytes(finetune)),
            time_text(finetune.created_at_s),
        )
    print_table(made)


@app.command()
def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")],
    account: AccountOption = "default",
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove an adapter; a running server forgets it within two seconds."""
    settings = read_settings(config, data_dir)
    make_folder(settings)
    finetune = asyncio.run(_remove(settings, AccountId(account), name))
    stdout().print(f"Removed {finetune.model_name}.", markup=False, soft_wrap=True)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Adapters]:
    from openworks.app.cli.local_models import local_catalog
    from openworks.app.finetunes import open_adapters
    from openworks.app.state import make_weights, open_state
    from openworks.core.clock import SystemClock

    weights, clock = make_weights(settings), SystemClock()
    try:
        catalog, _ = await local_catalog(settings, weights)
    finally:
        await weights.close()
    async with (
        open_state(settings, clock) as state,
        open_adapters(
            settings,
            state.database,
            catalog,
            on_deleted=_nobody_to_tell,
            clock=clock,
            new_id=new_id,
        ) as adapters,
    ):
        yield adapters


async def _add(
    settings: Settings, account: AccountId, folder: Path, given: NewFinetune
) -> Finetune:
    from openworks.services.audit import Actor
    from openworks.services.finetunes import FILES

    actor = Actor(account_id=account, name=_ACTOR)
    async with _opened(settings) as adapters:
        finetune = await adapters.finetunes.create(actor, given)
        try:
            for file_name in sorted(FILES):
                path = folder / file_name
                finetune = await _upload(adapters, actor, finetune, path, settings)
        except AppError:
            await adapters.finetunes.delete(actor, finetune.id)  # half of it is of no use
            raise
    return finetune


async def _upload(
    adapters: Adapters, actor: Actor, finetune: Finetune, path: Path, settings: Settings
) -> Finetune:
    from openworks.ports.blobs import UploadedFile

    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
            if size_bytes > settings.finetunes.max_bytes:
                raise InvalidRequestError(
                    f"{path} has {size_bytes} bytes, of at most {settings.finetunes.max_bytes}."
                )
            uploaded = UploadedFile(file=file, size_bytes=size_bytes, sha256=digest)
            return await adapters.finetunes.upload(actor, finetune.id, path.name, uploaded)
    except OSError as exc:
        raise InvalidRequestError(f"Cannot read {path}: {exc.strerror}.") from exc


async def _list(settings: Settings, account: AccountId) -> Sequence[Finetune]:
    async with _opened(settings) as adapters:
        return await adapters.finetunes.list(account)


async def _remove(settings: Settings, account: AccountId, name: str) -> Finetune:
    from openworks.services.audit import Actor

    async with _opened(settings) as adapters:
        return await adapters.finetunes.delete(Actor(account_id=account, name=_ACTOR), name)


def _nobody_to_tell(generation: str) -> None:
    """Engines are a server's; what they hold ages there."""


def _state(finetune: Finetune) -> str:
    if not finetune.is_ready:
        return "incomplete"
    return "public" if finetune.is_public else "ready"


def _size_bytes(finetune: Finetune) -> int:
    return sum(asset.size_bytes for asset in finetune.assets.values())


def _fields(finetune: Finetune) -> JsonObject:
    return {
        "id": finetune.id,
        "model": finetune.model_name,
        "openai_name": finetune.openai_name,
        "base": finetune.model,
        "name": finetune.name,
        "account": finetune.account_id,
        "state": _state(finetune),
        "public": finetune.is_public,
        "size_bytes": _size_bytes(finetune),
        "created_at_s": finetune.created_at_s,
    }
