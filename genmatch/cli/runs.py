"""`train`, `check-checkpoint`, `sample`, `infill` and `evaluate`: a run from its settings to its likelihood."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from genmatch.cli.group import main
from genmatch.cli.output import is_quiet, json_option, print_json, say
from genmatch.errors import GenmatchError
from genmatch.options import budget_options, read_config, seed_option, training_options
from genmatch.settings import RunSettings


@main.command(
    short_help="Train one process on a data set.",
    examples=[
        "genmatch train --process mask --data digits --out runs/mask",
        "genmatch train run.toml --set lr=1e-3 --out runs/mask",
        "genmatch train --process flow --print-config > run.toml",
        "torchrun --nproc-per-node=2 -m genmatch train run.toml",
    ],
)
@click.argument("file", required=False, type=click.Path(path_type=Path), is_eager=True, callback=read_config)
@click.option("--process", required=True, help="Family: a name from `genmatch list`, or package.module:Name.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/train"), show_default=True, help="Folder of the run.")
@click.option("--every", type=int, default=500, show_default=True, help="Steps between two checkpoints.")
@click.option("--keep", type=int, default=2, show_default=True, help="Checkpoints that stay.")
@training_options
@budget_options
def train(file: Path | None, process: str, out: Path, every: int, keep: int, config: Path | None, words: tuple[str, ...], **settings: Any) -> None:
    """Train one process on a data set, with the settings of the TOML file FILE if it is given.

    A run that is stopped or killed goes on from its last checkpoint when the same command is given again. On several processes:
    `torchrun --nproc-per-node=N -m genmatch train FILE`.
    """
    from genmatch.runs import train_run
    from genmatch.training.engine import is_first_process

    first = is_first_process()
    run = train_run(RunSettings(process=process, **settings), out, progress=first and not is_quiet(), label=process, every=every, keep=keep)
    if not first:
        return
    click.echo(f"{run.process}")
    click.echo(f"held-out loss {run.history['validation'][-1][1]:.4f} after {run.settings.steps} steps, {run.history['seconds']:.0f} s")
    click.echo(f"run: {out}")
    say(f"draw from it with `genmatch sample {out}`")


@main.command(
    "check-checkpoint",
    short_help="Verify a checkpoint, or all of a run.",
    examples=["genmatch check-checkpoint runs/mask", "genmatch check-checkpoint runs/mask/checkpoints/step-00000500"],
)
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def check_checkpoint(folder: Path, as_json: bool) -> None:
    """Verify a checkpoint, or every one of a run: all files are there and are what the manifest says.

    FOLDER is a checkpoint (step-00000500), a folder of them, or the folder of a run.
    """
    from genmatch.training import checkpoints

    inside = checkpoints.folders(folder) or checkpoints.folders(folder / "checkpoints") or [folder]
    if not folder.is_dir():
        raise GenmatchError(f"`{folder}` is no folder; expected that of a run, of its checkpoints or of one of them.")
    rows: list[dict[str, Any]] = []
    for one in inside:
        try:
            found = checkpoints.read(one)
        except GenmatchError as error:
            rows.append({"checkpoint": str(one), "whole": False, "reason": str(error)})
        else:
            size = sum(value.nbytes for tensors in found.files.values() for value in tensors.values())
            rows.append({"checkpoint": str(one), "whole": True, "step": found.step, "bytes": size, "versions": found.versions})
    if as_json:
        print_json(rows)
    for row in [] if as_json else rows:
        if row["whole"]:
            made = row["versions"]
            click.echo(f"whole    {row['checkpoint']}: step {row['step']}, {row['bytes'] / 2**20:.1f} MiB, genmatch {made['genmatch']}, torch {made['torch']}")
        else:
            click.echo(f"refused  {row['reason']}")
    if not all(row["whole"] for row in rows):
        raise SystemExit(1)


@main.command(
    short_help="Draw samples from a run.",
    examples=[
        "genmatch sample",
        "genmatch sample runs/mask --n 64 --steps 32 --out samples.png",
        "genmatch sample runs/mask --steps 48 --out from-noise-to-data.gif",
        "genmatch sample runs/by-class --label 3 --guidance 2 --out threes.safetensors",
    ],
)
@click.argument("run", type=click.Path(path_type=Path), default=Path("text"))
@click.option("--n", "-n", type=int, default=64, show_default=True, help="How many samples.")
@click.option("--steps", type=int, default=32, show_default=True, help="Steps of the solver.")
@click.option("--solver", default=None, help="Name of a solver; the recommended one by default.")
@seed_option("Makes the draw repeatable.")
@click.option("--label", type=int, default=None, help="Draw samples of this class, of a run that was trained with --condition.")
@click.option("--guidance", type=float, default=1.0, show_default=True, help="How much the label counts: 1 is its law, more is further from other classes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="A .png picture, a .gif of the way from noise to data, .npy or .safetensors values, or .txt lines. Default: samples.txt of text, else samples.png.",
)
def sample(run: Path, n: int, steps: int, solver: str | None, seed: int, label: int | None, guidance: float, out: Path | None) -> None:
    """Draw samples from a run that `genmatch train` or `compare` made.

    RUN is its folder, or "text": a small masked model of Shakespeare's characters that comes with the package, and the default.
    In a terminal that can, the first samples are shown as well.
    """
    from genmatch.cli.terminal import show
    from genmatch.results import default_file, sample_run
    from genmatch.runs import load_run
    from genmatch.training.engine import is_first_process

    loaded = load_run(run)
    place = out or default_file(loaded)
    points = sample_run(loaded, place, n=n, steps=steps, solver=solver, seed=seed, label=label, guidance=guidance)
    if not is_first_process():
        return
    if not is_quiet():
        show(loaded, points)
    click.echo(f"{n} samples: {place}")


@main.command(
    short_help="Fill the gaps of a text.",
    examples=['genmatch infill "Once ____ a time"', "genmatch infill --at 0:What,9:love --n 8", 'genmatch infill runs/mask "KING ______:" --stop'],
)
@click.argument("run", type=click.Path(path_type=Path), default=Path("text"))
@click.argument("text", default="")
@click.option("--at", multiple=True, help="What is known, by position: 0:Once,5:upon; positions count tokens (characters) from 0. Repeat for more.")
@click.option("--n", "-n", type=int, default=4, show_default=True, help="How many texts.")
@click.option("--steps", type=int, default=64, show_default=True, help="Steps of the solver.")
@click.option("--solver", default=None, help="Name of a solver; the recommended one by default.")
@seed_option("Makes the draw repeatable.")
@click.option("--stop", is_flag=True, help="End each line where TEXT ends; otherwise it goes on to the end of the window.")
@json_option
def infill(run: Path, text: str, at: tuple[str, ...], n: int, steps: int, solver: str | None, seed: int, stop: bool, as_json: bool) -> None:
    """Fill the gaps of a text, with a run on text; the packaged one by default.

    In TEXT each _ is a free token (a character, for a model of characters), as in "Once ____ a time"; everything else stays. TEXT
    stands at the start of the window that the run models.
    """
    from genmatch.infilling import infill_run
    from genmatch.runs import load_run, packaged

    if not text and not run.exists() and str(run) not in packaged():
        if not any(mark in str(run) for mark in ("__", " ")):
            raise GenmatchError(f'`{run}` is no run, and a text has gaps, each `_` a free token; e.g. `genmatch infill {run} "Once ____ a time"`.')
        run, text = Path("text"), str(run)
    lines = infill_run(load_run(run), text, at, n=n, steps=steps, solver=solver, seed=seed, stop=stop)
    if as_json:
        print_json(list(lines))
    else:
        click.echo("\n".join(lines))


@main.command(
    short_help="Estimate how likely held-out data are under a run.", examples=["genmatch evaluate", "genmatch evaluate runs/mask --n 1000 --draws 32 --json"]
)
@click.argument("run", type=click.Path(path_type=Path), default=Path("text"))
@click.option("--n", "-n", type=int, default=256, show_default=True, help="How many test points.")
@click.option("--draws", type=int, default=16, show_default=True, help="States on the way to each, or random probes of a flow's divergence.")
@seed_option("Makes the estimate repeatable.")
@json_option
def evaluate(run: Path, n: int, draws: int, seed: int, as_json: bool) -> None:
    """Estimate how likely held-out data are under a run, RUN as for `sample`.

    A bound of -log p for a process with noise, with what it is a bound of; -log p for a flow.
    """
    from genmatch.results import evaluate_run
    from genmatch.runs import load_run
    from genmatch.training.engine import is_first_process

    loaded = load_run(run)
    found = evaluate_run(loaded, n=n, draws=draws, seed=seed)
    if not is_first_process():
        return
    # Of a density the power says nothing: it changes with the unit of the data.
    perplexity = found.perplexity if loaded.view.space.cardinality < math.inf else None
    if as_json:
        bits = {"bits_per_coordinate": found.bits_per_coordinate, "bits_error": found.bits_error, "perplexity": perplexity}
        told = {"kind": found.kind, "process": found.process, "data": loaded.settings.data, "view": loaded.view.name, "points": len(found.nats)}
        print_json({"nats": found.mean, "nats_error": found.mean_error, **bits, "bound": found.bound, "tight": found.tight, **told})
        return
    click.echo(f"{found.mean:.4f} ± {found.mean_error:.4f} nats a test point of {loaded.settings.data}, view {loaded.view.name}")
    click.echo(f"{found.bits_per_coordinate:.4f} ± {found.bits_error:.4f} bits a coordinate" + ("" if perplexity is None else f", perplexity {perplexity:.4f}"))
    click.echo(f"{found.kind} of {found.process}")
