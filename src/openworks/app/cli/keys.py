"""`openworks keys`: who may call."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from openworks.app.cli.options import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    make_folder,
    read_settings,
)
from openworks.app.cli.terminal import (
    print_json,
    print_table,
    stderr,
    stdout,
    table,
    time_text,
)
from openworks.core.clock import SystemClock
from openworks.core.errors import AppError, InvalidRequestError
from openworks.core.ids import AccountId, KeyId
from openworks.ports.calls import Scope

if TYPE_CHECKING:
    from openworks.app.settings import Settings
    from openworks.core.json import JsonObject, JsonValue
    from openworks.ports.keys import ApiKey


class _ScopeName(StrEnum):
    """`Scope` again, as typer takes no lists of literals."""

    INFERENCE = "inference"
    ADMIN = "admin"


app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


@app.command()
def create(
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="What the key is for.", show_default=False)
    ],
    account: Annotated[
        str, typer.Option(metavar="NAME", help="Whose calls its calls are.")
    ] = "default",
    scope: Annotated[
        list[_ScopeName] | None,
        typer.Option(
            help="What it may do; repeatable.  \\[default: inference]", show_default=False
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M",
            help="A model name it may use; repeatable.  \\[default: every model]",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="In 30d or 12h, or on a date such as 2027-01-01 (UTC).  \\[default: never]",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a key and print its secret, which is shown this once."""
    from openworks.app.cli.durations import parse_future

    if not name.strip():
        raise InvalidRequestError(f"A key needs a name that says what it is for, got {name!r}.")
    expires_at_s = None if expires is None else parse_future(expires, SystemClock().now_s())
    settings = read_settings(config, data_dir)
    make_folder(settings)
    key, secret, is_first = asyncio.run(
        _create(
            settings,
            name=name,
            account_id=AccountId(account),
            scopes=cast("list[Scope]", [name.value for name in scope or ()]) or ["inference"],
            models=model,
            expires_at_s=expires_at_s,
        )
    )
    if model:
        _warn_of_unknown(settings, model)
    if as_json:
        print_json({**_fields(key), "secret": secret})
        return
    print(secret)
    console = stderr()
    console.print(
        f"Key {key.id} ({name}), expires: {time_text(key.expires_at_s)}. "
        "The secret cannot be shown again.",
        markup=False,
    )
    if is_first:
        console.print("This is the first key: from now on every request needs one.")


@app.command("list")
def list_keys(
    as_json: JsonOption = False, data_dir: DataDirOption = None, config: ConfigOption = None
) -> None:
    """List every key, without its secret."""
    settings = read_settings(config, data_dir)
    make_folder(settings)
    keys = asyncio.run(_list(settings))
    if as_json:
        print_json([_fields(key) for key in keys])
        return
    if not keys:
        stdout().print("No keys. Make one with: openworks keys create --name me")
        return
    made = table("ID", "NAME", "SECRET", "STATE", "ACCOUNT", "SCOPES", "MODELS", "MADE", "EXPIRES")
    for key in keys:
        made.add_row(
            key.id,
            key.name,
            key.hint,
            _state(key),
            key.account_id,
            " ".join(sorted(key.scopes)),
            "all" if key.allowed_models is None else " ".join(sorted(key.allowed_models)),
            time_text(key.created_at_s),
            time_text(key.expires_at_s),
        )
    print_table(made)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")],
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a key useless, within two seconds on a running server."""
    settings = read_settings(config, data_dir)
    make_folder(settings)
    left = asyncio.run(_revoke(settings, KeyId(key_id)))
    stdout().print(f"Revoked {key_id}.", markup=False)
    if not left:
        stderr().print(
            "[yellow]No key is left:[/] a running server stays closed; one that is started from "
            "now on without an access token is open to this machine."
        )


def _warn_of_unknown(settings: Settings, names: list[str]) -> None:
    """Say which models this machine does not know: perhaps a slip, perhaps a flag of `serve`."""
    for name in asyncio.run(_unknown(settings, names)):
        stderr().print(
            f"No model {name!r} is known here. Until there is one, the key may not use any by it.",
            style="yellow",
            markup=False,
        )


async def _create(
    settings: Settings,
    *,
    name: str,
    account_id: AccountId,
    scopes: list[Scope],
    models: list[str] | None,
    expires_at_s: float | None,
) -> tuple[ApiKey, str, bool]:
    from openworks.app.state import open_state

    async with open_state(settings) as state:
        is_first = not await state.keys.is_guarded()
        key, secret = await state.keys.create(
            name=name,
            account_id=account_id,
            scopes=scopes,
            allowed_models=models or None,
            expires_at_s=expires_at_s,
        )
    return key, secret, is_first


async def _unknown(settings: Settings, names: list[str]) -> list[str]:
    from openworks.app.cli.local_models import local_catalog
    from openworks.app.state import make_weights

    weights = make_weights(settings)
    try:
        catalog, missing = await local_catalog(settings, weights)
    except AppError:  # of a model of the settings, which is for `serve` to tell
        return []
    finally:
        await weights.close()
    return [name for name in names if catalog.find(name) is None and name not in missing]


async def _list(settings: Settings) -> list[ApiKey]:
    from openworks.app.state import open_state

    async with open_state(settings) as state:
        return list(await state.keys.list())


async def _revoke(settings: Settings, key_id: KeyId) -> bool:
    """Return whether the server is still guarded."""
    from openworks.app.state import open_state

    async with open_state(settings) as state:
        await state.keys.revoke(key_id)
        return await state.keys.is_guarded()


def _state(key: ApiKey) -> str:
    from openworks.services.keys import is_active

    if key.revoked_at_s is not None:
        return "revoked"
    return "active" if is_active(key, SystemClock().now_s()) else "expired"


def _fields(key: ApiKey) -> JsonObject:
    models: JsonValue = None if key.allowed_models is None else [*sorted(key.allowed_models)]
    return {
        "id": key.id,
        "name": key.name,
        "account": key.account_id,
        "state": _state(key),
        "hint": key.hint,
        "scopes": [*sorted(key.scopes)],
        "models": models,
        "created_at_s": key.created_at_s,
        "expires_at_s": key.expires_at_s,
        "revoked_at_s": key.revoked_at_s,
    }
