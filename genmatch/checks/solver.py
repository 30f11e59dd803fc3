r"""Checks of a solver: what it declares, measured where the exact law is known at every time.

A toy is a process with a small data set, so that its oracle is the exact network and $p_t$ a finite mixture. States that are
spread exactly as $p_t$ at the start must be spread as $p_s$ at every later time of the grid, up to an error that falls with
the number of steps as the declared order says.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch import solvers
from genmatch.checks.base import described_error, place
from genmatch.checks.report import CheckResult, Report
from genmatch.checks.statistics import NOTHING
from genmatch.errors import GenmatchError, checked_seed
from genmatch.generators import Sum
from genmatch.marginal import oracle
from genmatch.paths import Gaussian, Geodesic, Mixture
from genmatch.processes import CTMC, Diffusion, Flow, JumpProcess, MarkovProcess
from genmatch.sampling import Run, simulate
from genmatch.solvers import Solver
from genmatch.spaces import Sphere

_START, _END = 0.1, 0.8
"""The interval of a toy, away from both ends, where rates are large."""
_SLACK = 0.3
"""How far the measured order may stay below the declared one."""
_NOT_ONE = 0.5
"""Between none and one of what is counted."""
_REFERENCE = 1e-7
"""Tolerance of the flow that others are measured against, far below their errors."""
_ADAPTIVE = 1e-4
"""Error within the tolerances of an adaptive solver, which says nothing of its order."""
_LOST = 3
"""An error of so many times the noise of drawing can be told from it."""


@dataclass(frozen=True)
class Effort:
    """How a solver is measured.

    Attributes:
        n: number of states.
        steps: two numbers of steps whose errors are compared.
    """

    n: int
    steps: tuple[int, int]


_EXACTLY = Effort(n=1000, steps=(32, 128))
"""For solvers without randomness: a few quantiles show their error without noise."""

_RANDOMLY = Effort(n=100_000, steps=(4, 16))
"""For solvers that draw: many states, and steps whose errors stand out of the noise."""

_BY_EVENTS = Effort(n=20_000, steps=(2, 4))
"""For solvers without an error in the step: no number of steps tells anything new, and each costs many calls."""


class Toy(ABC):
    """A process whose law is known at every time.

    Attributes:
        name: what the toy is called.
        process: the process.
        model: its exact network.
    """

    name: str
    process: MarkovProcess
    model: Callable[..., Tensor]

    @abstractmethod
    def states(self, t: float, n: int) -> Tensor:
        """About `n` states, spread exactly as p_t."""

    @abstractmethod
    def error(self, states: Tensor, t: float) -> float:
        """Distance of the law of the states from p_t."""

    @abstractmethod
    def draw(self, t: float, n: int, rng: torch.Generator) -> Tensor:
        """`n` independent draws from p_t: their error is what noise alone makes."""

    def run(self, solver: Solver, steps: int, n: int, seed: int) -> Run:
        """Simulates from the start to the end of the toy's interval.

        Args:
            solver: what is measured.
            steps: of the grid from 0 to the latest time.
            n: how many samples.
            seed: of them.
        """
        times = torch.linspace(_START, _END, steps + 1, dtype=torch.float64)
        return simulate(self.process, self.model, self.states(_START, n), times, solver=solver, rng=torch.Generator().manual_seed(seed))


class Line(Toy):
    """Three atoms on a line, seen by their quantiles."""

    ATOMS = (-1.0, 0.1, 0.8)
    WEIGHTS = (0.4, 0.25, 0.35)

    def __init__(self, process: MarkovProcess) -> None:
        self.name = type(process).__name__.lower()
        self.process = process
        self.atoms = torch.tensor(self.ATOMS, dtype=torch.float64)
        self.weights = torch.tensor(self.WEIGHTS, dtype=torch.float64)
        self.model = oracle(process, self.atoms.unsqueeze(-1), self.weights)

    def states(self, t: float, n: int) -> Tensor:
        return _quantiles(t, n)

    def error(self, states: Tensor, t: float) -> float:
        """Wasserstein-2 distance."""
        return float(((states.sort(0).values - self.states(t, len(states))) ** 2).mean().sqrt())

    def draw(self, t: float, n: int, rng: torch.Generator) -> Tensor:
        x1 = self.atoms[torch.multinomial(self.weights, n, replacement=True, generator=rng)].unsqueeze(-1)
        return self.process.path.sample(x1, torch.full((n,), t, dtype=torch.float64), rng=rng)


@functools.cache
def _quantiles(t: float, n: int) -> Tensor:
    """The `n` states at equal probabilities of three atoms on the line under straight Gaussian paths, (n, 1)."""
    atoms, weights = (torch.tensor(values, dtype=torch.float64) for values in (Line.ATOMS, Line.WEIGHTS))
    levels = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    low, high = torch.full_like(levels, -10.0), torch.full_like(levels, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle.unsqueeze(-1) - t * atoms) / (1 - t)) @ weights
        low, high = torch.where(below < levels, middle, low), torch.where(below < levels, high, middle)
    return ((low + high) / 2).unsqueeze(-1)


class Tokens(Toy):
    """Two tokens of three, all nine words possible, seen by their frequencies.

    Args:
        source: of the mixture path.
    """

    def __init__(self, source: str) -> None:
        self.name = f"ctmc, {source}"
        path = Mixture((2,), vocab_size=3, source=source)
        self.process = CTMC(path)
        self.space = path.space
        self.words = path.data_space.enumerate()
        self.weights = torch.tensor([8, 1, 3, 1, 5, 2, 2, 1, 6], dtype=torch.float64) / 29
        self._oracle = oracle(self.process, self.words, self.weights)

    def model(self, x: Tensor, t: Tensor) -> Tensor:
        """The oracle, asked once for each word where all states are at one time."""
        if bool((t != t[0]).any()):
            return self._oracle(x, t.double())
        states = self.space.enumerate()
        return self._oracle(states, t[:1].double().expand(len(states)))[self.space.index(x)]

    def states(self, t: float, n: int) -> Tensor:
        return self.space.enumerate().repeat_interleave((n * self._law(t)).round().long(), 0)

    def error(self, states: Tensor, t: float) -> float:
        """Total variation."""
        frequencies = torch.bincount(self.space.index(states), minlength=int(self.space.cardinality)).double() / len(states)
        return float((frequencies - self._law(t)).abs().sum() / 2)

    def draw(self, t: float, n: int, rng: torch.Generator) -> Tensor:
        return self.space.enumerate()[torch.multinomial(self._law(t), n, replacement=True, generator=rng)]

    def _law(self, t: float) -> Tensor:
        states = self.space.enumerate()
        time = torch.full((len(states),), t, dtype=torch.float64)
        laws = [self.process.path.log_prob(states, time, word.expand(len(states), -1)).exp() for word in self.words]
        return torch.stack(laws, -1) @ self.weights


class Ball(Toy):
    """Three atoms on a sphere, seen by where a few states go: the equation in the surrounding space, solved closely, is exact."""

    def __init__(self) -> None:
        self.name = "flow on a sphere"
        self.process = Flow(Geodesic(Sphere(2, dtype=torch.float64)))
        self.atoms = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [-0.6, 0.0, -0.8]], dtype=torch.float64)
        self.model = oracle(self.process, self.atoms, torch.tensor([0.4, 0.25, 0.35]))
        self._ends: dict[float, Tensor] = {}

    def states(self, t: float, n: int) -> Tensor:
        return self.draw(t, min(n, 60), torch.Generator().manual_seed(0))

    def error(self, states: Tensor, t: float) -> float:
        """Root mean square distance to the exact flow."""
        if t not in self._ends:
            self._ends[t] = self._flow(t, len(states))
        return float(((states - self._ends[t]) ** 2).sum(-1).mean().sqrt())

    def draw(self, t: float, n: int, rng: torch.Generator) -> Tensor:
        return self.process.path.sample(self.atoms[torch.arange(n) % 3], torch.full((n,), t, dtype=torch.float64), rng=rng)

    def _flow(self, t: float, n: int) -> Tensor:
        from torchdiffeq import odeint

        def velocity(time: Tensor, x: Tensor) -> Tensor:
            x, times = x / x.norm(dim=-1, keepdim=True), time.expand(len(x))
            return Sum(*self.process.generator(self.model(x, times), x, times).terms).drift.velocity  # type: ignore[union-attr]

        interval = torch.tensor([_START, t], dtype=torch.float64)
        return odeint(velocity, self.states(_START, n), interval, method="dopri5", rtol=_REFERENCE, atol=_REFERENCE)[-1]


@functools.cache
def toys() -> list[Toy]:
    """One toy for each kind of process."""
    line = Gaussian((1,), dtype=torch.float64)
    jumps = JumpProcess(line, bins=torch.tensor(Line.ATOMS))
    return [Ball(), Line(Flow(line)), Line(Diffusion(line, noise=0.7)), Line(jumps), Tokens("mask"), Tokens("uniform")]


def check_solver(solver: str | Solver, *, seed: int = 0) -> Report:
    """Tests what a solver declares: its order, its law at every time, its network calls, that it repeats.

    It is measured on each toy process that it fits, against the law that is known exactly.

    Args:
        solver: a name, or a solver of your own.
        seed: of the draws.

    Returns:
        A report with `passed`, `failures` and `results`; print it for a table. A solver that raises has failed.

    Raises:
        GenmatchError: if the solver is unknown, or fits none of the toys; or `seed` is not an integer of 64 bits.

    Example:
        >>> report = check_solver("midpoint")
        >>> report.passed, [result.id for result in report.results]
        (True, ['order: flow', 'calls: flow', 'seeds: flow'])
    """
    chosen, seed = solvers.get(solver), checked_seed(seed)
    fitting = [toy for toy in toys() if chosen.misfit(toy.process) is None]
    if not fitting:
        raise GenmatchError(f"{type(chosen).__name__} fits none of the toy processes: {chosen.misfit(toys()[0].process)}.")
    title = f"{type(chosen).__name__} (order {chosen.order}, {chosen.calls or 'adaptive'} call{'' if chosen.calls == 1 else 's'} a step)"
    return Report(title, tuple(result for toy in fitting for result in _results(chosen, toy, seed)))


def _results(solver: Solver, toy: Toy, seed: int) -> list[CheckResult]:
    """What is measured on one toy. An exception is a failure."""
    try:
        return list(_measure(solver, toy, seed))
    except Exception as error:
        look = place(error) or "`step`, which must return states of the shape and dtype of `x`"
        message = f"{described_error(error)}. Look at {look}."
        return [CheckResult(f"runs: {toy.name}", "a step goes from states at t to states at s", "failed", message=message)]


def _measure(solver: Solver, toy: Toy, seed: int) -> Iterator[CheckResult]:
    before = torch.random.get_rng_state()
    coarse = _EXACTLY.steps[0]
    first, again, other = (toy.run(solver, coarse, 1000, s) for s in (seed, seed, seed + 1))
    random = not torch.equal(first.states[-1], other.states[-1])
    drawn = _BY_EVENTS if math.isinf(solver.order) else _RANDOMLY
    yield _order(solver, toy, drawn if random else _EXACTLY, seed)
    gap = float(first.nfe < coarse) if solver.calls is None else abs(first.nfe - coarse * solver.calls)
    yield _result(f"calls: {toy.name}", "network calls = steps x `calls`", gap, _NOT_ONE, f"{first.nfe} calls in {coarse} steps")
    differs = not torch.equal(first.states[-1], again.states[-1])
    leaks = not torch.equal(before, torch.random.get_rng_state())
    message = "another draw for the same `rng`" if differs else "the global random state was used" if leaks else "repeats"
    yield _result(f"seeds: {toy.name}", "the same `rng` gives the same states, and nothing else is drawn from", float(differs or leaks), _NOT_ONE, message)


def _order(solver: Solver, toy: Toy, effort: Effort, seed: int) -> CheckResult:
    """At the middle of the grid and at its end: a law that is right only at the end is wrong."""
    runs = [toy.run(solver, steps, effort.n, seed) for steps in effort.steps]
    gaps, notes = [], []
    for share in (0.5, 1.0):
        t = _START + share * (_END - _START)
        errors = [toy.error(run.states[int(share * steps)], t) for run, steps in zip(runs, effort.steps, strict=True)]
        drawing = toy.error(toy.draw(t, effort.n, torch.Generator().manual_seed(seed)), t) if effort is not _EXACTLY else NOTHING
        order = math.log(errors[0] / errors[1], effort.steps[1] / effort.steps[0])
        # An error lost in noise, or within the tolerance of an adaptive solver, tells nothing of the order.
        small = errors[1] < _LOST * drawing or (solver.calls is None and errors[1] < _ADAPTIVE)
        gaps.append(0.0 if small else max(0.0, solver.order - order))
        notes.append(f"t = {t:.2g}: errors {errors[0]:.2e} and {errors[1]:.2e}, order {order:.2f}{' (within noise)' if small else ''}")
    return _result(f"order: {toy.name}", f"error of the law falls as steps^-{solver.order}, at every time of the grid", max(gaps), _SLACK, "; ".join(notes))


def _result(id: str, equation: str, figure: float, tolerance: float, message: str) -> CheckResult:
    return CheckResult(id, equation, "passed" if figure <= tolerance else "failed", figure, tolerance, message)
