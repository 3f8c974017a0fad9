"""The options that every command has, and the settings that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from openworks.app.settings import Settings

ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file.  \\[default: openworks.toml, if there is one]",
        show_default=False,
    ),
]
DataDirOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where the database and fetched weights lie.  \\[default: ~/.openworks]",
        show_default=False,
    ),
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON, for other programs.")
]


def read_settings(config: Path | None, data_dir: Path | None, **flags: Any) -> Settings:
    """Return the settings, with flags over everything else.

    Args:
        config: A settings file; None for the usual one.
        data_dir: Of the option `--data-dir`.
        flags: Further keys, with two underscores for the dot: `server__port`.

    Raises:
        SettingsError: Something is unknown or wrong.
    """
    from openworks.app.settings import load_settings

    given = {key.replace("__", "."): value for key, value in flags.items()}
    return load_settings(file=config, flags={"data_dir": data_dir, **given})


def make_folder(settings: Settings) -> None:
    """Make the data folder.

    Raises:
        StorageError: It cannot be made.
    """
    from openworks.core.errors import StorageError

    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(
            f"Cannot make the data folder {settings.folder}: {exc.strerror}. "
            "Choose another with --data-dir."
        ) from exc
