"""The command line. torch is imported by the commands that need it, so that help and lists answer at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import genmatch
from genmatch import registry
from genmatch.errors import GenmatchError
from genmatch.options import print_config, read_config, read_words, training_options
from genmatch.settings import Plan, RunSettings


class _Main(click.Group):
    """A group whose commands report a wrong input in one line, and an interrupt without a trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GenmatchError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            raise click.ClickException("stopped; everything finished is saved, and the same command goes on from there.") from None


def _budget(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of one training budget."""
    for option in reversed(
        [
            click.option("--data", default=RunSettings.data, show_default=True, help="Data set: a name from `genmatch list`, or package.module:Name."),
            click.option("--steps", type=int, default=RunSettings.steps, show_default=True, help="Optimiser steps."),
            click.option("--batch-size", type=int, default=RunSettings.batch_size, show_default=True, help="Data points a step."),
            click.option("--lr", type=float, default=RunSettings.lr, show_default=True, help="Learning rate."),
            click.option("--network", default=RunSettings.network, show_default=True, help="mlp or transformer."),
            click.option("--width", type=int, default=RunSettings.width, show_default=True, help="Width of the network."),
            click.option("--depth", type=int, default=RunSettings.depth, show_default=True, help="Depth of the network."),
            click.option(
                "--condition",
                is_flag=True,
                default=RunSettings.condition,
                help="Tell the network the label of each data point; samples are then drawn by class.",
            ),
            click.option("--seed", type=int, default=RunSettings.seed, show_default=True, help="Of weights, data order, noise and samples."),
            click.option("--config", type=click.Path(path_type=Path), is_eager=True, callback=read_config, help="TOML file with these options as keys."),
            click.option("--set", "words", multiple=True, is_eager=True, callback=read_words, help="key=value, over the file; repeat for more."),
            click.option("--print-config", is_flag=True, expose_value=False, callback=print_config, help="Print all settings with their meaning as TOML."),
        ]
    ):
        command = option(command)
    return command


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(genmatch.__version__, prog_name="genmatch")
def main() -> None:
    """Generative modelling with arbitrary Markov processes.

    Flows, diffusions and discrete chains behind one interface: train, sample, check and compare them.
    """


@main.command()
@click.option("--process", "processes", multiple=True, help="Family: a name or package.module:Name; repeat for more. Default: all that fit the data.")
@click.option("--nfe", type=int, multiple=True, help="Network calls a sample; repeat for more. Default: 1 2 4 8 16 32 64.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/compare"), show_default=True, help="Folder of the results.")
@_budget
def compare(processes: tuple[str, ...], nfe: tuple[int, ...], out: Path, config: Path | None, words: tuple[str, ...], **settings: Any) -> None:
    """Compare process families on one data set: same network, same budget, one report.

    A run that is stopped goes on where it was when the same command is given again.
    """
    from genmatch.compare import compare
    from genmatch.compare.runner import over

    plan = Plan(processes=processes, nfe=nfe or Plan.nfe, **settings)
    comparison = compare(plan, out, progress=sys.stderr.isatty(), say=click.echo)
    rows = []
    for family in sorted(comparison.families, key=lambda family: family.best["frechet"]):
        best = family.best
        distance = [f"{best['frechet']:.3g}", f"{over(best['frechet'], comparison.floor['frechet']):.2f}"]
        rows.append([family.name, *distance, f"{best['coverage']:.1%}", f"{best['nfe']:.0f}", f"{family.run.history['seconds']:.0f} s"])
    _table(["family", "Frechet distance", "x floor", "coverage", "calls", "training"], rows, f"{comparison.data.name}: the best of each family")
    click.echo(f"report: {out / 'report.html'}")


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), is_eager=True, callback=read_config)
@click.option("--process", required=True, help="Family: a name from `genmatch list`, or package.module:Name.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/train"), show_default=True, help="Folder of the run.")
@click.option("--every", type=int, default=500, show_default=True, help="Steps between two checkpoints.")
@click.option("--keep", type=int, default=2, show_default=True, help="Checkpoints that stay.")
@training_options
@_budget
def train(file: Path | None, process: str, out: Path, every: int, keep: int, config: Path | None, words: tuple[str, ...], **settings: Any) -> None:
    """Train one process on a data set, with the settings of the TOML file FILE if it is given.

    A run that is stopped or killed goes on from its last checkpoint when the same command is given again. On several processes:
    `torchrun --nproc-per-node=N -m genmatch train FILE`.
    """
    from genmatch.engine import is_first_process
    from genmatch.runs import train_run

    first = is_first_process()
    run = train_run(RunSettings(process=process, **settings), out, progress=sys.stderr.isatty() and first, label=process, every=every, keep=keep)
    if not first:
        return
    click.echo(f"{run.process}")
    click.echo(f"held-out loss {run.history['validation'][-1][1]:.4f} after {run.settings.steps} steps, {run.history['seconds']:.0f} s")
    click.echo(f"run: {out}; draw from it with `genmatch sample {out}`")


@main.command("check-checkpoint")
@click.argument("folder", type=click.Path(path_type=Path))
def check_checkpoint(folder: Path) -> None:
    """Verify a checkpoint, or every one of a run: all files are there and are what the manifest says.

    FOLDER is a checkpoint (step-00000500), a folder of them, or the folder of a run.
    """
    from genmatch import checkpoints

    inside = checkpoints.folders(folder) or checkpoints.folders(folder / "checkpoints") or [folder]
    damaged = 0
    for one in inside:
        try:
            found = checkpoints.read(one)
        except GenmatchError as error:
            damaged += 1
            click.echo(f"refused  {error}")
        else:
            size = sum(value.nbytes for tensors in found.files.values() for value in tensors.values())
            click.echo(f"whole    {one}: step {found.step}, {size / 2**20:.1f} MiB, genmatch {found.versions['genmatch']}, torch {found.versions['torch']}")
    if damaged:
        raise SystemExit(1)


@main.command()
@click.argument("run", type=click.Path(path_type=Path), default=Path("text"))
@click.option("--n", type=int, default=64, show_default=True, help="How many samples.")
@click.option("--steps", type=int, default=32, show_default=True, help="Steps of the solver.")
@click.option("--solver", default=None, help="Name of a solver; the recommended one by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Makes the draw repeatable.")
@click.option("--label", type=int, default=None, help="Draw samples of this class, of a run that was trained with --condition.")
@click.option("--guidance", type=float, default=1.0, show_default=True, help="How much the label counts: 1 is its law, more is further from other classes.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("samples.png"), show_default=True, help="A .png picture, .npy or .safetensors values, or .txt lines."
)
def sample(run: Path, n: int, steps: int, solver: str | None, seed: int, label: int | None, guidance: float, out: Path) -> None:
    """Draw samples from a run that `genmatch train` or `compare` made.

    RUN is its folder, or "text": a small masked model of Shakespeare's characters that comes with the package, and the default.
    """
    from genmatch.runs import load_run, sample_run

    sample_run(load_run(run), out, n=n, steps=steps, solver=solver, seed=seed, label=label, guidance=guidance)
    click.echo(f"{n} samples: {out}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("text", default="")
@click.option("--at", multiple=True, help="What is known, by position: 0:Once,5:upon; positions count tokens (characters) from 0. Repeat for more.")
@click.option("--n", type=int, default=4, show_default=True, help="How many texts.")
@click.option("--steps", type=int, default=64, show_default=True, help="Steps of the solver.")
@click.option("--solver", default=None, help="Name of a solver; the recommended one by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Makes the draw repeatable.")
@click.option("--stop", is_flag=True, help="End each line where TEXT ends; otherwise it goes on to the end of the window.")
def infill(run: Path, text: str, at: tuple[str, ...], n: int, steps: int, solver: str | None, seed: int, stop: bool) -> None:
    """Fill the gaps of a text, with a run on text.

    In TEXT each _ is a free token (a character, for a model of characters), as in "Once ____ a time"; everything else stays. TEXT
    stands at the start of the window that the run models.
    """
    from genmatch.infilling import infill_run
    from genmatch.runs import load_run

    for line in infill_run(load_run(run), text, at, n=n, steps=steps, solver=solver, seed=seed, stop=stop):
        click.echo(line)


@main.command()
@click.argument("run", type=click.Path(path_type=Path), default=Path("text"))
@click.option("--n", type=int, default=256, show_default=True, help="How many test points.")
@click.option("--draws", type=int, default=16, show_default=True, help="States on the way to each, or random probes of a flow's divergence.")
@click.option("--seed", type=int, default=0, show_default=True, help="Makes the estimate repeatable.")
def evaluate(run: Path, n: int, draws: int, seed: int) -> None:
    """Estimate how likely held-out data are under a run, RUN as for `sample`.

    A bound of -log p for a process with noise, with what it is a bound of; -log p for a flow.
    """
    from genmatch.runs import evaluate_run, load_run

    loaded = load_run(run)
    found = evaluate_run(loaded, n=n, draws=draws, seed=seed)
    click.echo(f"{found.mean:.4f} ± {found.mean_error:.4f} nats a test point of {loaded.settings.data}, view {loaded.view.name}")
    click.echo(f"{found.bits_per_coordinate:.4f} ± {found.bits_error:.4f} bits a coordinate, perplexity {found.perplexity:.4f}")
    click.echo(f"{found.kind} of {found.process}")


@main.command()
@click.argument("process")
@click.option("--data", default=None, help="Data set on whose spaces a family is checked; small spaces by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random states.")
@click.option("--level", default="full", show_default=True, help="full, or quick with a tenth of the draws.")
def check(process: str, data: str | None, seed: int, level: str) -> None:
    """Check a process against the identities of generator matching.

    PROCESS is a family from `genmatch list`, or package.module:Name of a family, a process or a function that makes one.
    """
    from genmatch.checks import check_process
    from genmatch.runs import find_process

    report = check_process(find_process(process, data), seed=seed, level=level)
    click.echo(report)
    if not report.passed:
        raise SystemExit(1)


@main.command()
@click.option("--checkpoint", "checkpoints", multiple=True, type=click.Path(path_type=Path), help="Folder of a run on text; repeat for more.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder whose reports are shown.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; only this machine reaches the default.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--jobs", type=int, default=4, show_default=True, help="Texts and processes drawn at once.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Time after which one is stopped.")
def serve(checkpoints: tuple[Path, ...], runs: Path, host: str, port: int, jobs: int, seconds: float) -> None:
    """Open a live page: text token by token, processes side by side, reports.

    It comes with a model of text, and fetches nothing from elsewhere. Stop it with Ctrl-C.
    """
    from genmatch.serve.run import serve

    serve(checkpoints, runs=runs, host=host, port=port, jobs=jobs, seconds=seconds, say=click.echo)


@main.command("list")
def list_names() -> None:
    """List processes, paths, solvers and data sets, those of other packages too."""
    for kind in (registry.processes, registry.paths, registry.solvers, registry.data):
        rows = [[name, *line] for name, line in kind.describe().items()]
        _table(["name", "what it is", "from"], rows, kind.plural)


def _table(columns: list[str], rows: list[list[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or column in ("what it is", "from") else "right")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table, new_line_start=True)


if __name__ == "__main__":
    main()
