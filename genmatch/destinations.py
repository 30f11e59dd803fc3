"""Where a jump lands: laws of one coordinate of the next state, for each coordinate of a batch of states.

A destination is lazy: it draws only where a jump happens. Its finite view (`atoms`, `mass`) serves the action of the
generator, its rate matrix and the divergence of two generators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.logits import draw_at, draw_where
from genmatch.reprs import described
from genmatch.tensors import bernoulli, uniforms


class Destination(ABC):
    """The law of the value at which a coordinate lands, one for each of (B, *shape) coordinates."""

    __repr__ = described

    @abstractmethod
    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws for the coordinates with a True in `where`, (B, *shape); returns them in order, shape (N,)."""

    @abstractmethod
    def atoms(self) -> tuple[Tensor, Tensor]:
        """The values that a jump can reach, and their weights, both broadcastable to (B, *shape, K). Values may repeat."""

    @abstractmethod
    def mass(self, values: Tensor) -> Tensor:
        """Probability of each of `values`, (B, *shape, K), under the law of its coordinate."""

    def density(self, values: Tensor) -> Tensor:
        """What the ratio of two laws is taken of at `values`: probabilities, or densities of a continuous law."""
        return self.mass(values)

    @abstractmethod
    def excluding(self, x: Tensor) -> Destination:
        """The law given that the value differs from `x`, (B, *shape)."""


class Categorical(Destination):
    """Tokens 0 .. K - 1 with probabilities softmax(logits).

    Args:
        logits: unnormalised log probabilities, (B, *shape, K).

    Raises:
        GenmatchError: if `logits` are not floating.

    Example:
        >>> Categorical(torch.tensor([[[0.0, 0.0]]])).mass(torch.tensor([[[0, 1, 2]]]))
        tensor([[[0.5000, 0.5000, 0.0000]]])
    """

    def __init__(self, logits: Tensor) -> None:
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            raise GenmatchError(f"`logits` must be a floating tensor, got {getattr(logits, 'dtype', type(logits).__name__)}.")
        self.logits = logits

    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return draw_where(self.logits, where, uniforms(where, rng=rng))

    def atoms(self) -> tuple[Tensor, Tensor]:
        return torch.arange(self.logits.shape[-1], device=self.logits.device), self.logits.softmax(-1)

    def mass(self, values: Tensor) -> Tensor:
        inside = (values >= 0) & (values < self.logits.shape[-1])
        mass = self.logits.softmax(-1).gather(-1, torch.where(inside, values, 0))
        return torch.where(inside, mass, torch.zeros_like(mass))

    def excluding(self, x: Tensor) -> Categorical:
        here = torch.arange(self.logits.shape[-1], device=x.device) == x.unsqueeze(-1)
        return Categorical(self.logits.masked_fill(here, -torch.inf))


class Levels(Destination):
    """Given values with probabilities softmax(logits).

    Args:
        logits: unnormalised log probabilities, (B, *shape, K).
        values: what the K outcomes stand for, (K,), increasing, in the dtype of the states.

    Example:
        >>> Levels(torch.zeros(1, 1, 2), torch.tensor([-1.0, 1.0])).mass(torch.tensor([[[1.0, 0.0]]]))
        tensor([[[0.5000, 0.0000]]])
    """

    def __init__(self, logits: Tensor, values: Tensor) -> None:
        self.logits, self.values = logits, values

    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return self.values[draw_at(self.logits[where], where, rng=rng)]

    def atoms(self) -> tuple[Tensor, Tensor]:
        return self.values, self.logits.softmax(-1)

    def mass(self, values: Tensor) -> Tensor:
        index = torch.searchsorted(self.values, values.contiguous()).clamp(max=len(self.values) - 1)
        mass = self.logits.softmax(-1).gather(-1, index)
        return torch.where(self.values[index] == values, mass, torch.zeros_like(mass))

    def excluding(self, x: Tensor) -> Levels:
        return Levels(self.logits.masked_fill(self.values == x.unsqueeze(-1), -torch.inf), self.values)


class Binned(Destination):
    """A density that is constant in each of K bins, with probabilities softmax(logits).

    Args:
        logits: unnormalised log probabilities of the bins, (B, *shape, K).
        edges: of the bins, (K + 1,), increasing.

    Raises:
        GenmatchError: if the edges do not fit the logits, or do not increase.

    Example:
        >>> law = Binned(torch.zeros(1, 1, 2), torch.tensor([0.0, 1.0, 3.0]))
        >>> law.density(torch.tensor([[[0.5, 2.0, 4.0]]]))
        tensor([[[0.5000, 0.2500, 0.0000]]])
    """

    def __init__(self, logits: Tensor, edges: Tensor) -> None:
        if edges.dim() != 1 or len(edges) != logits.shape[-1] + 1 or not bool((edges.diff() > 0).all()):
            raise GenmatchError(f"`edges` must be {logits.shape[-1] + 1} increasing numbers for logits of {logits.shape[-1]} bins, got {edges.tolist()}.")
        self.logits, self.edges = logits, edges

    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        bins = draw_at(self.logits[where], where, rng=rng)
        place = uniforms(where, rng=rng)[where].to(self.edges.dtype)
        return self.edges[bins] + place * self.edges.diff()[bins]

    def atoms(self) -> tuple[Tensor, Tensor]:
        """Gauss-Legendre nodes in each bin."""
        nodes, weights = gauss_legendre(8, self.edges)
        values = self.edges[:-1, None] + self.edges.diff()[:, None] * nodes
        return values.flatten(), (self.logits.softmax(-1).unsqueeze(-1) * weights).flatten(-2)

    def mass(self, values: Tensor) -> Tensor:
        return self.logits.new_zeros(()).expand(values.shape)

    def density(self, values: Tensor) -> Tensor:
        index = (torch.searchsorted(self.edges, values.contiguous(), right=True) - 1).clamp(0, len(self.edges) - 2)
        inside = (values >= self.edges[0]) & (values < self.edges[-1])
        height = (self.logits.softmax(-1) / self.edges.diff()).gather(-1, index)
        return torch.where(inside, height, torch.zeros_like(height))

    def excluding(self, x: Tensor) -> Binned:
        return self


def gauss_legendre(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and weights that sum to 1, (n,), in the dtype of `like`."""
    nodes, weights = (torch.from_numpy(a).to(like) for a in np.polynomial.legendre.leggauss(n))
    return (nodes + 1) / 2, weights / 2


class PointMass(Destination):
    """Always the same value.

    Args:
        values: where each coordinate lands, (B, *shape), in the dtype of the states.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return self.values[where]

    def atoms(self) -> tuple[Tensor, Tensor]:
        values = self.values.unsqueeze(-1)
        return values, torch.ones_like(values, dtype=values.dtype if values.is_floating_point() else torch.get_default_dtype())

    def mass(self, values: Tensor) -> Tensor:
        return (values == self.values.unsqueeze(-1)).to(self.atoms()[1].dtype)

    def excluding(self, x: Tensor) -> PointMass:
        return self


class Mixture(Destination):
    """One destination or another.

    Args:
        first: taken with probability 1 - weight.
        second: taken with probability weight.
        weight: in [0, 1], (B, *shape).
    """

    def __init__(self, first: Destination, second: Destination, weight: Tensor) -> None:
        self.first, self.second, self.weight = first, second, weight

    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        second = where & bernoulli(self.weight, where, rng=rng)
        first = where & ~second
        one, two = self.first.sample(first, rng=rng), self.second.sample(second, rng=rng)
        values = torch.empty(where.shape, dtype=torch.promote_types(one.dtype, two.dtype), device=where.device)
        values[first], values[second] = one.to(values.dtype), two.to(values.dtype)
        return values[where]

    def atoms(self) -> tuple[Tensor, Tensor]:
        (one, p), (two, q) = self.first.atoms(), self.second.atoms()
        weight = self.weight.unsqueeze(-1)
        one, two = (v.expand(*self.weight.shape, v.shape[-1]) for v in (one, two))
        p, q = (w.expand(*self.weight.shape, w.shape[-1]) for w in (p, q))
        return torch.cat([one, two], -1), torch.cat([(1 - weight) * p, weight * q], -1)

    def mass(self, values: Tensor) -> Tensor:
        weight = self.weight.unsqueeze(-1)
        return (1 - weight) * self.first.mass(values) + weight * self.second.mass(values)

    def density(self, values: Tensor) -> Tensor:
        weight = self.weight.unsqueeze(-1)
        return (1 - weight) * self.first.density(values) + weight * self.second.density(values)

    def excluding(self, x: Tensor) -> Mixture:
        here = x.unsqueeze(-1)
        moves = [w * (1 - d.mass(here).squeeze(-1)) for w, d in ((1 - self.weight, self.first), (self.weight, self.second))]
        total = moves[0] + moves[1]
        weight = torch.where(total > 0, moves[1] / total, torch.zeros_like(total))
        return Mixture(self.first.excluding(x), self.second.excluding(x), weight)


class Chained(Destination):
    """A token z is drawn first, and then the state in which a jump lands given z: averages without a table of both.

    Args:
        logits: unnormalised log probabilities of z, (B, *shape, Z).
        law: takes numbers of coordinates, counted over (B, *shape), and tokens z, both (N,), and returns unnormalised
            probabilities of each state, (N, K).

    Example: z is certain to be 1, which leads to state 0 or 2.
        >>> table = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
        >>> Chained(torch.tensor([[[-torch.inf, 0.0]]]), lambda index, z: table[z]).mass(torch.tensor([[[0, 1, 2]]]))
        tensor([[[0.5000, 0.0000, 0.5000]]])
    """

    def __init__(self, logits: Tensor, law: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.logits, self.law = logits, law

    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        index = where.flatten().nonzero().squeeze(-1)
        z = draw_where(self.logits, where, uniforms(where, rng=rng))
        return draw_at(self.law(index, z).log(), where, rng=rng)

    def atoms(self) -> tuple[Tensor, Tensor]:
        shape = self.logits.shape[:-1]
        index = torch.arange(shape.numel(), device=self.logits.device)
        # Where no jump happens no z has a weight, and the law is nothing.
        chances = self.logits.softmax(-1).nan_to_num(nan=0.0).flatten(0, -2)
        total = torch.zeros(())
        for z in range(chances.shape[-1]):
            law = self.law(index, torch.full_like(index, z))
            total = total + chances[:, z, None] * (law / law.sum(-1, keepdim=True)).nan_to_num(nan=0.0)
        return torch.arange(total.shape[-1], device=total.device), total.reshape(*shape, -1)

    def mass(self, values: Tensor) -> Tensor:
        weights = self.atoms()[1]
        inside = (values >= 0) & (values < weights.shape[-1])
        return torch.where(inside, weights.gather(-1, torch.where(inside, values, 0)), 0)

    def excluding(self, x: Tensor) -> Categorical:
        return Categorical(self.atoms()[1].log()).excluding(x)
