"""`openworks chat`."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from openworks.app.cli.options import ConfigOption, DataDirOption, make_folder, read_settings
from openworks.app.cli.terminal import print_error, stdout
from openworks.core.errors import AppError, InvalidRequestError

if TYPE_CHECKING:
    from rich.console import Console

    from openworks.app.cli.conversation import Conversation

_HELP = "/reset begins anew, Ctrl-C stops an answer, /exit or Ctrl-D leaves."


def chat(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model to talk to.  \\[default: the server's default]",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The API's base URL.  \\[default: http://127.0.0.1:8080/v1; "
            "if nothing answers there, a server of its own]",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Instructions for the model.", show_default=False),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="OPENAI_API_KEY",
            show_envvar=True,
            help="For a server that asks for one.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Talk to a model in the terminal, or answer one text from a pipe.

    /reset begins anew, Ctrl-C stops an answer, /exit or Ctrl-D leaves.
    """
    settings = read_settings(config, data_dir)
    make_folder(settings)
    from openworks.app.cli.conversation import open_chat

    question = None if sys.stdin.isatty() else _piped()
    with open_chat(settings, model=model, url=url, system=system, api_key=api_key) as conversation:
        if question is None:
            _talk(conversation)
        else:
            _answer_once(conversation, question)


def _piped() -> str:
    question = sys.stdin.read().strip()
    if not question:
        raise InvalidRequestError("Nothing to answer: the standard input is empty.")
    return question


def _answer_once(conversation: Conversation, question: str) -> None:
    """Print the answer, and nothing else."""
    for piece in conversation.answer(question):
        if not piece.is_reasoning:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    print()


def _talk(conversation: Conversation) -> None:
    """Ask and answer until /exit or the end of the input."""
    console = stdout()
    _edit_lines()
    console.out(conversation.model, style="bold")
    if conversation.is_demonstration:
        console.out("A tiny demonstration model: it knows next to nothing.", style="dim")
    console.out(_HELP, style="dim")
    while True:
        try:
            text = input("\n> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            console.out("\nCtrl-D leaves.", style="dim", end="")
            continue
        match text:
            case "":
                continue
            case "/exit" | "/quit":
                return
            case "/reset":
                conversation.reset()
                console.out("Forgotten.", style="dim")
            case _ if text.startswith("/") and " " not in text:
                console.out(_HELP, style="dim")
            case _:
                _show_answer(conversation, text, console)


def _show_answer(conversation: Conversation, text: str, console: Console) -> None:
    try:
        with closing(conversation.answer(text)) as pieces:
            for piece in pieces:
                style = "dim italic" if piece.is_reasoning else None
                console.out(piece.text, end="", style=style, highlight=False)
    except KeyboardInterrupt:
        console.out(" (stopped)", style="dim", end="")
    except AppError as error:
        print_error(error.message)
        return
    print()


def _edit_lines() -> None:
    """Let the arrow keys move in a line and through earlier ones."""
    with suppress(ImportError):  # Windows edits lines by itself
        import readline  # noqa: F401 # importing it is what changes `input`
