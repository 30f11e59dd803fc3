r"""Processes side by side: particles on their way from noise to data, with the conditional path and the generator beside them.

No network: `gm.oracle` is the exact one of a finite data set. Every process is drawn by the same two numbers of its generator, which any
generator has, since they are its action on functions: with f_k the k-th coordinate of the point that a state stands for,

    (L f_k)(x)                                          where a particle at x goes on average, an arrow
    (L sum_k f_k^2)(x) - 2 sum_k f_k(x) (L f_k)(x)      how fast it scatters, a disc: 0 for a flow, d g^2 for a diffusion, rate
                                                        times squared length for jumps
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from genmatch import data as data_sets
from genmatch import processes, solvers
from genmatch.data import DataSet, View
from genmatch.errors import GenmatchError, unknown
from genmatch.generators import Generator
from genmatch.marginal import Oracle, conditional_generator, oracle
from genmatch.processes import MarkovProcess
from genmatch.runs import fit_view
from genmatch.sampling import stream
from genmatch.serve.guards import field
from genmatch.spaces import TestFunction
from genmatch.tensors import State, batch_size, tree_map

_ARROWS, _CLOUD = 24, 40
"""How many particles show their generator, and how many the path to one data point."""
_COST = 1.6e5
"""Coordinates that the oracle compares a step: particles times data points times coordinates."""
_LATEST = 0.995
"""A generator may grow without bound towards t = 1: the last one shown."""
_SHOWN = 600
"""Data points on the page."""


@dataclass(frozen=True)
class Scene:
    """A process on a data set.

    Attributes:
        data: the data set.
        process: the process.
        view: the view of the data that it fits.
        solver: name of a solver; the recommended one if None.
    """

    data: DataSet
    process: MarkovProcess
    view: View
    solver: str | None = None

    @classmethod
    def made(cls, data: str, process: str, solver: str | None = None) -> Scene:
        """The scene of these names.

        Raises:
            WrongField: if one is unknown, or they do not fit.
        """
        with field("data"):
            found = _known_data(data)
        with field("process"):
            if process not in _names()[1]:
                raise unknown("process", process, _names()[1])
            made, view = fit_view(process, found)
            made.path.require_independent("the page")
        with field("solver"):
            if solver is not None:
                solvers.resolve(made, solver)
        return cls(found, made, view, solver)

    def events(self, *, n: int, steps: int, seed: int, towards: int) -> Iterator[dict[str, Any]]:
        """The scene itself, then one event for each time of the grid.

        Args:
            n: particles.
            steps: of the solver.
            seed: of the particles.
            towards: which data point the conditional path leads to.
        """
        process, view = self.process, self.view
        size = max(1, int(view.decode(_first(view.train, 1)).numel()))
        model = oracle(process, _first(view.train, max(16, int(_COST / (n * size)))))
        few = batch_size(model.data)
        x1 = tree_map(lambda v: v[towards % few : towards % few + 1], model.data)
        yield {
            "event": "scene",
            "process": repr(process),
            "kinds": sorted(process.kinds),
            "shape": list(view.decode(x1).shape[1:]),
            "data": _points(view, _first(view.train, _SHOWN)),
            "towards": _points(view, x1)[0],
        }
        for t, x in stream(process, model, n, steps=steps, solver=self.solver, seed=seed):
            yield {"event": "frame", "t": round(t, 4), "points": _points(view, x), **self._pictures(model, x, x1, t, seed)}

    def _pictures(self, model: Oracle, x: State, x1: State, t: float, seed: int) -> dict[str, Any]:
        """The generator at the first particles, and the path to one data point with its generator."""
        cloud = tree_map(lambda v: v.repeat(_CLOUD, *[1] * (v.dim() - 1)), x1)
        on_path = self.process.path.sample(cloud, torch.full((_CLOUD,), t, dtype=torch.float64), rng=torch.Generator().manual_seed(seed))
        found: dict[str, Any] = {"cloud": _points(self.view, on_path)}
        if t >= _LATEST or not self._plane():
            return found

        def conditional(x: State, time: Tensor) -> Generator:
            return conditional_generator(self.process, x, time, tree_map(lambda v: v[: len(time)], cloud))

        def marginal(x: State, time: Tensor) -> Generator:
            return self.process.generator(model(x, time), x, time)

        arrows = {"generator": self._generator(marginal, x, t), "cloud_generator": self._generator(conditional, on_path, t)}
        return found | {name: value for name, value in arrows.items() if value is not None}

    def _plane(self) -> bool:
        """Whether points are few enough coordinates to draw arrows."""
        return int(self.view.decode(_first(self.view.train, 1)).numel()) <= 3

    def _generator(self, make: Callable[[State, Tensor], Generator], x: State, t: float) -> list[list[float]] | None:
        """[velocity..., scatter] of the first particles, or None where it is not finite."""
        x = _first(x, _ARROWS)
        time = torch.full((batch_size(x),), max(t, self.process.t_min), dtype=torch.float64)
        with torch.no_grad():
            generator = make(x, time)
        here = self.view.decode(x).double()

        def coordinate(k: int) -> TestFunction:
            return lambda x: self.view.decode(x)[:, k].double()

        def square(x: State) -> Tensor:
            return (self.view.decode(x).double() ** 2).sum(-1)

        velocity = torch.stack([generator.apply(coordinate(k), x) for k in range(here.shape[-1])], -1)
        scatter = generator.apply(square, x) - 2 * (here * velocity).sum(-1)
        table = torch.cat([velocity, scatter.clamp(min=0).unsqueeze(-1)], -1).detach()
        return _rounded(table) if bool(torch.isfinite(table).all()) else None


@cache
def _names() -> tuple[list[str], list[str]]:
    """The names of data sets and of families; looking for those of other packages takes a while."""
    return data_sets.available(), processes.available()


@cache
def _loaded(name: str) -> DataSet:
    return data_sets.get(name)


def _known_data(name: str) -> DataSet:
    """A data set by a registered name; a request must not name a file or a module."""
    if name not in _names()[0]:
        raise unknown("data set", name, _names()[0])
    return _loaded(name)


@cache
def choices() -> dict[str, Any]:
    """The data sets that can be drawn, and the families that fit each; data that are text have a page of their own."""
    found: dict[str, Any] = {}
    for name in _names()[0]:
        try:
            data = _known_data(name)
        except GenmatchError:  # what it needs is not installed
            continue
        families = [family for family in _names()[1] if data.write is None and _is_drawn(name, family)]
        if families:
            found[name] = {"shape": list(data.train.shape[1:]), "processes": families}
    return found


def _is_drawn(data: str, family: str) -> bool:
    """Whether a family fits a data set, with states of one part."""
    try:
        return isinstance(Scene.made(data, family).view.train, Tensor)
    except GenmatchError:
        return False


def _first(states: State, n: int) -> State:
    return tree_map(lambda v: v[:n], states)


def _points(view: View, states: State) -> list[Any]:
    return _rounded(view.decode(states))


def _rounded(values: Tensor) -> list[Any]:
    """As lists of numbers with three decimals."""
    thousandths = (values.double() * 1000).round() / 1000
    return torch.nan_to_num(thousandths).tolist()


__all__ = ["Scene", "choices"]
