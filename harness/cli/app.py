"""The Typer application that commands register with, and how results are printed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness import __version__, terminal

app = typer.Typer(
    name="harness",
    help="Serve an open LLM, find its GPU's limits, load it, and learn how many users it serves.\n\n"
    "Start with `harness demo`. `harness COMMAND --help` explains a command with an example.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

models_app = typer.Typer(
    help="The catalogue in models.yaml, and any model of the Hub.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(models_app, name="models")

baseline_app = typer.Typer(
    help="Store repeats to compare later runs with.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(baseline_app, name="baseline")


def _version(wanted: bool) -> None:
    if wanted:
        terminal.print_result(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def show(as_json: bool, document: Any, text: str) -> None:
    if as_json:
        terminal.print_json(document)
    else:
        terminal.print_result(text)
