"""`compare` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genmatch.cli.group import main
from genmatch.cli.output import is_quiet, json_option, print_json, print_table, say
from genmatch.options import budget_options
from genmatch.settings import Plan

if TYPE_CHECKING:
    from genmatch.compare import Study


@main.command(
    short_help="Compare families: same network and budget, one report.",
    examples=[
        "genmatch compare --data digits --out runs/digits",
        "genmatch compare --data checkerboard --process flow --process mask --steps 2000 --nfe 8 --nfe 32",
        "genmatch compare --data text:my_book.txt --network transformer --width 128 --out runs/book",
        "genmatch compare --data digits --seed 1 --out runs/digits-1 && genmatch report runs/digits runs/digits-1",
    ],
)
@click.option("--process", "processes", multiple=True, help="Family: a name or package.module:Name; repeat for more. Default: all that fit the data.")
@click.option("--nfe", type=int, multiple=True, help="Network calls a sample; repeat for more. Default: 1 2 4 8 16 32 64.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/compare"), show_default=True, help="Folder of the results.")
@budget_options
@json_option
def compare(processes: tuple[str, ...], nfe: tuple[int, ...], out: Path, config: Path | None, words: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """Compare process families on one data set: same network, same budget, one report.

    A run that is stopped goes on where it was when the same command is given again.
    """
    from genmatch.compare import Study, compare

    plan = Plan(processes=processes, nfe=nfe or Plan.nfe, **settings)
    comparison = compare(plan, out, progress=not is_quiet(), say=say)
    _show(Study([comparison], [str(out)]), out, as_json)


@main.command(
    short_help="Make the report of one or several comparisons again.",
    examples=[
        "genmatch report runs/digits",
        "genmatch report runs/digits runs/digits-1 runs/digits-2 --out runs/three-seeds",
        "genmatch report runs/digits --json",
    ],
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder of the report. Default: that of RUNS if it is one, else runs/report.")
@json_option
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Make the report of a comparison again from what is on disk, or one report of several.

    RUNS are folders that `genmatch compare` made. Runs that differ in their seed alone are joined to a mean with an interval; different
    families, or families with other settings, come into one table. Nothing is trained, sampled or measured again.
    """
    from genmatch.compare import Study, load_comparison, write_report
    from genmatch.files import write_json

    study = Study([load_comparison(run) for run in runs], [str(run) for run in runs])
    place = out or (runs[0] if len(runs) == 1 else Path("runs/report"))
    write_report(study, place)
    if place not in runs:
        write_json(place / "results.json", study.results())
    _show(study, place, as_json)


def _show(study: Study, out: Path, as_json: bool) -> None:
    if as_json:
        print_json({**study.results(), "report": str(out / "report.html")})
        return
    rows = []
    for line in study.ranked:
        distance = [line.figure("frechet").text(), line.over_floor().text("{:.2f}")]
        rows.append([line.name, *distance, line.figure("coverage").text("{:.1%}"), str(line.best), line.training.text("{:.0f} s")])
    print_table(["family", "Frechet distance", "x floor", "coverage", "calls", "training"], rows, f"{study.data.name}: the best of each family")
    click.echo(f"report: {out / 'report.html'}")
