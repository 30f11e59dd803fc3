"""Sampling: one loop over the times of a grid, for every process and every solver.

The state is on the grid at each of its times, and its law is the path's there, up to the solver's error. A last step into
t = 1 is taken by a solver that says it finishes, else by the process's own `finish`, where there is one, and else by a method
of first order: no generator is evaluated at 1.
A solver of higher order than two hands over to it shortly before 1, so that the last step does not cost its order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch import solvers
from genmatch.constraints import known
from genmatch.errors import GenmatchError, Unfinished, checked_seed, positive_integer
from genmatch.grids import Grid, time_grid
from genmatch.models import Condition, Model, Predictor, check_model, conditions_for, device_of, evaluating
from genmatch.processes.base import MarkovProcess, require_process
from genmatch.reprs import described
from genmatch.rows import Groups
from genmatch.solvers.base import Solver
from genmatch.solvers.general import Finish
from genmatch.tensors import State, batch_size, leaves, tree_map

_HANDOVER = 1e-4
"""How long before t = 1 a solver of order above two hands over: the exact last step errs by its square."""


@dataclass(frozen=True)
class Run:
    """What a simulation saw.

    Attributes:
        states: the state at each time of the grid, the given one first.
        times: the grid, float64, (steps + 1,).
        nfe: network calls that the solver asked for.
        calls: network calls that each sample took, (B,): fewer, where a step read nothing of its output.
    """

    states: list[State]
    times: Tensor
    nfe: int
    calls: Tensor

    __repr__ = described


def simulate(
    process: MarkovProcess,
    model: Model,
    x0: State,
    times: Tensor,
    *,
    solver: str | Solver | None = None,
    condition: Condition | Tensor | None = None,
    clamp: Any = None,
    rng: torch.Generator | None = None,
) -> Run:
    """Simulates a process from the states `x0` at times[0], and keeps the state at every time of the grid.

    Args:
        process: what is simulated.
        model: the network, or `gm.oracle(process, data)`.
        x0: states at times[0], (B, ...), such as `process.path.source(B)` for times[0] = 0.
        times: increasing times in [0, 1], (steps + 1,).
        solver: a name or a `Solver`; the recommended one by default.
        condition: what the model is conditioned on, a tensor or a dictionary of tensors with one entry a sample.
        clamp: parts of the data that are known, as for `sample`.
        rng: source of randomness.

    Raises:
        GenmatchError: if an argument does not fit, before anything is computed; or if the simulation leaves the space.
        Unfinished: if a solver hits its limit of calls; the error's `run` holds the states until then.

    Example:
        >>> import genmatch as gm
        >>> process = gm.Flow(gm.paths.Gaussian((1,)))
        >>> model = gm.oracle(process, torch.tensor([[3.0]]))
        >>> run = gm.simulate(process, model, torch.zeros(1, 1), torch.tensor([0.0, 0.5, 1.0]))
        >>> [x.item() for x in run.states], run.nfe
        ([0.0, 1.5, 3.0], 2)
    """
    require_process(process)
    process.space.validate(x0, "x0")
    times, chosen = _grid(times), solvers.resolve(process, solver)
    conditions = conditions_for(condition, batch_size(x0))
    keep = known(process.path, clamp, batch_size(x0)).start(x0, rng)
    predict = Predictor(process, model, conditions, keep)
    with torch.no_grad(), evaluating(model):
        states: list[State] = []
        try:
            for x in _walk(process, chosen, predict, x0, times, rng):
                states.append(x)
        except Unfinished as stop:
            stop.run = Run(states, times[: len(states)], predict.calls, predict.spent(batch_size(x0)))
            raise
    process.space.validate(states[-1], "the simulated state")
    return Run(states, times, predict.calls, predict.spent(batch_size(x0)))


def sample(
    process: MarkovProcess,
    model: Model,
    n: int,
    *,
    steps: int = 32,
    solver: str | Solver | None = None,
    grid: str | Grid = "uniform",
    times: Tensor | None = None,
    condition: Condition | Tensor | None = None,
    clamp: Any = None,
    seed: int | None = None,
    rng: torch.Generator | None = None,
    batch_size: int | None = None,
) -> State:
    """Draws `n` samples: noise from the source, carried to t = 1.

    Args:
        process: what is simulated.
        model: the network, or `gm.oracle(process, data)`.
        n: how many samples.
        steps: steps of the grid on [0, 1].
        solver: a name or a `Solver`; the recommended one by default.
        grid: where the times lie: "uniform", "cosine", or, by the schedule of the path, "angle", "log-snr", "karras"; or a function
            from `steps` to times. Any grid goes with any solver.
        times: a grid of your own, increasing from 0 to at most 1, instead of `steps`.
        condition: what the model is conditioned on, a tensor or a dictionary of tensors with `n` entries.
        clamp: parts of the data that are known and held from start to end: `{position: value}`, by position in the flattened
            state; a pair `(mask, values)`; or, for a product, `{modality: values}`, with all of a modality or any of these. A
            value is that of every sample, or of each along a leading axis. How exact that is, see `genmatch.constraints`.
        seed: makes the draw repeatable; fresh randomness if None.
        rng: source of randomness, instead of `seed`.
        batch_size: samples a network call; all at once by default. It does not change what is drawn, see `genmatch.rows`, but for
            solvers whose number of draws depends on the states: "thinning".

    Raises:
        GenmatchError: if an argument does not fit, before anything is computed.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
        >>> gm.sample(process, gm.oracle(process, torch.tensor([[1, 2]])), 2, steps=4, seed=0)
        tensor([[1, 2],
                [1, 2]])
    """
    n = positive_integer(n, "n")
    size = n if batch_size is None else positive_integer(batch_size, "batch_size")
    draw = _Draw(process, model, n, _from_noise(process, steps, grid, times), solver, condition, clamp, make_rng(device_of(model), seed, rng))
    parts = []
    for start in range(0, n, size):
        for _, last in draw.states(slice(start, min(start + size, n))):  # noqa: B007 (only the last state is kept)
            pass
        parts.append(last)
    samples = tree_map(lambda *values: torch.cat(values), *parts)
    process.space.validate(samples, "the samples")
    return samples


def stream(
    process: MarkovProcess,
    model: Model,
    n: int,
    *,
    steps: int = 32,
    solver: str | Solver | None = None,
    grid: str | Grid = "uniform",
    times: Tensor | None = None,
    condition: Condition | Tensor | None = None,
    clamp: Any = None,
    seed: int | None = None,
    rng: torch.Generator | None = None,
    part: slice | None = None,
) -> Iterator[tuple[float, State]]:
    """The way of `sample`, as it is taken: each time of the grid with the state there, the noise first and the samples last.

    The arguments are those of `sample` (`steps`, `times`, `clamp` and the others), and so are the samples. Nothing is computed ahead: who stops asking stops the simulation.
    With a `part`, such as `slice(64, 128)`, they are those of the `n` samples only, as one of several processes draws them.

    Raises:
        GenmatchError: if an argument does not fit, before anything is computed.

    Example:
        >>> import genmatch as gm
        >>> process = gm.Flow(gm.paths.Gaussian((1,)))
        >>> model = gm.oracle(process, torch.tensor([[3.0]]))
        >>> for t, x in gm.stream(process, model, 1, steps=2, seed=0):
        ...     print(t, round(x.item(), 2))
        0.0 1.54
        0.5 2.27
        1.0 3.0
        >>> torch.equal(x, gm.sample(process, model, 1, steps=2, seed=0))
        True
    """
    n = positive_integer(n, "n")
    draw = _Draw(process, model, n, _from_noise(process, steps, grid, times), solver, condition, clamp, make_rng(device_of(model), seed, rng))
    return draw.states(part or slice(0, n))


class _Draw:
    """Samples that are asked for, with everything about them checked: `n` of them, at `times` that start with the noise."""

    def __init__(
        self,
        process: MarkovProcess,
        model: Model,
        n: int,
        times: Tensor,
        solver: str | Solver | None,
        condition: Condition | Tensor | None,
        clamp: Any,
        rng: torch.Generator,
    ) -> None:
        self.process, self.model, self.times, self.solver = process, model, times, solvers.resolve(process, solver)
        self.conditions, self.clamped = conditions_for(condition, n), known(process.path, clamp, n)
        check_model(process, model, self.conditions, 1, rng.device)
        self.groups = Groups(rng, n)

    @torch.no_grad()
    def states(self, rows: slice) -> Iterator[tuple[float, State]]:
        """The times of the grid and the states of some of the samples there."""
        rng = self.groups.part(rows.start, rows.stop)
        with evaluating(self.model):
            x0 = self.process.path.source(rows.stop - rows.start, rng=rng)
            keep = self.clamped.rows(rows).start(x0, rng)
            predict = Predictor(self.process, self.model, tree_map(lambda value: value[rows], self.conditions), keep)
            yield from zip(self.times.tolist(), _walk(self.process, self.solver, predict, x0, self.times, rng), strict=True)


def times_for(process: MarkovProcess, steps: int, grid: str | Grid) -> Tensor:
    """The grid of that name, in the clock of the process's schedule where it has one.

    Args:
        process: what is simulated.
        steps: of the grid.
        grid: its name, or a function of `steps`.
    """
    return time_grid(steps, grid, getattr(process.path, "schedule", None))


def _from_noise(process: MarkovProcess, steps: int, grid: str | Grid, times: Tensor | None) -> Tensor:
    """The grid of a draw: `times` if they are given, which must start with the noise."""
    require_process(process)
    steps = positive_integer(steps, "steps")
    chosen = _grid(times_for(process, steps, grid) if times is None else times)
    if float(chosen[0]) != 0:
        raise GenmatchError(f"`times` must start at 0, where the noise is, got {float(chosen[0]):.6g}; use `gm.simulate` to start later.")
    return chosen


def make_rng(device: torch.device, seed: int | None, rng: torch.Generator | None = None) -> torch.Generator:
    """The given generator, or a new one on `device` from `seed`, or from fresh entropy for None.

    Raises:
        GenmatchError: if `seed` is not an integer of 64 bits, or both are given.
    """
    if rng is not None:
        if seed is not None:
            raise GenmatchError("pass `seed` or `rng`, not both.")
        return rng
    new = torch.Generator(device)
    if seed is None:
        new.seed()
        return new
    return new.manual_seed(checked_seed(seed))


def _walk(process: MarkovProcess, solver: Solver, predict: Predictor, x: State, times: Tensor, rng: torch.Generator | None) -> Iterator[State]:
    """The states at `times`, with what is known in its place."""
    device = leaves(x)[0].device
    solver = solver.start()
    ending = _ending(process, solver)
    ask, ask_at_the_end = predict.of(solver), predict.of(ending)
    ones = torch.ones(batch_size(x), dtype=torch.float64, device=device)
    # Where a prediction says nothing at t = 0, the first moment of noise is skipped.
    grid = [max(t, process.t_min) for t in times.tolist()]
    now = grid[0] * ones
    x = predict.keep(x, now)
    yield x
    for t, s in itertools.pairwise(grid):
        later = s * ones
        if s == 1 and solver.order > 2 and ending is not solver and t < 1 - _HANDOVER:
            handover = (1 - _HANDOVER) * ones
            x, now = solver.step(process, ask, x, now, handover, rng=rng), handover
        if t < s:
            step, output = (ending.step, ask_at_the_end) if s == 1 else (solver.step, ask)
            x = predict.keep(step(process, output, x, now, later, rng=rng), later)
        now = later
        yield x


def _ending(process: MarkovProcess, solver: Solver) -> Solver:
    """Who takes the last step into t = 1: nobody there may look at t = 1, and methods of higher order do, unless they say so."""
    if solver.finishes:
        return solver
    if process.supports("finish"):
        return Finish()
    return solver if solver.order == 1 else solvers.get("euler")


def _grid(times: Any) -> Tensor:
    try:
        grid = torch.as_tensor(times)
    except (TypeError, ValueError, RuntimeError):
        raise GenmatchError(f"`times` must be at least two floating times, got {times!r}; pass `torch.linspace(0, 1, 33)`.") from None
    if not grid.is_floating_point() or grid.dim() != 1 or len(grid) < 2:
        raise GenmatchError(f"`times` must be at least two floating times, got {grid.dtype} with shape {tuple(grid.shape)}; pass `torch.linspace(0, 1, 33)`.")
    grid = grid.double().cpu()
    if not bool((grid[1:] > grid[:-1]).all()) or float(grid[0]) < 0 or float(grid[-1]) > 1:
        raise GenmatchError(f"`times` must increase strictly inside [0, 1], got {grid.tolist()}.")
    return grid
