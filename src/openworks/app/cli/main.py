"""The command line: `openworks serve`, `models`, `adapters`, `keys`, `usage`, `chat`, `doctor`, …

A module for each command. What is slow to import waits inside the command that needs it, so that
`--help` and `version` answer at once.
"""

from __future__ import annotations

import sys

import typer

from openworks import __version__
from openworks.app.cli import adapters, keys, models, threads
from openworks.app.cli.chat import chat
from openworks.app.cli.doctor import doctor
from openworks.app.cli.serve import serve
from openworks.app.cli.terminal import print_error
from openworks.app.cli.usage import usage
from openworks.core.errors import AppError

app = typer.Typer(
    name="openworks",
    help="The OpenAI API on open models, served from your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve)
app.command("chat")(chat)
app.add_typer(models.app, name="models")
app.add_typer(adapters.app, name="adapters")
app.add_typer(threads.app, name="threads")
app.add_typer(keys.app, name="keys")
app.command("usage")(usage)
app.command("doctor")(doctor)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Run the command line; an error of ours becomes one line and exit status 1."""
    try:
        app()
    except AppError as error:
        print_error(error.message)
        sys.exit(1)
