"""What all commands share: examples in their help, `--quiet`, `--debug`, and how they end.

0  done        1  an error, or a check that failed        2  a command that cannot be read
130  stopped by Ctrl-C        143  stopped by SIGTERM
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import click

import genmatch
from genmatch.errors import GenmatchError

_META = "genmatch.cli"
_INTERRUPTED = 130
_GOES_ON = ("train", "compare")
"""Commands that go on from where they were stopped."""


class Command(click.Command):
    """A command with examples.

    Args:
        examples: command lines to show, without the `$`.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.params += [
            click.Option(["--quiet", "-q"], is_flag=True, is_eager=True, expose_value=False, callback=_note, help="Say nothing but the result."),
            click.Option(["--debug"], is_flag=True, is_eager=True, expose_value=False, callback=_note, help="Show where an error comes from."),
        ]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    # Lines to copy are not wrapped.
                    formatter.write(f"{'':>{formatter.current_indent}}$ {example}\n")


class Main(click.Group):
    """A group whose commands report what went wrong in one line."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            goes_on = "; everything finished is saved, and the same command goes on from there" if ctx.invoked_subcommand in _GOES_ON else ""
            click.echo(f"Error: stopped{goes_on}.", err=True)
            ctx.exit(_INTERRUPTED)
        except Exception as error:
            if flag(ctx, "debug") or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            if isinstance(error, GenmatchError):
                raise click.ClickException(str(error)) from None
            raise click.ClickException(f"unexpected {type(error).__name__}: {error}; add --debug to see where it comes from.") from None


def flag(ctx: click.Context, name: str) -> bool:
    """Whether `--quiet` or `--debug` was given."""
    return bool(ctx.meta.get(f"{_META}.{name}"))


def _note(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        ctx.meta[f"{_META}.{option.name}"] = True


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(genmatch.__version__, prog_name="genmatch")
def main() -> None:
    """Generative modelling with arbitrary Markov processes.

    Flows, diffusions and discrete chains behind one interface: train, sample, check and compare them. Each command has examples in its
    help, `genmatch COMMAND --help`.
    """
