"""`openworks threads`: assistants, threads and conversations, out of this server and into it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from openworks.app.cli.options import ConfigOption, DataDirOption, make_folder, read_settings
from openworks.app.cli.terminal import stderr
from openworks.core.errors import AppError, InvalidRequestError
from openworks.core.ids import AccountId

if TYPE_CHECKING:
    from openworks.app.settings import Settings
    from openworks.services.moving.house import House, Moved


class _Form(StrEnum):
    """`Form` again, as typer takes no literals."""

    THREADS = "threads"
    CONVERSATIONS = "conversations"


AccountOption = Annotated[str, typer.Option(metavar="NAME", help="Whose they are.")]
AsOption = Annotated[
    _Form | None,
    typer.Option(
        "--as",
        help="Turn threads into conversations, or conversations into threads.  "
        "\\[default: leave them as they are]",
        show_default=False,
    ),
]

app = typer.Typer(no_args_is_help=True, help="Take threads and conversations out, bring them in.")


@app.command("export")
def export_threads(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="Where to.  \\[default: standard output]", show_default=False
        ),
    ] = None,
    thread: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Only this thread; repeatable.  \\[default: all]", show_default=False
        ),
    ] = None,
    form: AsOption = None,
    account: AccountOption = "default",
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Write an account's assistants, threads and conversations as JSON Lines."""
    settings = read_settings(config, data_dir)
    make_folder(settings)
    if file is None:
        moved = asyncio.run(_export(settings, AccountId(account), sys.stdout, form, thread or ()))
    else:
        try:
            with file.open("x", encoding="utf-8") as output:
                moved = asyncio.run(
                    _export(settings, AccountId(account), output, form, thread or ())
                )
        except OSError as error:
            raise AppError(f"Cannot write {file}: {error.strerror}.") from error
    _report("Written", moved)


@app.command("import")
def import_threads(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON or JSON Lines; - for standard input.")
    ],
    form: AsOption = None,
    account: AccountOption = "default",
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Keep what a file holds of threads and conversations, under its own ids.

    Takes what `export` writes, and what was saved of OpenAI's API: objects, lists and pages of
    them. What is there already stays as it is, so that a file may be brought in twice.
    """
    settings = read_settings(config, data_dir)
    make_folder(settings)
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"Cannot read {file}: {error.strerror}.") from error
    _report("Kept", asyncio.run(_import(settings, AccountId(account), data, form)))


async def _export(
    settings: Settings,
    account_id: AccountId,
    output: TextIO,
    form: _Form | None,
    thread_ids: Collection[str],
) -> Moved:
    from openworks.services.moving.house import Moved

    moved = Moved()
    async with _house(settings, account_id) as house:
        async for found in house.take_out(
            moved, form=None if form is None else form.value, thread_ids=thread_ids
        ):
            output.write(json.dumps(found, ensure_ascii=False) + "\n")
    return moved


async def _import(
    settings: Settings, account_id: AccountId, data: bytes, form: _Form | None
) -> Moved:
    from openworks.services.moving.dump import read_dump

    dump = read_dump(data)
    async with _house(settings, account_id) as house:
        return await house.bring_in(dump, form=None if form is None else form.value)


@asynccontextmanager
async def _house(settings: Settings, account_id: AccountId) -> AsyncIterator[House]:
    from openworks.app.state import open_state
    from openworks.core.clock import SystemClock
    from openworks.services.moving.house import House, Stores
    from openworks.storage.sql.assistants import SqlAssistantStore
    from openworks.storage.sql.conversations import SqlConversationStore
    from openworks.storage.sql.messages import SqlMessageStore
    from openworks.storage.sql.threads import SqlThreadStore

    async with open_state(settings) as state:
        stores = Stores(
            assistants=SqlAssistantStore(state.database),
            threads=SqlThreadStore(state.database),
            messages=SqlMessageStore(state.database),
            conversations=SqlConversationStore(state.database),
        )
        yield House(stores, account_id, clock=SystemClock())


def _report(verb: str, moved: Moved) -> None:
    """Say what came of it, where it is not taken for the export itself."""
    console = stderr()
    for what, counts in (
        (verb, moved.done),
        ("There already", moved.already_there),
        ("Left out", moved.left_out),
    ):
        listed = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        if listed or what == verb:
            console.print(f"{what}: {listed or 'nothing'}.", markup=False, soft_wrap=True)
