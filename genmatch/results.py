"""What a finished run gives: samples in a file, and how likely held-out data are. Both are shared among the processes of torchrun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genmatch import data as data_sets
from genmatch.animation import draw_frames, draw_png, one_clock, require_plotting, to_gif
from genmatch.data import DataSet
from genmatch.errors import GenmatchError, positive_integer
from genmatch.files import write_atomically, write_tensors
from genmatch.guidance import classifier_free
from genmatch.likelihood import Likelihood, elbo, log_likelihood
from genmatch.models import Model
from genmatch.runs import Run
from genmatch.sampling import stream
from genmatch.shares import shared
from genmatch.tensors import State, batch_size, leaves, named_leaves, tree_map
from genmatch.training.engine import default_device, engine

_PATIENCE = 1800.0
"""Seconds that a process waits for another one's chunk of samples."""


def default_file(run: Run) -> Path:
    """Where samples go that nobody names a place for: lines of text, or a picture."""
    return Path("samples.txt" if data_sets.get(run.settings.data).write is not None else "samples.png")


def sample_run(run: Run, out: Path, *, n: int, steps: int, solver: str | None = None, seed: int = 0, label: int | None = None, guidance: float = 1.0) -> Tensor:
    """Draws samples of a run into a file, and returns them as points.

    The file is a picture (.png), the way of the samples from noise to data (.gif), the states as .npy or .safetensors, or lines of text (.txt)
    where the data are text.

    The processes of torchrun share the work, and the samples do not depend on how many there are: they are those of `gm.sample` with this seed.
    In a .safetensors file they are called `states`, or `states.part` for each part of a product. With a `label` they are of that class, of a run
    that was told labels; `guidance` is the weight of `gm.guidance.classifier_free`.

    Raises:
        GenmatchError: if the kind of file is unknown or an argument does not fit, before anything is drawn.
    """
    data = data_sets.get(run.settings.data)
    writers: dict[str, Callable[[Path, list[State]], None]] = {
        ".png": lambda part, way: _picture(data, run.view.decode(way[-1]), part),
        ".gif": lambda part, way: _film(run, data, way, part),
        ".npy": lambda part, way: _save_array(part, way[-1]),
        ".safetensors": lambda part, way: write_tensors(part, named_leaves(way[-1], "states")),
    }
    write = data.write
    if write is not None:
        writers[".txt"] = lambda part, way: _save_lines(part, write(run.view.decode(way[-1])))
    if out.suffix not in writers:
        raise GenmatchError(f"`out` must end in {', '.join(writers)}, got `{out}`.")
    if out.suffix == ".npy" and len(parts := named_leaves(run.view.train, "states")) > 1:
        raise GenmatchError(f"an .npy file holds one array, and a sample has {', '.join(parts)}; write .safetensors instead.")
    model, condition = _asked(run, positive_integer(n, "n"), label, guidance)
    if out.suffix in (".png", ".gif"):
        require_plotting()

    def draw(rows: slice, _: int) -> State:
        """The last of the states on the way, or all of them, (rows, times, ...)."""
        way = [x for _, x in stream(run.process, model, n, steps=steps, solver=solver, seed=seed, condition=condition, part=rows)]
        return tree_map(lambda *states: torch.stack(states, 1), *(way if out.suffix == ".gif" else way[-1:]))

    device = default_device()
    run.model.to(device)
    condition = tree_map(lambda v: v.to(device), condition) if condition else None
    with engine(device, _PATIENCE) as together:
        drawn = shared(n, draw, seed=seed, purpose="samples", together=together)
        way = [tree_map(lambda v, i=i: v[:, i], drawn) for i in range(leaves(drawn)[0].shape[1])]
        together.first(lambda: _write(out, lambda part: writers[out.suffix](part, way)), "writing the samples")
    return run.view.decode(way[-1])


def _write(out: Path, write: Callable[[Path], None]) -> None:
    try:
        write_atomically(out, write)
    except OSError as error:
        raise GenmatchError(f"the samples cannot be written to `{out}` ({error}); choose a place that can be written to.") from error


def _asked(run: Run, n: int, label: int | None, guidance: float) -> tuple[Model, dict[str, Tensor] | None]:
    """The model that draws `n` samples of a class, and its condition."""
    if label is None:
        if guidance != 1:
            raise GenmatchError(f"guidance leads towards a label, and none is given for `guidance` {guidance:g}; add `--label`.")
        return run.model, None
    classes = run.model.null["label"] if run.settings.condition else 0  # type: ignore[index]
    if not 0 <= label < classes:
        found = f"labels are 0 to {classes - 1}" if classes else "this run was told no labels; train one with `--condition`"
        raise GenmatchError(f"there is no label {label}: {found}.")
    return run.model if guidance == 1 else classifier_free(run.model, guidance), {"label": torch.full((n,), label)}


def evaluate_run(run: Run, *, n: int, draws: int, seed: int = 0) -> Likelihood:
    """How likely the first `n` test points are under a run: log p of a flow, and a bound of -log p of everything else.

    The flows of a product are bounded as diffusions with their networks; the result says so.

    The processes of torchrun share the work, and the estimate does not depend on how many there are.

    Raises:
        GenmatchError: if the process has neither, or an argument does not fit.
    """
    device = default_device()
    test = tree_map(lambda v: v[: positive_integer(n, "n")].to(device), run.view.test)
    run.model.to(device)
    found: list[Likelihood] = []

    def estimate(rows: slice, key: int) -> State:
        some = tree_map(lambda v: v[rows], test)
        if run.process.is_flow:
            found.append(log_likelihood(run.process, run.model, some, probes=draws, seed=key))
        else:
            found.append(elbo(run.process.bounded(), run.model, some, draws=draws, seed=key))
        return {"nats": found[-1].nats, "error": found[-1].standard_error}

    with engine(device, _PATIENCE) as together:
        all_rows = shared(batch_size(test), estimate, seed=seed, purpose="likelihood", together=together)
    return replace(found[0], nats=all_rows["nats"], standard_error=all_rows["error"])


def _save_array(path: Path, states: Tensor) -> None:
    with path.open("wb") as file:
        np.save(file, states.numpy(), allow_pickle=False)


def _save_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _picture(data: DataSet, points: Tensor, path: Path) -> None:
    path.write_bytes(draw_png(data.draw, points))


def _film(run: Run, data: DataSet, way: list[State], path: Path) -> None:
    times = [i / (len(way) - 1) for i in range(len(way))]
    frames = draw_frames(data.draw, [run.view.show(states) for states in way], pixels=400)
    path.write_bytes(to_gif(one_clock({run.settings.process: frames}, times)))
