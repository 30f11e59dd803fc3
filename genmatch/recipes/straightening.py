r"""Reflow: the noise and the data that a trained process joins become the pairs that the next one learns from.

    X_0 ~ p_0,   X_1 = the process from X_0,   next process: the same path with the coupling (X_0, X_1)

Both marginals stay, so the next process generates what the first one did. On a flow no two trajectories cross that it was paired
by, so that the lines between pairs cross less: their transport cost does not rise, and the straightness

    S = int_0^1 E |X_1 - X_0 - dX_t/dt|^2 dt

is at most E|X_1 - X_0|^2 / K for the best of K rounds. A straight flow is exact in one step. On a chain a step draws the tokens
independently of each other, and what it loses by that in one step from the noise is their total correlation given X_0: no round
makes it larger.

Sources: "Flow Straight and Fast" (Liu et al., ICLR 2023), https://arxiv.org/abs/2209.03003, theorems 3.5 and 3.7; "ReDi: Rectified
Discrete Flow" (Yoo et al., 2025), https://arxiv.org/abs/2507.15897.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from genmatch import solvers
from genmatch.errors import GenmatchError, positive_integer
from genmatch.grids import Grid
from genmatch.models import Condition, Model, check_model, conditions_for, device_of
from genmatch.paths.couplings import Pairs
from genmatch.processes.base import MarkovProcess
from genmatch.sampling import Run, make_rng, simulate, times_for
from genmatch.solvers.base import Solver
from genmatch.tensors import tree_map


def reflow(
    process: MarkovProcess,
    model: Model,
    n: int,
    *,
    steps: int = 64,
    solver: str | Solver | None = None,
    grid: str | Grid = "uniform",
    condition: Condition | Tensor | None = None,
    seed: int | None = None,
    rng: torch.Generator | None = None,
    batch_size: int = 1024,
) -> tuple[MarkovProcess, Any]:
    """Makes pairs of noise and data with a trained model, and the process that learns from them.

    What comes out goes into `gm.train` as it is, with a fresh network or, to start from what it knows, the old one.

    Args:
        process: a `Flow`, on any path that takes a coupling, or a `CTMC` with mixture rates and a source that is not the mask.
        model: what was learned, also a guided one, whose guidance the next network then needs no more.
        n: how many pairs: a network learns these by heart if they are few.
        steps: steps of the grid on [0, 1]; as many as the pairs should be exact for.
        solver: a name or a `Solver`; the recommended one by default.
        grid: where the times lie, as for `gm.sample`.
        condition: what the model is conditioned on, with `n` entries; it becomes part of the data.
        seed: makes the pairs repeatable; fresh randomness if None.
        rng: source of randomness, instead of `seed`.
        batch_size: pairs a network call.

    Returns:
        The process with the pairs as its coupling, and the data to train it on: x1, or (x1, condition).

    Raises:
        GenmatchError: if noise and data of the process cannot be paired: a diffusion renews its noise on the way, and the mask
            is all the noise that a masked chain has.

    Example:
        >>> import genmatch as gm
        >>> flow = gm.Flow(gm.paths.Gaussian((1,)))
        >>> model = gm.oracle(flow, torch.tensor([[-1.0], [1.0]]))
        >>> straight, data = gm.recipes.reflow(flow, model, 100, seed=0)
        >>> straight
        Flow(Gaussian((1,), schedule=CondOT(), coupling=Pairs(100)), prediction='velocity')
        >>> network = gm.nn.MLP(flow.space, flow.output_shape, width=16, depth=1)
        >>> len(gm.train(straight, network, data, steps=2, seed=0).losses)
        2
    """
    n, size = positive_integer(n, "n"), positive_integer(batch_size, "batch_size")
    if not process.supports("coupled"):
        raise GenmatchError(f"`reflow` pairs noise with data, and {process} needs noise that is independent of them; use `gm.Flow` on its path.")
    rng = make_rng(device_of(model), seed, rng)
    x0 = process.path.source(n, rng=rng)
    process.coupled(Pairs(x0, x0))  # refused before the work
    chosen, conditions, times = solvers.resolve(process, solver), conditions_for(condition, n), times_for(process, steps, grid)
    check_model(process, model, conditions, 1, rng.device)
    parts = []
    for start in range(0, n, size):
        rows = slice(start, start + size)
        given = tree_map(lambda value, rows=rows: value[rows], conditions)
        parts.append(simulate(process, model, x0[rows], times, solver=chosen, condition=given, rng=rng).states[-1])
    x1 = torch.cat(parts)
    return process.coupled(Pairs(x0, x1, conditions)), (x1, conditions) if conditions else x1


def straightness(run: Run) -> float:
    """How far the trajectories of a simulation are from straight lines at constant speed: S over the mean of |X_1 - X_0|^2, at least 0.

    Between two times of the grid the mean velocity stands for the velocity, so a grid that is too coarse hides some of it. A
    flow is straight in this sense with a straight schedule, `CondOT`, only.

    Args:
        run: of `gm.simulate` from t = 0 to t = 1, of vectors.

    Raises:
        GenmatchError: if the states are not vectors, or the run is of a part of the time.

    Example:
        >>> import genmatch as gm
        >>> flow = gm.Flow(gm.paths.Gaussian((1,)))
        >>> run = gm.simulate(flow, gm.oracle(flow, torch.tensor([[3.0]])), torch.randn(8, 1), torch.linspace(0, 1, 9))
        >>> straightness(run) < 1e-10   # one data point: straight lines to it
        True
    """
    first, last = run.states[0], run.states[-1]
    if not isinstance(first, Tensor) or not first.is_floating_point():
        raise GenmatchError("`straightness` is of trajectories of vectors; tokens jump, and parts of a product are measured each by itself.")
    if (float(run.times[0]), float(run.times[-1])) != (0.0, 1.0):
        raise GenmatchError(f"`straightness` needs a run from t = 0 to t = 1, got {float(run.times[0]):g} to {float(run.times[-1]):g}.")
    way = (last - first).double()
    total = torch.zeros((), dtype=torch.float64, device=way.device)
    steps = zip(itertools.pairwise(run.states), run.times.diff().tolist(), strict=True)
    for (x, later), h in steps:
        total += h * ((later - x).double() / h - way).square().sum()
    return float(total / way.square().sum())
