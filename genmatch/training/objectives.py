r"""Objectives: what a step of training goes down on.

    divergence    E_t E_x divergence(target, output)              weight 1: the cross-entropy of tokens, the squared error of vectors
    elbo          int E_x kl_rate(output, x, t, x1) dt            weighted as the likelihood bound is, dot kappa / (1 - kappa) for tokens
    streams       the same                                        from all blocks of a sequence at once, for networks of two streams

Both are Bregman divergences of the conditional target from the output, at each time, so both have the exact network as their
minimiser, and both have the gradient of the same divergence of the posterior mean, which is not known. They differ in what a network
that cannot be exact gets right. Only the second is a likelihood, and it is one of the process with its rates: the loss that `train`
reports is then an upper bound of -log p, a coordinate, but for the terms at both ends of time.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, proposition 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths.visits import Visit, off_the_ends
from genmatch.processes.base import MarkovProcess, Predict
from genmatch.tensors import State, batch_size, leaves, tree_map


@dataclass(frozen=True)
class Draw:
    """What is random in a loss, drawn for a whole batch and cut into parts afterwards.

    Attributes:
        x1: data points, (B, *shape).
        x: states on the way to them, (B, *shape).
        t: their times, float64, (B,).
        more: what else the objective needs of each, by name.
    """

    x1: State
    x: State
    t: Tensor
    more: dict[str, State]

    def part(self, rows: slice) -> Draw:
        """Some of the rows."""
        return Draw(*(tree_map(lambda v: v[rows], value) for value in (self.x1, self.x, self.t, self.more)))


class Objective(ABC):
    """The loss of each of a batch of data points: what is drawn for it, and what the network is asked there."""

    @abstractmethod
    def draw(self, process: MarkovProcess, x1: State, condition: Mapping[str, Any], rng: torch.Generator) -> Draw:
        """Times and states for a whole batch of data points, within which times are spread evenly and couplings make their pairs.

        Raises:
            GenmatchError: if the process has no such loss.
        """

    @abstractmethod
    def cost(self, process: MarkovProcess, predict: Predict, draw: Draw) -> Tensor:
        """The loss of each row of a draw, (B,), from outputs in float32 or better, whole or lazy: those of `Predictor.for_loss`."""

    def __call__(self, process: MarkovProcess, predict: Predict, x1: State, rng: torch.Generator, condition: Mapping[str, Any] | None = None) -> Tensor:
        """The loss of each data point of a batch, (B,)."""
        return self.cost(process, predict, self.draw(process, x1, condition or {}, rng))


class Divergence(Objective):
    """The process's divergence at times that are uniform, with the noise known to the target."""

    def draw(self, process: MarkovProcess, x1: State, condition: Mapping[str, Any], rng: torch.Generator) -> Draw:
        t = low_discrepancy_times(batch_size(x1), process.t_min, rng=rng)
        x0 = process.path.start(x1, condition, rng=rng)
        return Draw(x1, process.path.sample(x1, t, x0=x0, rng=rng), t, {"x0": x0})

    def cost(self, process: MarkovProcess, predict: Predict, draw: Draw) -> Tensor:
        target = process.target(draw.x, draw.t, draw.x1, x0=draw.more["x0"])
        return process.divergence(target, predict(draw.x, draw.t), draw.x, draw.t)


class _Bound(Objective):
    """A likelihood bound from one state for each data point."""

    @abstractmethod
    def visit(self, process: MarkovProcess, x1: State, u: Tensor, rng: torch.Generator) -> Visit:
        """The states, for numbers `u` in (0, 1)."""

    @abstractmethod
    def nats(self, process: MarkovProcess, output: State, visit: Visit, x1: State) -> Tensor:
        """What the output there says, (B,)."""

    def draw(self, process: MarkovProcess, x1: State, condition: Mapping[str, Any], rng: torch.Generator) -> Draw:
        if not process.has_noise:
            raise GenmatchError(f"{process} moves without noise and has no likelihood bound to train on; leave `objective` at 'divergence'.")
        u = off_the_ends(low_discrepancy_times(batch_size(x1), 0.0, rng=rng))
        visit = self.visit(process, x1, u, rng)
        return Draw(x1, visit.x, visit.t, {"weight": visit.weight})

    def cost(self, process: MarkovProcess, predict: Predict, draw: Draw) -> Tensor:
        return self.nats(process, predict(draw.x, draw.t), Visit(draw.x, draw.t, draw.more["weight"]), draw.x1)


class Elbo(_Bound):
    """The integral of the likelihood bound, at the times and states that `process.visit` chooses for it.

    Raises:
        GenmatchError: if the process has no noise, and so no bound.
    """

    def visit(self, process: MarkovProcess, x1: State, u: Tensor, rng: torch.Generator) -> Visit:
        return process.visit(x1, u, process.t_min, process.path.t_end, rng=rng)

    def nats(self, process: MarkovProcess, output: State, visit: Visit, x1: State) -> Tensor:
        return process.visit_nats(output, visit, x1)


class Streams(_Bound):
    """The same bound from all blocks of a sequence in one call, for networks that read noise and data side by side; else as `Elbo`."""

    def cost(self, process: MarkovProcess, predict: Predict, draw: Draw) -> Tensor:
        """The loss of each row of a draw, (B,).

        Raises:
            GenmatchError: if the network cannot read noise and data side by side.
        """
        try:
            return super().cost(process, predict, draw)
        except RuntimeError as error:
            shown, points = (tuple(leaves(part)[0].shape) for part in (draw.x, draw.x1))
            if shown == points:
                raise
            raise GenmatchError(
                f"the objective 'streams' shows the network noise and data side by side, {shown} for data {points}, which failed: {str(error)[:120]}; "
                f"build one with {dict(process.network)}, such as `gm.nn.Transformer(..., **process.network)`, or take objective='elbo'."
            ) from error

    def visit(self, process: MarkovProcess, x1: State, u: Tensor, rng: torch.Generator) -> Visit:
        return process.streams(x1, u, rng=rng)

    def nats(self, process: MarkovProcess, output: State, visit: Visit, x1: State) -> Tensor:
        return process.streams_nats(output, visit, x1)


divergence, elbo, streams = Divergence(), Elbo(), Streams()

OBJECTIVES: Mapping[str, Objective] = {"divergence": divergence, "elbo": elbo, "streams": streams}
"""Objectives by name: the setting `objective` of `gm.train`."""


def low_discrepancy_times(n: int, t_min: float, *, rng: torch.Generator) -> Tensor:
    """`n` times that cover [t_min, 1) evenly, float64: one uniform shift of a regular grid, so each is uniform by itself."""
    shift = torch.rand((), dtype=torch.float64, device=rng.device, generator=rng)
    u = (shift + torch.arange(n, dtype=torch.float64, device=rng.device) / n) % 1
    return t_min + (1 - t_min) * u
