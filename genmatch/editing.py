r"""Editing: noise back to a time, and draw again from there.

    x  ->  X_t ~ p_t(. | x1 = x)  ->  X_1 given X_t

The earlier t is, the more is drawn anew: all of it at 0, nothing at 1. If x is data then X_t has the law p_t, and what comes out
is data again: an edit moves within the data, and a chain of edits is one that leaves them as they are.

Source: "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations" (Meng et al., 2022),
https://arxiv.org/abs/2108.01073.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmatch.errors import number_in
from genmatch.grids import Grid
from genmatch.models import Condition, Model, check_model, conditions_for, device_of
from genmatch.processes.base import MarkovProcess
from genmatch.sampling import make_rng, simulate, times_for
from genmatch.solvers.base import Solver
from genmatch.tensors import State, batch_size, tree_map


def edit(
    process: MarkovProcess,
    model: Model,
    x: State,
    t: float,
    *,
    steps: int = 32,
    solver: str | Solver | None = None,
    grid: str | Grid = "uniform",
    condition: Condition | Tensor | None = None,
    clamp: Any = None,
    seed: int | None = None,
    rng: torch.Generator | None = None,
) -> State:
    """Variations of data points: noised back to time `t` by the path and carried to 1 again.

    Args:
        process: what is simulated.
        model: the network, or `gm.oracle(process, data)`.
        x: data points, (B, *shape), one variation each; repeat a point for more of it.
        t: how far back, in [0, 1): at 0 nothing is kept.
        steps: steps of the grid from `t` to 1.
        solver: a name or a `Solver`; the recommended one by default.
        grid: where the times lie, as for `sample`, squeezed into [t, 1].
        condition: what the model is conditioned on, such as another label than that of `x`, with one entry a sample.
        clamp: parts of the data that are known and held, as for `sample`: what must not change.
        seed: makes the draw repeatable; fresh randomness if None.
        rng: source of randomness, instead of `seed`.

    Raises:
        GenmatchError: if an argument does not fit, before anything is computed.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((3,), vocab_size=5))
        >>> model = gm.oracle(process, torch.tensor([[0, 1, 2], [0, 3, 4]]))
        >>> gm.edit(process, model, torch.tensor([[0, 1, 2]]), 0.0, clamp={2: 4}, seed=0)
        tensor([[0, 3, 4]])
    """
    t = number_in("[0, 1)", t, "t", "0 keeps nothing and a time near 1 almost all")
    rng = make_rng(device_of(model), seed, rng)
    x = tree_map(lambda value: value.to(rng.device), process.data_space.prepare(x))
    n = batch_size(x)
    times = t + (1 - t) * times_for(process, steps, grid)
    times[-1] = 1.0
    conditions = conditions_for(condition, n)
    check_model(process, model, conditions, 1, rng.device)
    x0 = process.path.start(x, conditions, rng=rng)
    noised = process.path.sample(x, torch.full((n,), t, dtype=torch.float64, device=rng.device), x0=x0, rng=rng)
    return simulate(process, model, noised, times, solver=solver, condition=conditions, clamp=clamp, rng=rng).states[-1]


__all__ = ["edit"]
