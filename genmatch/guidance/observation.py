r"""Guidance by a linear observation of the data, y = A x1 + s xi with xi standard normal: inpainting, blur, sums, averages.

    grad log p_t(y | x) = (d(A m)/dx)^T (A C A^T + s^2)^{-1} (y - A m),    m = E[x1 | x],   C = Cov[x1 | x] = (sigma^2 / alpha) dm/dx

The law of $x_1$ given the state is taken to be normal with its own mean and covariance, both of which the network knows: the second
is the derivative of the first (Tweedie's formula once more). For normal data that is the truth and the samples have the law given
y exactly, at every time; for other data they are approximate, best late, when the law given the state is narrow, so that a diffusion,
whose noise forgets early errors, is nearer to the truth than a flow. With C of a
fixed spread, $r^2 \sigma^2 / (\alpha^2 r^2 + \sigma^2)$, one derivative is enough, whatever the number of observations; it is exact for
N(0, r^2 I) only.

Sources: "Learning Diffusion Priors from Observations by Expectation Maximization" (Rozet et al., 2024),
https://arxiv.org/abs/2405.13712, section 4.2 (the covariance of the state); "Pseudoinverse-Guided Diffusion Models for Inverse
Problems" (Song et al., ICLR 2023) and, for flows, "Training-free Linear Image Inverses via Flows" (Pokle et al., 2024),
https://arxiv.org/abs/2310.04432 (the fixed spread).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.guidance.predictor import START
from genmatch.models import Model
from genmatch.processes.base import MarkovProcess

Pull = Callable[[Tensor], Tensor]
"""Weights of the observations, (B, m), to the derivative in the states of what is expected of these, times the weights, (B, size)."""

_FLOOR = 1e-6
"""The least variance of an observation given the state, in that of a coordinate of unit variance at this time: a network's may be none, or negative."""


class Observed(torch.nn.Module):
    """A model that is guided by a linear observation. Built by `linear_observation`, which explains `matrix`, `noise`, `observed` and `spread`."""

    def __init__(self, process: MarkovProcess, model: Model, matrix: Tensor, noise: float, observed: Tensor | None, spread: float | None) -> None:
        super().__init__()
        self.process, self.model, self.noise, self.spread = process, model, noise, spread
        self.matrix, self.observed = matrix, observed

    def forward(self, x: Tensor, t: Tensor, observed: Tensor | None = None, **condition: Any) -> Tensor:
        """The output given the observation `observed` at states `x`, (B, *shape), and times `t`, (B,)."""
        y, late = self._observation(observed, x), t.double().clamp(min=START)
        schedule = self.process.path.schedule  # type: ignore[attr-defined]
        alpha, variance = (c.unsqueeze(-1) for c in (schedule.alpha(late), schedule.sigma(late) ** 2))
        # A likelihood differentiates what is returned here once more.
        twice = x.requires_grad
        with torch.enable_grad():
            x = x if twice else x.detach().requires_grad_(True)
            output = self.model(x, late.to(t.dtype), **condition)
            mean = self.process.predict(output, x, late, "data").flatten(1) @ self.matrix.to(x).T  # type: ignore[attr-defined]
            if not mean.requires_grad:
                raise GenmatchError("the model's output must be differentiable in the states `x`: an observation is pulled back through it.")
            pull = functools.partial(_pulled, x, mean, create_graph=twice)
            gap = y - (mean if twice else mean.detach()).double()
            push = self._fixed(pull, gap, alpha, variance) if self.spread is not None else self._own(pull, gap, alpha, variance)
            guided = self.process.steered(output, push.reshape(x.shape).to(output.dtype), late)  # type: ignore[attr-defined]
        return guided if twice else guided.detach()

    def _own(self, pull: Pull, gap: Tensor, alpha: Tensor, variance: Tensor) -> Tensor:
        """With the covariance that the network implies: one derivative for each observation."""
        pulled = torch.stack([pull(one.expand_as(gap)) for one in torch.eye(gap.shape[1]).to(gap)], 1)  # (B, m, size)
        spread = pulled @ self.matrix.to(pulled).T
        # In units of sigma^2 / alpha, in which all of this is of order alpha.
        spread = (spread + spread.mT) / 2
        values, vectors = torch.linalg.eigh(spread.detach())
        least = _FLOOR * alpha * self.matrix.to(pulled).square().sum(-1).mean()
        values = torch.maximum(values, least) + self.noise**2 * alpha / variance
        inverse = (vectors / values.unsqueeze(-2)) @ vectors.mT
        gap = gap.unsqueeze(-1)
        weights = inverse @ gap.detach()
        # What follows is zero, and has the derivative of the inverse, which that of equal eigenvalues does not give.
        weights = weights + inverse @ (gap - gap.detach() - (spread - spread.detach()) @ weights)
        return alpha / variance * (weights.mT @ pulled).squeeze(1)

    def _fixed(self, pull: Pull, gap: Tensor, alpha: Tensor, variance: Tensor) -> Tensor:
        """With the covariance of normal data of that spread: one derivative."""
        square = float(self.spread or 0) ** 2
        matrix = self.matrix.to(gap)
        known = (square * variance / (alpha**2 * square + variance)).unsqueeze(-1)
        system = known * (matrix @ matrix.T) + self.noise**2 * torch.eye(len(matrix), dtype=gap.dtype, device=gap.device)
        return pull(torch.linalg.solve(system, gap))

    def _observation(self, given: Tensor | None, x: Tensor) -> Tensor:
        """The observation of each sample, float64, (B, m)."""
        if (given is None) == (self.observed is None):
            twice = "got both" if given is not None else "got neither"
            raise GenmatchError(f"the observation is given once, as `observed` of `linear_observation` or as the condition `observed` of each sample; {twice}.")
        y = self.observed if given is None else given
        shape = (len(self.matrix),) if given is None else (len(x), len(self.matrix))
        if not isinstance(y, Tensor) or tuple(y.shape) != shape:
            found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise GenmatchError(f"`observed` must have shape {shape}, one number for each row of the matrix, got {found}.")
        return y.to(x.device).double().expand(len(x), -1)


def linear_observation(
    process: MarkovProcess, model: Model, matrix: Tensor, *, noise: float = 0.0, observed: Tensor | None = None, spread: float | None = None
) -> Observed:
    """A model of the data given y = A x1 + noise: exact for normal data, approximate for others.

    Args:
        process: a `Flow` or a `Diffusion` on a Gaussian path with independent noise.
        model: what is guided, differentiable in the states.
        matrix: A, of the flattened state, (m, size); rows of the identity for inpainting.
        noise: standard deviation of the noise of the observation, at least 0.
        observed: y, (m,), for all samples; or leave it out and pass `condition={"observed": y}`, (n, m), one for each, to `sample`.
        spread: takes the data to be normal with this standard deviation, which costs one derivative of the network a call instead of m;
            by default the covariance that the network itself implies.

    Raises:
        GenmatchError: if the process has no score, an argument does not fit, or noiseless observations repeat each other; when called, if
            the observation does not fit.

    Example: of two normal coordinates with correlation 0.8 the first is seen.
        >>> import genmatch as gm
        >>> covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
        >>> process = gm.Flow(gm.paths.Gaussian((2,)), prediction="data")
        >>> def model(x, t):
        ...     t = t.reshape(-1, 1, 1)
        ...     return (t * covariance @ torch.linalg.solve(t**2 * covariance + (1 - t) ** 2 * torch.eye(2), x.unsqueeze(-1))).squeeze(-1)
        >>> guided = linear_observation(process, model, torch.tensor([[1.0, 0.0]]), observed=torch.tensor([2.0]))
        >>> x = gm.sample(process, guided, 4000, steps=32, seed=0)
        >>> x.mean(0).round(decimals=1), x.std(0).round(decimals=1)     # 2 and 0.8 * 2; 0 and 0.6
        (tensor([2.0000, 1.6000]), tensor([0.0000, 0.6000]))
    """
    if not process.supports("steered"):
        raise GenmatchError(
            f"`linear_observation` adds to a score, and {process} has none; it needs a Flow or a Diffusion on a Gaussian path without a coupling. "
            "Known tokens and modalities are held by `clamp`."
        )
    if not callable(model):
        raise GenmatchError(f"`model` must be callable as model(x, t), got {type(model).__name__}.")
    size = process.space.size
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point() or matrix.dim() != 2 or matrix.shape[1] != size or len(matrix) == 0:
        found = f"{tuple(matrix.shape)} of {matrix.dtype}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise GenmatchError(f"`matrix` must be a floating tensor (m, {size}), one row of the flattened state for each observation, got {found}.")
    if not bool(matrix.isfinite().all()):
        raise GenmatchError("`matrix` must be finite.")
    noise = number_in("[0, inf)", noise, "noise", "it is a standard deviation, and 0 an exact observation")
    spread = None if spread is None else number_in("(0, inf)", spread, "spread", "leave it out for the covariance that the network implies")
    rank = int(torch.linalg.matrix_rank(matrix.double()))
    if noise == 0 and rank < len(matrix):
        raise GenmatchError(
            f"`matrix` has {len(matrix)} rows and rank {rank}: without noise such observations repeat or contradict each other; leave out rows, or give `noise`."
        )
    made = Observed(process, model, matrix, noise, observed, spread)
    if observed is not None:
        made._observation(None, torch.zeros(1, *matrix.shape[1:]))
    return made


def _pulled(x: Tensor, mean: Tensor, weights: Tensor, *, create_graph: bool) -> Tensor:
    """The derivative in the states of what is expected, times `weights`, both (B, m): float64, (B, size)."""
    return torch.autograd.grad(mean, x, weights.to(mean.dtype), retain_graph=True, create_graph=create_graph)[0].flatten(1).double()
