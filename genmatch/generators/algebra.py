"""The terms of a generator of one state, and their sum."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from genmatch.calculus import differences, gradient, second_derivatives
from genmatch.destinations import Destination, Mixture
from genmatch.errors import GenmatchError
from genmatch.generators.rate_matrix import jump_moves, jump_rates, rate_matrix
from genmatch.path_kl import diffusion_kl, jump_kl
from genmatch.reprs import described
from genmatch.rows import normal
from genmatch.spaces import Categorical, Manifold, Space, TestFunction
from genmatch.tensors import State, bernoulli, expand

T = TypeVar("T", bound="Generator")

Weight = float | Tensor
"""A non-negative number, or one for each sample, shape (B,)."""


class Generator(ABC):
    """The value of a generator L_t at a batch of states."""

    __repr__ = described

    @property
    def terms(self) -> tuple[Generator, ...]:
        """The parts that add up to this generator."""
        return (self,)

    @property
    @abstractmethod
    def kinds(self) -> frozenset[str]:
        """What the terms are: a subset of "drift", "geodesic drift", "brownian" and "jump"; and "product" if they stand side by side."""

    @abstractmethod
    def apply(self, f: TestFunction, x: State) -> Tensor:
        """The action (L f)(x), shape (B,). `f` must be differentiable where the generator is."""

    @abstractmethod
    def step(self, x: State, h: Weight, *, rng: torch.Generator | None = None) -> State:
        """One first-order draw of the state a time `h` later: its law is right up to O(h^2)."""

    @abstractmethod
    def scaled(self, weight: Weight) -> Generator:
        """The generator times a non-negative weight: the same process with its clock sped up."""

    def kl(self, other: Generator, x: State) -> Tensor:
        """Rate at which the Kullback-Leibler divergence of the two path measures grows, in nats per unit time, (B,).

        Infinite where the other process cannot follow: another diffusion coefficient, a drift without noise, a jump that
        never happens there.
        """
        return Sum(*self.terms).kl(other, x)

    def __add__(self, other: Generator) -> Generator:
        if not isinstance(other, Generator):
            return NotImplemented
        return Sum(*self.terms, *other.terms)

    def __mul__(self, weight: Weight) -> Generator:
        weights = torch.as_tensor(weight)
        if not bool(((weights >= 0) & (weights < math.inf)).all()):
            raise GenmatchError(f"a generator is scaled by a finite non-negative weight, got {weight}; negative rates have no process.")
        return self.scaled(weight)

    __rmul__ = __mul__

    def dense(self, space: Space) -> Tensor:
        """The rate matrix Q[y, x] from state x to state y, shape (S, S); its columns sum to zero.

        The generator must have been evaluated at `space.enumerate()`. For tests and teaching only.

        Example: the two-state chain, with transition matrix exp(h Q).
            >>> from genmatch.generators import PointMass
            >>> space = Categorical((1,), vocab_size=2)
            >>> jump = Jump(torch.tensor([[2.0], [1.0]]), PointMass(torch.tensor([[1], [0]])))
            >>> jump.dense(space)
            tensor([[-2.,  1.],
                    [ 2., -1.]], dtype=torch.float64)
        """
        return rate_matrix(self.moves, space)

    def moves(self, x: State, space: Space) -> Iterator[tuple[State, Tensor]]:
        """The states that one move leads to from each state of `x`, and its rate, (B,); staying has minus the exit rate.

        Raises:
            GenmatchError: unless all terms are jumps of tokens.
        """
        raise GenmatchError(f"{type(self).__name__} has no rate matrix: only jumps on a finite space do.")


class Drift(Generator):
    """Deterministic motion, L f = u . grad f.

    Args:
        velocity: u at each state, the shape of the states.
        space: a manifold, along whose geodesics the states move; straight lines by default.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> Drift(x).apply(lambda x: (x**2).sum(-1), x)
        tensor([10.])
    """

    def __init__(self, velocity: Tensor, space: Manifold | None = None) -> None:
        self.velocity = velocity
        self.space = space

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({"drift" if self.space is None else "geodesic drift"})

    def apply(self, f: TestFunction, x: Tensor) -> Tensor:
        return (self.velocity * gradient(f, x)).flatten(1).sum(-1)

    def step(self, x: Tensor, h: Weight, *, rng: torch.Generator | None = None) -> Tensor:
        way = _spread(h, x) * self.velocity
        return x + way if self.space is None else self.space.exp(x, way)

    def scaled(self, weight: Weight) -> Drift:
        return Drift(_spread(weight, self.velocity) * self.velocity, self.space)


class Brownian(Generator):
    """Isotropic noise in each coordinate, L f = g^2 / 2 Laplacian f.

    Args:
        variance: g^2, non-negative, a shape that broadcasts against the states, such as (B, 1).

    Example:
        >>> Brownian(torch.ones(1, 1)).apply(lambda x: (x**2).sum(-1), torch.zeros(1, 3))
        tensor([3.])
    """

    def __init__(self, variance: Tensor) -> None:
        self.variance = variance

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({"brownian"})

    def apply(self, f: TestFunction, x: Tensor) -> Tensor:
        return (self.variance.expand_as(x) / 2 * second_derivatives(f, x)).flatten(1).sum(-1)

    def step(self, x: Tensor, h: Weight, *, rng: torch.Generator | None = None) -> Tensor:
        xi = normal(x.shape, dtype=x.dtype, device=x.device, rng=rng)
        return x + (_spread(h, x) * self.variance).sqrt() * xi

    def scaled(self, weight: Weight) -> Brownian:
        return Brownian(_spread(weight, self.variance) * self.variance)


class Jump(Generator):
    """Jumps of single coordinates, L f = sum_j intensity_j (E f(x with x_j drawn from the destination) - f(x)).

    The destination may include the present value: such jumps do nothing.

    Args:
        intensity: rate of each coordinate's clock, non-negative, (B, *shape).
        destination: where a coordinate lands, such as `Categorical(logits)` or `PointMass(values)`.

    Example:
        >>> from genmatch.generators import PointMass
        >>> x = torch.tensor([[0, 1]])
        >>> jump = Jump(torch.tensor([[0.5, 2.0]]), PointMass(torch.tensor([[1, 1]])))
        >>> jump.apply(lambda x: x.sum(-1).float(), x)
        tensor([0.5000])
    """

    def __init__(self, intensity: Tensor, destination: Destination) -> None:
        self.intensity = intensity
        self.destination = destination

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({"jump"})

    def apply(self, f: TestFunction, x: Tensor) -> Tensor:
        return differences(f, x, self.intensity, *self.destination.atoms())

    def step(self, x: Tensor, h: Weight, *, rng: torch.Generator | None = None) -> Tensor:
        probability = -torch.expm1(-_spread(h, self.intensity) * self.intensity)
        jumps = bernoulli(probability, x, rng=rng)
        return x.masked_scatter(jumps, self.destination.sample(jumps, rng=rng).to(x.dtype))

    def scaled(self, weight: Weight) -> Jump:
        return Jump(_spread(weight, self.intensity) * self.intensity, self.destination)

    def without_self_jumps(self, x: Tensor) -> Jump:
        """The same generator, written so that every jump changes the state: intensity is then the exit rate."""
        stay = self.destination.mass(x.unsqueeze(-1)).squeeze(-1)
        return Jump(self.intensity * (1 - stay), self.destination.excluding(x))

    def rates(self, x: Tensor, num_states: int) -> Tensor:
        """Rates to each state of each position, (B, *shape, num_states); the entry of the present state is minus the exit rate."""
        return jump_rates(x, self.intensity, self.destination, num_states)

    def moves(self, x: State, space: Space) -> Iterator[tuple[State, Tensor]]:
        if self.intensity.shape != x.shape or not isinstance(space, Categorical):
            raise GenmatchError(
                f"a rate matrix needs a jump of tokens at all {len(x)} states of {space}, got a batch of shape {tuple(self.intensity.shape)}; "
                "evaluate the generator at `space.enumerate()`."
            )
        return jump_moves(x, self.rates(x, space.num_states))


class Sum(Generator):
    """The sum of drifts, Brownian parts and jumps of one state: all act at the same time.

    Terms of a kind are merged, so that at most one of each is left. Built by `L1 + L2`; raises `GenmatchError` for products of modalities.
    """

    def __init__(self, *terms: Generator) -> None:
        if any("product" in term.kinds for term in terms):
            raise GenmatchError("a product's generator adds only to one over the same modalities; got another kind of term.")
        self.drift = _merge(Drift, _merge_drifts, terms)
        self.brownian = _merge(Brownian, lambda a, b: Brownian(a.variance + b.variance), terms)
        self.jump = _merge(Jump, add_jumps, terms)

    @property
    def terms(self) -> tuple[Generator, ...]:
        return tuple(term for term in (self.drift, self.brownian, self.jump) if term is not None)

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset().union(*(term.kinds for term in self.terms))

    def apply(self, f: TestFunction, x: Tensor) -> Tensor:
        return torch.stack([term.apply(f, x) for term in self.terms]).sum(0)

    def step(self, x: Tensor, h: Weight, *, rng: torch.Generator | None = None) -> Tensor:
        for term in self.terms:
            x = term.step(x, h, rng=rng)
        return x

    def scaled(self, weight: Weight) -> Sum:
        return Sum(*(term.scaled(weight) for term in self.terms))

    def moves(self, x: State, space: Space) -> Iterator[tuple[State, Tensor]]:
        for term in self.terms:
            yield from term.moves(x, space)

    def kl(self, other: Generator, x: Tensor) -> Tensor:
        other = Sum(*other.terms)
        drifts = [g.drift.velocity if g.drift else None for g in (self, other)]
        variances = [g.brownian.variance if g.brownian else None for g in (self, other)]
        total = diffusion_kl(x, drifts, variances)
        if some := self.jump or other.jump:
            intensities = [g.jump.intensity if g.jump else torch.zeros_like(some.intensity) for g in (self, other)]
            total = total + jump_kl(x, intensities, [(g.jump or some).destination for g in (self, other)])
        return total


def _spread(weight: Weight, like: Tensor) -> Tensor | float:
    return expand(weight, like) if isinstance(weight, Tensor) and weight.dim() else weight


def _merge(kind: type[T], add: Callable[[T, T], T], terms: tuple[Generator, ...]) -> T | None:
    """The sum of the terms of one kind; None if there are none."""
    mine = [term for term in terms if isinstance(term, kind)]
    return functools.reduce(add, mine) if mine else None


def _merge_drifts(a: Drift, b: Drift) -> Drift:
    if a.space != b.space:
        raise GenmatchError(f"drifts add only on one space, got {a.space or 'R^d'} and {b.space or 'R^d'}.")
    return Drift(a.velocity + b.velocity, a.space)


def add_jumps(a: Jump, b: Jump) -> Jump:
    """The sum of two jumps: rates add, and destinations mix in proportion."""
    total = a.intensity + b.intensity
    return Jump(total, Mixture(a.destination, b.destination, torch.where(total > 0, b.intensity / total, torch.zeros_like(total))))
