"""`list`, `explain`, `check` and `completion`: what there is, what it is, whether it is right, and its names in a shell."""

from __future__ import annotations

from typing import Any

import click

from genmatch import registry
from genmatch.cli.group import main
from genmatch.cli.output import json_option, print_json, print_table, say
from genmatch.options import seed_option

_KINDS = {"process": registry.processes, "path": registry.paths, "solver": registry.solvers, "data": registry.data, "network": registry.networks}
_SHELLS = ("bash", "zsh", "fish")


@main.command(
    "list",
    short_help="List processes, paths, solvers, data sets and networks.",
    examples=["genmatch list", "genmatch list solver", "genmatch list --fits", "genmatch list --json"],
)
@click.argument("kind", required=False, type=click.Choice(list(_KINDS)))
@click.option("--fits", is_flag=True, help="Also tell which solvers fit which process, and which processes fit which data; takes some seconds.")
@json_option
def list_names(kind: str | None, fits: bool, as_json: bool) -> None:
    """List processes, paths, solvers, data sets and networks, those of other packages too, with a line each.

    KIND is one of process, path, solver, data and network; all of them by default.
    """
    kinds = {name: names for name, names in _KINDS.items() if kind in (None, name)}
    lines = {name: names.describe() for name, names in kinds.items()}
    fitting: dict[str, dict[str, list[str]]] = {}
    if fits:
        from genmatch.explain import fits as find_fits

        fitting = find_fits()
    if as_json:
        named = {name: {one: {"what": what, "from": source} for one, (what, source) in found.items()} for name, found in lines.items()}
        print_json({**named, **({"fits": fitting} if fits else {})})
        return
    for name, found in lines.items():
        print_table(["name", "what it is", "from"], [[one, *line] for one, line in found.items()], _KINDS[name].plural, ["what it is", "from"])
    for title, table in fitting.items():
        print_table([title.split()[0], "fit it"], [[name, ", ".join(names) or "none"] for name, names in table.items()], title, ["fit it"])
    if not fits:
        say("What fits what: genmatch list --fits. What one of them is: genmatch explain NAME.")


@main.command(
    short_help="Print the recipe of a family, with formulas.",
    examples=["genmatch explain flow", "genmatch explain mask --data digits", "genmatch explain heun", "genmatch explain metric --kind path"],
)
@click.argument("name")
@click.option("--kind", type=click.Choice([*_KINDS, "schedule"]), default=None, help="Where several kinds of thing have the name.")
@click.option("--data", default=None, help="Data set on whose spaces a family is made; small spaces by default.")
@json_option
def explain(name: str, kind: str | None, data: str | None, as_json: bool) -> None:
    """Print the recipe of a family: path, target, generator, divergence and solvers, with formulas.

    NAME is a family, or a path, a solver, a schedule, a data set or a network; package.module:Name for one that is not registered.
    """
    from genmatch.explain import explain as explained

    found = explained(name, kind=kind, data=data)
    if as_json:
        print_json({"name": name, "kind": found.kind, "title": found.title, **dict(found.sections)})
    else:
        click.echo(str(found))


@main.command(
    short_help="Check a process against the identities it must satisfy.",
    examples=["genmatch check flow", "genmatch check mask --data digits --level quick", "genmatch check my_package.my_module:MyProcess"],
)
@click.argument("process")
@click.option("--data", default=None, help="Data set on whose spaces a family is checked; small spaces by default.")
@seed_option("Of the random states.")
@click.option("--level", default="full", show_default=True, help="full, or quick with a fifth of the draws.")
@json_option
def check(process: str, data: str | None, seed: int, level: str, as_json: bool) -> None:
    """Check a process against the identities of generator matching.

    PROCESS is a family from `genmatch list`, or package.module:Name of a family, a process or a function that makes one. The exit code is
    1 if a check failed.
    """
    from dataclasses import asdict

    from genmatch.checks import check_process
    from genmatch.runs import find_process

    report = check_process(find_process(process, data), seed=seed, level=level)
    if as_json:
        print_json({"title": report.title, "passed": report.passed, "results": [asdict(result) for result in report.results]})
    else:
        click.echo(report)
    if not report.passed:
        raise SystemExit(1)


@main.command(
    short_help="Print what a shell needs to complete commands by Tab.",
    examples=[
        'eval "$(genmatch completion bash)"       # in ~/.bashrc',
        'eval "$(genmatch completion zsh)"        # in ~/.zshrc',
        "genmatch completion fish > ~/.config/fish/completions/genmatch.fish",
    ],
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print what a shell needs to complete commands and options of genmatch by Tab."""
    from click.shell_completion import get_completion_class

    made: Any = get_completion_class(shell)
    click.echo(made(main, {}, "genmatch", "_GENMATCH_COMPLETE").source())
