"""What a network predicts on a path that has a velocity: its target, what it says of the motion, and its loss.

A path makes one by name: `path.prediction("velocity")`. Processes that follow the velocity ask it, and never the path's
kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Drift


class Prediction(ABC):
    """A statistic of a path whose posterior mean determines the marginal velocity."""

    kinds: ClassVar[frozenset[str]] = frozenset({"drift"})
    """The kind of `drift`: solvers ask for it."""

    t_min: float = 0.0
    """The earliest time at which the statistic determines the velocity."""

    @abstractmethod
    def target(self, x: Tensor, t: Tensor, x1: Tensor, x0: Tensor | None) -> Tensor:
        """The statistic for the data points `x1`, (B, *shape)."""

    @abstractmethod
    def predict(self, output: Tensor, x: Tensor, t: Tensor, kind: str) -> Tensor:
        """The network's `output` as another `kind` of prediction, such as "velocity", (B, *shape)."""

    @abstractmethod
    def drift(self, output: Tensor, x: Tensor, t: Tensor) -> Drift:
        """The motion that the output stands for."""

    @abstractmethod
    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """X_s if the motion from `x` at `t` leads where the output says, and the output does not change."""

    @abstractmethod
    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Squared error, (B,), in units that stay finite."""

    def bridge(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, memory: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """X_s with part of the noise renewed. Optional: only where the noise of a state is known."""
        raise GenmatchError(f"{type(self).__name__} defines no `bridge`: its path has no Gaussian noise to renew; use solver='exact'.")

    def steered(self, output: Tensor, push: Tensor, t: Tensor) -> Tensor:
        """The output whose score is larger by `push`. Optional: only where the statistic determines a score."""
        raise GenmatchError(f"{type(self).__name__} defines no `steered`: its path has no score.")

    def gain(self, t: Tensor, s: Tensor, memory: Tensor | float = 1.0) -> Tensor:
        """How far X_s moves with the data predicted at `t`, (B,). Optional: only where steps are affine in the data."""
        raise GenmatchError(f"{type(self).__name__} defines no `gain`: a step on its path is not affine in the data; use solver='exact'.")

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_t given X_s = x for an earlier time `t`. Optional, as `bridge` is."""
        raise GenmatchError(f"{type(self).__name__} defines no `renoise`: its path has no Gaussian noise to renew; use solver='exact'.")

    def supports(self, ability: str) -> bool:
        """Whether the optional method `ability` is defined here."""
        optional = getattr(Prediction, ability, None)
        return optional is None or getattr(type(self), ability) is not optional
