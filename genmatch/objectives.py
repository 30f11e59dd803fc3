r"""Objectives: what a step of training goes down on.

    divergence    E_t E_x divergence(target, output)              weight 1: the cross-entropy of tokens, the squared error of vectors
    elbo          int E_x kl_rate(output, x, t, x1) dt            weighted as the likelihood bound is, dot kappa / (1 - kappa) for tokens

Both are Bregman divergences of the conditional target from the output, at each time, so both have the exact network as their
minimiser, and both have the gradient of the same divergence of the posterior mean, which is not known. They differ in what a network
that cannot be exact gets right. Only the second is a likelihood, and it is one of the process with its rates: the loss that `train`
reports is then an upper bound of -log p, a coordinate, but for the terms at both ends of time.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, proposition 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.models import Predictor
from genmatch.processes.base import MarkovProcess
from genmatch.tensors import State, batch_size

Objective = Callable[[MarkovProcess, Predictor, State, torch.Generator], Tensor]
"""The loss of each of a batch of data points, in float32 or better, (B,), at times and states that it draws itself."""

_EDGE = 1e-6


def divergence(process: MarkovProcess, predict: Predictor, x1: State, rng: torch.Generator) -> Tensor:
    """The process's divergence at times that are uniform, with the noise known to the target."""
    n = batch_size(x1)
    t = low_discrepancy_times(n, process.t_min, rng=rng)
    x0 = process.path.start(x1, predict.condition, rng=rng)
    x = process.path.sample(x1, t, x0=x0, rng=rng)
    return process.divergence(process.target(x, t, x1, x0=x0), predict.for_loss(x, t), x, t)


def elbo(process: MarkovProcess, predict: Predictor, x1: State, rng: torch.Generator) -> Tensor:
    """The integral of the likelihood bound, at the times and states that `path.visit` chooses for it.

    Raises:
        GenmatchError: if the process has no noise, and so no bound.
    """
    if not process.has_noise:
        raise GenmatchError(f"{process} moves without noise and has no likelihood bound to train on; leave `objective` at 'divergence'.")
    u = low_discrepancy_times(batch_size(x1), 0.0, rng=rng).clamp(_EDGE, 1 - _EDGE)
    return process.path_nats(predict.for_loss, x1, u, process.t_min, process.path.t_end, rng=rng)


OBJECTIVES: Mapping[str, Objective] = {"divergence": divergence, "elbo": elbo}
"""Objectives by name: the setting `objective` of `gm.train`."""


def low_discrepancy_times(n: int, t_min: float, *, rng: torch.Generator) -> Tensor:
    """`n` times that cover [t_min, 1) evenly, float64: one uniform shift of a regular grid, so each is uniform by itself."""
    shift = torch.rand((), dtype=torch.float64, device=rng.device, generator=rng)
    u = (shift + torch.arange(n, dtype=torch.float64, device=rng.device) / n) % 1
    return t_min + (1 - t_min) * u
