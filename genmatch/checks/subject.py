"""The process under test with what every check needs: data, times, test functions, posteriors, sizes."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Generator
from genmatch.marginal import oracle
from genmatch.processes.base import MarkovProcess
from genmatch.spaces import TestFunction
from genmatch.tensors import State, batch_size, leaves, tree_map

MAX_POINTS = 8
MAX_STATES = 400
"""Spaces of at most this many states are enumerated, and tested exactly."""


def cast(state: State, dtype: torch.dtype) -> State:
    """A state with its floating parts in `dtype`; tokens stay as they are."""
    return tree_map(lambda v: v.to(dtype) if v.is_floating_point() else v, state)


def double(state: State) -> State:
    """A state with its floating parts in float64."""
    return cast(state, torch.float64)


def take(state: State, index: Tensor) -> State:
    """Rows of a state."""
    return tree_map(lambda v: v[index], state)


def times(t: float, n: int) -> Tensor:
    """The time `t` for each of `n` samples."""
    return torch.full((n,), t, dtype=torch.float64)


class Subject:
    """A process under test.

    Args:
        process: any `MarkovProcess`.
        data: data points that its path leads to; a handful of arbitrary ones by default. The first eight are used.
        seed: makes every draw repeatable.
        effort: scales the number of draws of the checks that simulate.
    """

    def __init__(self, process: MarkovProcess, data: Any = None, seed: int = 0, effort: float = 1.0) -> None:
        self.process = process
        self.path = process.path
        self.space: Any = process.path.space
        self.seed = seed
        self.effort = effort
        self.speed = 0.0 if process.stationary else 1.0
        points = process.data_space.random(5, rng=self.rng("data")) if data is None else data
        chosen = tree_map(lambda v: v[:MAX_POINTS], process.data_space.prepare(points))
        self.data = process.data_space.settle(double(chosen))
        self.num_points = batch_size(self.data)
        self.laws: dict[float, Tensor] = {}
        # No two alike: an error that exchanges data points must show.
        self.weights = torch.arange(1, self.num_points + 1, dtype=torch.float64) / sum(range(1, self.num_points + 1))

    def rng(self, *names: object) -> torch.Generator:
        """A source of randomness of its own for each purpose, so that no check depends on another."""
        return torch.Generator().manual_seed(zlib.crc32(repr((self.seed, *names)).encode()))

    def functions(self, n: int = 4) -> list[TestFunction]:
        """Random test functions of states."""
        return self.space.test_functions(n, rng=self.rng("functions"))

    def time(self, fraction: float) -> float:
        """A time this far from `t_min` to 1."""
        return self.process.t_min + (1 - self.process.t_min) * fraction

    @functools.cached_property
    def states(self) -> State:
        """All states of a finite space."""
        return self.space.enumerate()

    @property
    def is_finite(self) -> bool:
        """Whether all states can be listed."""
        return bool(self.space.cardinality <= MAX_STATES)

    @property
    def num_draws(self) -> int:
        """How many states to draw where each is cheap: at most two million numbers."""
        width = flat(self.random_output(1, self.rng("width"))).shape[1]
        return int(self.effort * max(4000, min(60_000, 2_000_000 // max(width, self.space.size))))

    def num_actions(self) -> int:
        """How many states to apply the generator at: fewer where the action evaluates its function often."""
        calls = 0

        def counting(x: State) -> Tensor:
            nonlocal calls
            calls += batch_size(x) // 2  # several values of a sample may be asked for in one call
            return f(x)

        (f,) = self.functions(1)
        x1, t = self.points(2), times(self.time(0.5), 2)
        x = self.sample(x1, t, rng=self.rng("cost"))
        self.conditional(x, t, x1).apply(counting, x)
        size = self.space.size
        # Fewer than these say too little of their own spread where few of many coordinates move.
        return max(400, int(self.effort * max(800, min(120_000, 6_000_000 // (size * calls + size**2 // 8)))))

    def index(self, n: int) -> Tensor:
        """Which data point each of `n` samples leads to: all in turn."""
        return torch.arange(n) % self.num_points

    def points(self, n: int) -> State:
        """`n` data points: all in turn."""
        return take(self.data, self.index(n))

    def point(self, i: int, n: int) -> State:
        """Data point `i`, `n` times."""
        return take(self.data, torch.full((n,), i))

    def sample(self, x1: State, t: Tensor, *, x0: State | None = None, rng: torch.Generator) -> State:
        """X_t on the way to `x1`.

        On a path with a coupling the noise is drawn here, independently: what is tested so holds given the noise, whatever its law.
        """
        if x0 is None and not self.path.is_independent:
            x0 = self.space.settle(tree_map(lambda v, like: v.to(like.dtype), self.path.source(batch_size(x1), rng=rng), x1))
        return self.path.sample(x1, t, x0=x0, rng=rng)

    def output(self, x: State, t: Tensor, x1: State) -> State:
        """The ideal output when the data point is known."""
        return double(self.process.natural_at(self.process.target(x, t, x1), x, t))

    def conditional(self, x: State, t: Tensor, x1: State) -> Generator:
        """The generator that leads to `x1`."""
        return self.generator(self.output(x, t, x1), x, t)

    def generator(self, output: State, x: State, t: Tensor) -> Generator:
        """The process's generator.

        Raises:
            GenmatchError: if it returns something else.
        """
        found = self.process.generator(output, x, t)
        if not isinstance(found, Generator):
            raise GenmatchError(f"`generator` must return a generator, such as `Drift(velocity)`, got {type(found).__name__}.")
        return found

    def posterior(self, x: State, t: Tensor, weights: Tensor | None = None) -> Tensor:
        """Probabilities of the data points given `x`, (B, N).

        On a path without a density there is no posterior: the weights stand in, for identities that hold for any.
        """
        weights = self.weights if weights is None else weights
        if not self.path.has_log_prob:
            return (weights / weights.sum()).expand(batch_size(x), -1)
        return oracle(self.process, self.data, weights).posterior(x, t)

    def targets(self, x: State, t: Tensor, possible: Tensor) -> State:
        """The targets of all data points, (B, N, ...); zero where the data point is impossible, (B, N)."""
        n = batch_size(x)

        def known(i: int, v: Tensor) -> Tensor:
            return torch.where(possible[:, i].reshape(-1, *[1] * (v.dim() - 1)), v, 0)

        columns = [tree_map(lambda v, i=i: known(i, v), self.process.target(x, t, self.point(i, n))) for i in range(self.num_points)]
        return tree_map(lambda *parts: torch.stack(parts, 1), *columns)

    def average(self, x: State, t: Tensor, weights: Tensor | None = None) -> State:
        """The posterior mean of the targets under a law of the data points."""
        posterior = self.posterior(x, t, weights)
        return self.process.average(self.targets(x, t, posterior > 0), posterior)

    def random_output(self, n: int, rng: torch.Generator, dtype: torch.dtype = torch.float64) -> State:
        """Random numbers in the shape of a network's output."""

        def draw(shape: Any) -> State:
            if isinstance(shape, dict):
                return {name: draw(part) for name, part in shape.items()}
            return torch.randn(n, *shape, dtype=dtype, generator=rng)

        return draw(self.process.output_shape)


def flat(state: State) -> Tensor:
    """All numbers of a state in float64, (B, D)."""
    return torch.cat([leaf.double().flatten(1) for leaf in leaves(state)], 1)
