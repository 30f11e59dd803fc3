"""What is known of -log p of some data points, and what both ways to it need first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import number_in
from genmatch.models import Condition, Model, check_model, conditions_for, device_of
from genmatch.processes.base import MarkovProcess
from genmatch.reprs import described
from genmatch.sampling import make_rng
from genmatch.tensors import State, batch_size, tree_map


@dataclass(frozen=True)
class Likelihood:
    """What is known of -log p of some data points.

    Attributes:
        nats: -log p(x1), or an estimate of an upper bound of it, nats a sample, float64, (B,).
        standard_error: of each, from the draws that estimate it; zero where there are none, (B,).
        size: coordinates a sample, such as the characters of a text.
        bound: whether `nats` are an upper bound.
        tight: whether the bound of the exact network would be the entropy of the data.
        process: whose likelihood it is: family, path and rates.

    Example: a thousand samples of two bits.
        >>> flat = Likelihood(torch.full((1000,), 2 * math.log(2)), torch.zeros(1000), size=4, bound=False, tight=True, process="flat")
        >>> round(flat.bits_per_coordinate, 4), round(flat.perplexity, 4)
        (0.5, 1.4142)
        >>> print(flat)
        1.3863 ± 0.0000 nats a sample, 0.5000 bits a coordinate: exact, up to the solver's error, of flat
    """

    nats: Tensor
    standard_error: Tensor
    size: int
    bound: bool
    tight: bool
    process: str

    __repr__ = described

    @property
    def log_prob(self) -> Tensor:
        """log p(x1), or a lower bound of it, nats a sample, (B,)."""
        return -self.nats

    @property
    def mean(self) -> float:
        """Mean over the samples, nats a sample."""
        return float(self.nats.mean())

    @property
    def mean_error(self) -> float:
        """Standard error of `mean` for these samples: that of the draws, not of the choice of the samples."""
        return float(self.standard_error.square().sum().sqrt() / len(self.nats))

    @property
    def bits_per_coordinate(self) -> float:
        """Mean bits a coordinate: a character of a text, a dimension of an image."""
        return self.mean / self.size / math.log(2)

    @property
    def bits_error(self) -> float:
        """Standard error of `bits_per_coordinate`."""
        return self.mean_error / self.size / math.log(2)

    def bits_per_level(self, scale: float) -> float:
        """Bits a coordinate of integer levels y that were modelled as x = (y + uniform noise - c) / scale: an upper bound.

        Args:
            scale: levels a unit of x, such as 127.5 for levels 0 to 255 that became [-1, 1].
        """
        return self.bits_per_coordinate + math.log2(scale)

    @property
    def perplexity(self) -> float:
        """exp(nats a coordinate); with an upper bound, an upper bound too. Infinite where float64 overflows."""
        return float(torch.tensor(self.mean / self.size, dtype=torch.float64).exp())

    @property
    def kind(self) -> str:
        """What the number is, in words: "exact", or which kind of upper bound."""
        if not self.bound:
            return "exact, up to the solver's error,"
        return "tight upper bound" if self.tight else "upper bound that is loose even for the exact network"

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.mean_error:.4f} nats a sample, {self.bits_per_coordinate:.4f} bits a coordinate: {self.kind} of {self.process}"


def prepared(
    process: MarkovProcess, model: Model, x1: Any, condition: Condition | Tensor | None, seed: int | None, rng: torch.Generator | None
) -> tuple[State, dict[str, Any], torch.Generator]:
    """The data on the model's device, the conditions and the randomness; a model that does not fit fails here."""
    device = device_of(model)
    x1 = tree_map(lambda v: v.to(device), process.data_space.prepare(x1, "x1"))
    conditions = conditions_for(condition, batch_size(x1))
    rng = make_rng(device, seed, rng)
    check_model(process, model, conditions, 1, device)
    return x1, conditions, rng


def checked_end(process: MarkovProcess, t_end: float | None) -> float:
    """`t_end`, or the path's own for None; raises `GenmatchError` unless it lies in (t_min, 1]."""
    end = process.path.t_end if t_end is None else t_end
    return number_in(f"({process.t_min}, 1]", end, "t_end", "leave it out for the path's own")
