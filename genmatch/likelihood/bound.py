r"""An upper bound of -log p(x1), the negative evidence lower bound, for every process with noise.

Two processes on one path that start from the same noise differ, at time t, at the rate `kl_rate` of their path measures; and data
that are a function of a path are no further apart than the paths. So for the process that leads to $x_1$ and the one that a network
leads

    -log p(x1)  <=  KL(p_0(. | x1) || source)  +  int E_{x ~ p_t(. | x1)} kl_rate(output, x, t, x1) dt  +  E[-log p(x1 | X_end)],

for every process: the mask and uniform bounds of discrete diffusion, and the variational bound of Gaussian diffusion. With the exact
network it is the entropy of the data if the process is a time reversal, and more otherwise.

Source: "Generator Matching" (Holderrieth et al., 2025), https://arxiv.org/abs/2410.20587.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.likelihood.base import Likelihood, checked_end, prepared
from genmatch.models import Condition, Model, Predictor, evaluating
from genmatch.paths.visits import off_the_ends
from genmatch.processes.base import MarkovProcess
from genmatch.tensors import State, batch_size, tree_map


def elbo(
    process: MarkovProcess,
    model: Model,
    x1: Any,
    *,
    draws: int = 32,
    condition: Condition | Tensor | None = None,
    t_end: float | None = None,
    seed: int | None = None,
    rng: torch.Generator | None = None,
    batch_size: int = 1024,
) -> Likelihood:
    """Estimates an upper bound of -log p(x1), the negative evidence lower bound, for a process with noise.

    Args:
        process: whose likelihood it is. A diffusion's is that of its network with memoryless noise.
        model: the network, or `gm.oracle(process, data)`.
        x1: data points, (B, *shape), or a dictionary for products.
        draws: states on the way to each data point, at least 2. They cover time evenly.
        condition: what the model is conditioned on, a tensor or a dictionary of tensors with one entry a data point.
        t_end: where the last step into the data is taken; the path's own time by default. A network that is not certain of the data at
            the end has no finite bound up to 1 unless its source is the mask.
        seed: makes the estimate repeatable; fresh randomness if None.
        rng: source of randomness, instead of `seed`.
        batch_size: states a network call.

    Returns:
        The bound of each data point, in nats, with its standard error and what it is a bound of.

    Raises:
        GenmatchError: if the process has no noise, its bound is infinite, the network sees the tokens that it predicts, or an argument does not fit.

    Example:
        >>> import genmatch as gm
        >>> process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
        >>> bound = gm.elbo(process, gm.oracle(process, torch.tensor([[0, 1], [2, 2]])), torch.tensor([[0, 1]]), draws=1000, seed=0)
        >>> bool((bound.nats - math.log(2)).abs() < 4 * bound.standard_error), bound.tight
        (True, True)
    """
    _check_noise(process)
    if positive_integer(draws, "draws") < 2:
        raise GenmatchError("`draws` must be at least 2, got 1; a standard error needs more than one draw.")
    size = positive_integer(batch_size, "batch_size")
    x1, conditions, rng = prepared(process, model, x1, condition, seed, rng)
    start, end = process.t_min, checked_end(process, t_end)
    with torch.no_grad(), evaluating(model):
        process.check_sight(Predictor(process, model, tree_map(lambda v: v[:1], conditions)), tree_map(lambda v: v[:1], x1))
    first = process.path.source_nats(x1, start)
    if bool(first.isinf().any()):
        raise GenmatchError(
            f"the bound of {process.bound} is infinite: its network says nothing before t = {start:g}, where the path has states that the "
            "source never gives; convert its output with `process.predict` and pass a process with prediction='posterior'."
        )
    terms = _Terms(process, model, x1, conditions, size, rng)
    with torch.no_grad(), evaluating(model):
        costs, last = terms.costs(start, end, draws), terms.last(end, max(2, draws // 4))
    if bool(costs.isnan().any()) or bool(last.isnan().any()):
        raise GenmatchError("the bound is not a number; the model returns NaN, or the process has no rate where its path goes.")
    error = (_stratified_variance(costs) + last.var(-1) / last.shape[-1]).sqrt().nan_to_num(nan=math.inf)
    return Likelihood(first + costs.mean(-1) + last.mean(-1), error, process.data_space.size, True, process.bound_is_tight, process.bound)


@dataclass(frozen=True)
class _Terms:
    """The terms of a bound that need the network, each for a number of draws a data point, (n, draws)."""

    process: MarkovProcess
    model: Model
    x1: State
    conditions: dict[str, Any]
    size: int
    rng: torch.Generator

    def costs(self, start: float, end: float, draws: int) -> Tensor:
        """Draws whose mean is the integral of the rate of divergence."""
        u = _spread(batch_size(self.x1), draws, self.rng).flatten()

        def cost(rows: Tensor, x1: State, predict: Predictor) -> Tensor:
            return self.process.path_nats(predict, x1, u[rows], start, end, rng=self.rng)

        return self._chunks(cost, draws)

    def last(self, end: float, draws: int) -> Tensor:
        """-log p(x1 given X_end)."""
        n = batch_size(self.x1)
        if end == 1:
            return torch.zeros(n, draws, dtype=torch.float64, device=self.rng.device)

        def cost(rows: Tensor, x1: State, predict: Predictor) -> Tensor:
            t = torch.full((len(rows),), end, dtype=torch.float64, device=rows.device)
            x = self.process.path.sample(x1, t, rng=self.rng)
            return self.process.finish_nats(predict(x, t), x, t, x1)

        return self._chunks(cost, draws)

    def _chunks(self, cost: Callable[[Tensor, State, Predictor], Tensor], draws: int) -> Tensor:
        n = batch_size(self.x1)
        parts = []
        for rows in torch.arange(n * draws, device=self.rng.device).split(self.size):
            x1, given = (tree_map(lambda v, i=rows // draws: v[i], value) for value in (self.x1, self.conditions))
            parts.append(cost(rows, x1, Predictor(self.process, self.model, given)))
        return torch.cat(parts).reshape(n, draws)


def _spread(n: int, draws: int, rng: torch.Generator) -> Tensor:
    """Uniform numbers, float64, (n, draws): draw k lies in the k-th of equal intervals, and the samples are spread evenly in each."""
    shift = torch.rand(draws, dtype=torch.float64, device=rng.device, generator=rng)
    places = (torch.arange(n, dtype=torch.float64, device=rng.device).unsqueeze(-1) / n + shift) % 1
    u = (torch.arange(draws, device=rng.device) + places) / draws
    return off_the_ends(u)


def _stratified_variance(costs: Tensor) -> Tensor:
    """Variance of the mean of draws in neighbouring strata, (B,): from differences of neighbours, which leave the trend out."""
    draws = costs.shape[-1]
    return costs.diff(dim=-1).square().sum(-1) / (2 * (draws - 1) * draws)


def _check_noise(process: MarkovProcess) -> None:
    if process.stationary:
        raise GenmatchError(f"{process} is a corrector, which generates nothing and so has no likelihood; bound the process that it corrects.")
    if not process.has_noise:
        raise GenmatchError(
            f"{process} moves without noise, so that two networks never lead along the same paths and no bound of this kind is finite; "
            "use `gm.log_likelihood`, or a Diffusion on the same path with the same network."
        )
