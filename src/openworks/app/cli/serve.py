"""`openworks serve`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from openworks.app.cli.options import ConfigOption, DataDirOption, read_settings


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="The address to bind; any but loopback needs a key.  \\[default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="The port; 0 for a free one.  \\[default: 8080]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A model to serve: a catalogue id, a Hub repository (owner/name or "
            "owner/name:QUANT) or a .gguf file. Repeatable; the last of a task is its default.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(
            help="What to log: debug, info, warning or error.  \\[default: info]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the OpenAI API.

    Fetches the weights that are missing, loads the default chat model and listens until Ctrl-C.
    """
    settings = read_settings(
        config,
        data_dir,
        server__host=host,
        server__port=port,
        models=model or None,
        log__level=log_level,
    )
    from openworks.app.cli.launch import run

    run(settings)
