"""The ways to follow a path by jumps of single coordinates: what a path owns, and processes simulate."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Jump
from genmatch.logits import whole
from genmatch.schedules import Schedule


class Rates(ABC):
    """One way to follow a path by jumps of single coordinates, from a posterior of the data for each.

    Optional: `transition`, an exact draw with the posterior frozen; `bound`, which simulation by thinning needs.
    """

    t_min: float = 0.0
    """The earliest time at which the rates are finite."""

    redrawing: Schedule | None = None
    """The schedule by which a coordinate that can be noise is redrawn from its posterior, where that is all that ever happens to it."""

    stationary: bool = False
    """Whether the rates leave every p_t as it is: a corrector."""

    @abstractmethod
    def generator(self, logits: Tensor, x: Tensor, t: Tensor) -> Jump:
        """The rates averaged over a posterior, at states `x` and times `t` in (0, 1).

        Args:
            logits: unnormalised log posterior of each data token or level, (B, *shape, V).
            x: states, (B, *shape).
            t: times, (B,).
        """

    @property
    def tight(self) -> bool:
        """Whether the likelihood bound of the true posterior is the entropy of the data: the rates are those of a time reversal."""
        return False

    def kl_rate(self, x1: Tensor, logits: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Rate at which a path to the data tokens `x1` departs from one to the posterior, in nats per unit time, (B,).

        The generalised Kullback-Leibler divergence of the rates; the arguments are those of `generator`.
        """
        logits = whole(logits)
        values = torch.arange(logits.shape[-1], device=x.device)
        certain = (x1.unsqueeze(-1) == values).double().log()
        return self.generator(certain, x, t).kl(self.generator(logits.double(), x, t), x)

    def transition(self, logits: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_s given X_t = x exactly, if the posterior did not change on [t, s]."""
        raise GenmatchError(f"{type(self).__name__} has no exact draw; use solver='euler'.")

    def bound(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """At least the intensity of each coordinate from `t` to `s`, whatever the posterior, while the state is `x`, (B, *shape).

        Raises:
            GenmatchError: if there is none.
        """
        raise GenmatchError(f"{type(self).__name__} has no bound of its intensities; use solver='exact' or 'euler'.")

    @property
    def has_bound(self) -> bool:
        """Whether `bound` is defined."""
        return type(self).bound is not Rates.bound

    @property
    def has_transition(self) -> bool:
        """Whether `transition` is defined."""
        return type(self).transition is not Rates.transition
