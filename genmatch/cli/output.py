"""What commands print: results on standard output, as a table or as JSON; all else on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from genmatch.cli.group import flag

json_option = click.option("--json", "as_json", is_flag=True, is_eager=True, help="Print the result as JSON.")


def say(line: str) -> None:
    """A line on what is going on, unless the user wants quiet."""
    if not is_quiet():
        click.echo(line, err=True)


def is_quiet() -> bool:
    """Whether `--quiet` was given."""
    return flag(click.get_current_context(), "quiet")


def print_json(value: Any) -> None:
    """A result for machines; what JSON has no number for is null."""
    click.echo(json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str, left: Sequence[str] = ()) -> None:
    """A table for people; the first column and those named in `left` start at the left."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or column in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # What is piped on is not cut to the width of a terminal.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    console.print(table, new_line_start=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
