r"""The marginalization trick: from a generator that leads to one data point to a generator of the data.

    (L_t f)(x) = E[(L_t^{x1} f)(x) | X_t = x] :

the generator of the posterior mean of the target. Over a finite data set the posterior is a softmax of log densities, so
the ideal network is known in closed form: `oracle`. It is a model like any other, and the reference for every solver.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, proposition 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Generator
from genmatch.processes.base import MarkovProcess
from genmatch.tensors import State, batch_size, check_times, leaves, tree_map

_START = 1e-12
"""For t = 0 in the posterior: its limit, which also knows what a state means that no noise shows, such as a known token."""

_CHUNK = 2**24
"""Coordinates compared at a time: bounds the memory of the oracle."""


class Oracle(torch.nn.Module):
    """The network that training approaches: the exact posterior mean over a finite data set. Built by `oracle`.

    Raises:
        GenmatchError: if the data or weights do not fit, or the path has no density or a coupling.
    """

    def __init__(self, process: MarkovProcess, data: Any, weights: Tensor | None = None) -> None:
        super().__init__()
        self.process = process
        self.data = process.data_space.prepare(data)
        n = batch_size(self.data)
        process.path.require_independent("the oracle")
        if not process.path.has_log_prob:
            raise GenmatchError(f"the oracle needs a path with a density, and {process.path} has none.")
        law = torch.full((n,), 1 / n, dtype=torch.float64) if weights is None else torch.as_tensor(weights).double()
        if law.shape != (n,) or not bool((law >= 0).all()) or not 0 < float(law.sum()) < math.inf:
            raise GenmatchError(
                f"`weights` must be {n} finite non-negative numbers that are not all zero, one for each data point, got shape {tuple(law.shape)}."
            )
        self.log_weights: Tensor
        self.register_buffer("log_weights", (law / law.sum()).log())

    def extra_repr(self) -> str:
        return f"{self.process}, {len(self.log_weights)} data points"

    def posterior(self, x: State, t: Tensor) -> Tensor:
        """p(x1 = data[i] given X_t = x), float64, (B, N).

        Where the path never goes from any data point there is no posterior; the weights of the data stand in.
        """
        t = check_times(t, batch_size(x)).clamp(min=_START)
        n = len(self.log_weights)
        log_joint = self.log_weights + self._pairs(self.process.path.log_prob, x, t).reshape(-1, n)
        impossible = log_joint.isneginf().all(-1, keepdim=True)
        return torch.where(impossible, self.log_weights, log_joint).softmax(-1)

    def forward(self, x: State, t: Tensor) -> State:
        """The output of the ideal network at states `x` and times `t` in [0, 1), (B,).

        Raises:
            GenmatchError: at t = 1, where the posterior is a point.
        """
        t = check_times(t, batch_size(x))
        if bool((t >= 1).any()):
            raise GenmatchError("the oracle is defined for t < 1, got t = 1; end with a solver's last step instead.")
        width = len(self.log_weights) * max(leaf[0].numel() for leaf in leaves(x))
        rows = max(1, _CHUNK // width)
        outputs = [self._output(tree_map(lambda v, i=i: v[i : i + rows], x), t[i : i + rows]) for i in range(0, len(t), rows)]
        return tree_map(lambda *parts: torch.cat(parts), *outputs)

    def _output(self, x: State, t: Tensor) -> State:
        n = len(self.log_weights)
        weights = self.posterior(x, t)
        targets = self._pairs(lambda x, t, x1: self.process.target(x, t, x1), x, t)
        # A target of weight zero may be undefined there.
        reachable = (weights > 0).flatten()
        targets = tree_map(lambda v: torch.where(reachable.reshape(-1, *[1] * (v.dim() - 1)), v, 0).reshape(-1, n, *v.shape[1:]), targets)
        output = self.process.natural_at(self.process.average(targets, weights), x, t)
        dtype = next((leaf.dtype for leaf in leaves(x) if leaf.is_floating_point()), None)
        return tree_map(lambda v: v if dtype is None else v.to(dtype), output)

    def _pairs(self, function: Any, x: State, t: Tensor) -> State:
        """`function(x, t, x1)` for every state and every data point, states first."""
        b, n = batch_size(x), len(self.log_weights)
        data = tree_map(lambda v, like: v.to(like.device, like.dtype).repeat(b, *[1] * (v.dim() - 1)), self.data, x)
        return function(tree_map(lambda v: v.repeat_interleave(n, 0), x), t.repeat_interleave(n), data)


def oracle(process: MarkovProcess, data: Any, weights: Tensor | None = None) -> Oracle:
    """The exact ideal network for a finite data set: a model that needs no training.

    Args:
        process: what it is a model for.
        data: data points, (N, *shape), or a dictionary for products.
        weights: probabilities of the data points, (N,); equal by default.

    Raises:
        GenmatchError: if the data do not fit the process, or its path has no density.

    Example:
        >>> import genmatch as gm
        >>> process = gm.Flow(gm.paths.Gaussian((1,)), prediction="data")
        >>> model = gm.oracle(process, torch.tensor([[-1.0], [1.0]]))
        >>> model(torch.zeros(1, 1), torch.tensor([0.5]))
        tensor([[0.]])
    """
    return Oracle(process, data, weights)


def conditional_generator(process: MarkovProcess, x: State, t: Tensor, x1: State) -> Generator:
    """The generator that leads to the data points `x1`, at states `x` and times `t` in [0, 1), (B,)."""
    t = check_times(t, batch_size(x))
    return process.generator(process.natural_at(process.target(x, t, x1), x, t), x, t)


def marginal_generator(process: MarkovProcess, data: Any, x: State, t: Tensor, *, weights: Tensor | None = None) -> Generator:
    """The generator of a finite data set at states `x` and times `t` in [0, 1), (B,): its law is p_t at every time."""
    t = check_times(t, batch_size(x))
    return process.generator(oracle(process, data, weights)(x, t), x, t)


def log_marginal(process: MarkovProcess, data: Any, x: State, t: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """log p_t(x) of a finite data set, in nats, float64, (B,)."""
    model = oracle(process, data, weights)
    n = len(model.log_weights)
    t = check_times(t, batch_size(x))
    pairs = model._pairs(process.path.log_prob, x, t).reshape(-1, n)
    return torch.logsumexp(model.log_weights + pairs, -1)


__all__ = ["Oracle", "conditional_generator", "log_marginal", "marginal_generator", "oracle"]
