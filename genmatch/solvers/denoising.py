"""What solvers for Gaussian paths ask of a process, besides its `transition`.

A process that defines one of these methods says so by `supports`, and a solver names those that it uses in `needs`.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

from genmatch.paths.gaussian import Gaussian
from genmatch.processes.base import MarkovProcess


class Denoising(Protocol):
    """The optional methods of a process on a Gaussian path, whose network can be read as a prediction of the data."""

    path: Gaussian

    def predict(self, output: Tensor, x: Tensor, t: Tensor, kind: str) -> Tensor:
        """The network's output as the posterior mean of the "data" or the "noise", (B, *shape)."""

    def gain(self, t: Tensor, s: Tensor) -> Tensor:
        """How far the state at `s` moves with the data point that is predicted at `t`, float64, (B,)."""

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_t given X_s = x for an earlier time `t`."""


def denoising_of(process: MarkovProcess) -> Denoising:
    """The process, seen as one that predicts data; `needs` has made sure that it has what is asked for."""
    return cast(Denoising, process)
