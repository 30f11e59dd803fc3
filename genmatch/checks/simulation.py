r"""Checks of the draws: `step` and `transition` against the generator and the path.

A first-order draw has E f(X_h) = f(x) + h (L f)(x) + O(h^2). The coefficient of h is found by extrapolation to h = 0 from
draws with common random numbers, in two ways, of which the less noisy counts: from small steps in powers of sqrt(h), in
which a diffusion step is smooth draw by draw; and from moderate steps in powers of h, which suits jumps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.checks.base import Finding, Skip, Tally, check
from genmatch.checks.paths import exact, frequencies, law
from genmatch.checks.statistics import ARRIVED, IDENTITY, NOTHING, chi_square_score, rms, z_score
from genmatch.checks.subject import Subject, flat, take, times
from genmatch.generators import Generator
from genmatch.spaces import TestFunction
from genmatch.tensors import State

_TIMES = (0.4, 0.7)
_PRECISION = 0.005
"""Standard error that draws are added for, relative to the action: a wrong factor of 1.1 is then 20 of them."""
_PAIRS = ((0.0, 0.3), (0.2, 0.6), (0.5, 0.9), (0.0, 1.0), (0.6, 1.0))
"""From and to, as fractions of the way from t_min to 1."""
_FOLLOWED = 1e-7
"""`DRAW_BY_DRAW` for a step whose states are compared directly, with no difference in time between."""

Draw = Callable[[float, torch.Generator], State]
"""States a time h later."""


@check("step", "E f(step(x, h)) = f(x) + h (L f)(x) + O(h^2)", "`step` and `apply` of the generator's terms")
def step(subject: Subject) -> Finding:
    """The Euler draw of the generator has the generator as its derivative."""

    def draws(generator: Generator, output: State, x: State, t: Tensor) -> Draw:
        return lambda h, rng: generator.step(x, h, rng=rng)

    return _first_order(subject, draws)


@check("transition-generator", "E f(transition(x, t, t + h)) = f(x) + h (L f)(x) + O(h^2)", "`transition`, whose small steps must be those of `generator`")
def transition_generator(subject: Subject) -> Finding:
    """The exact draw has the generator as its derivative."""
    _needs_transition(subject)

    def draws(generator: Generator, output: State, x: State, t: Tensor) -> Draw:
        return lambda h, rng: subject.process.transition(output, x, t, t + h, rng=rng)

    return _first_order(subject, draws)


@check("transition-path", "X_t ~ p_t(. | x1) implies X_s ~ p_s(. | x1), and X_1 = x1", "`transition`: the order of `t` and `s`, and the last step")
def transition_path(subject: Subject) -> Finding:
    """With the data point known the prediction does not change, so one step of any length follows the path."""
    _needs_transition(subject)
    tally, n = Tally(), min(subject.num_draws, int(subject.effort * 20_000))
    for t, s in _PAIRS:
        _follow(subject, tally, subject.time(t), subject.time(s), n * subject.num_points)
    return tally.finding()


def _needs_transition(subject: Subject) -> None:
    if not subject.process.supports("transition"):
        raise Skip("the process defines no `transition`")


def _follow(subject: Subject, tally: Tally, t: float, s: float, n: int) -> None:
    x1, index = subject.points(n), subject.index(n)
    # The same seed for both times: a deterministic transition then agrees draw by draw.
    start, path = (subject.sample(x1, times(time, n), rng=subject.rng("follow", t, s)) for time in (t, s))
    output = subject.output(start, times(t, n), x1)
    end = subject.process.transition(output, start, times(t, n), times(s, n), rng=subject.rng("transition", t, s))
    gaps = [f(end) - f(path) for f in subject.functions()]
    arrived = (flat(path) == flat(x1)).all(1)
    missed = torch.where(arrived, (flat(end) - flat(x1)).abs().amax(1), 0)
    for i in range(subject.num_points):
        rows, where = index == i, f"t = {t:.3g}, s = {s:.3g}, x1[{i}]"
        for k, gap in enumerate(gaps):
            tally.add(z_score(gap[rows], 1.0, _FOLLOWED), f"{where}, f[{k}]")
        if exact(subject):
            tally.add(chi_square_score(frequencies(subject, take(end, rows)), law(subject, s, i)), where)
        if s == 1:
            tally.add(missed[rows].mean() / ARRIVED, f"{where}: where the path ends in x1, so must the transition")


def _first_order(subject: Subject, draws: Callable[[Generator, State, State, Tensor], Draw]) -> Finding:
    tally, n, every = Tally(), min(subject.num_actions(), int(subject.effort * 20_000)), []
    for fraction in _TIMES:
        t = times(subject.time(fraction), n)
        x = subject.sample(subject.points(n), t, rng=subject.rng("step states", fraction))
        output = subject.process.natural_at(subject.average(x, t), x, t)
        generator = subject.generator(output, x, t)
        functions = subject.functions()
        actions = torch.stack([generator.apply(f, x) for f in functions])
        probe = _Probe(subject, draws(generator, output, x, t), functions, torch.stack([f(x) for f in functions]))
        slopes, bias = _extrapolated(probe, actions, min(float(t[0]), 1 - float(t[0])))
        _regress(tally, slopes - actions, actions, bias, f"t = {float(t[0]):.3g}")
        every.append((_slope(slopes - actions, actions), bias))
    residuals, biases = zip(*every, strict=True)
    tally.add(_z_beyond(torch.cat(residuals), _overall(torch.cat(biases))), "all t and all f, slope")
    return tally.finding()


def _extrapolated(probe: _Probe, actions: Tensor, room: float) -> tuple[Tensor, Tensor]:
    """Estimates of (L f)(x) from draws, (F, B), and the bias to allow for, relative to it, (F,).

    A pilot chooses the way, and draws are added until the noise is small.
    """
    # In a small step hardly anything jumps, and draws without a jump show little noise where there is much.
    ways = (_MODERATE,) if "jump" in probe.subject.process.kinds else (_MODERATE, _SMALL)
    steps = {way: probe.step_within(way, room) for way in ways}
    pilots = {way: probe.slopes(way, h, range(2)) for way, h in steps.items()}
    way = min(pilots, key=lambda way: _variance(pilots[way] - actions))
    n, size = actions.shape[1], (actions**2).mean(1).sqrt() + NOTHING
    speed = probe.change(steps[way], "probe").abs().mean(1) / steps[way]
    bias = way.bias + way.jump_bias * (speed / size).clamp(min=1)
    # As far as time allows.
    wanted = 2 * _variance(pilots[way] - actions) / (n * (_PRECISION * float(rms(actions))) ** 2 + NOTHING)
    affordable = probe.subject.effort * min(40, 600_000 // n, 12_000_000 // (n * probe.subject.space.size))
    more = int(min(max(wanted - 2, 0), affordable))
    total = 2 * pilots[way] + more * probe.slopes(way, steps[way], range(2, 2 + more))
    return total / (2 + more), bias


@dataclass(frozen=True)
class _Way:
    """How to extrapolate to h = 0: the steps as fractions of the largest, the powers of sqrt(h) that are fitted.

    The largest step is `longest` times the way to the nearer end, or less: the root mean square change of the test
    functions stays below `reach`. The error of the extrapolation that is allowed for is `bias`, relative to L f, and
    `jump_bias`, relative to E |f(X_h) - f(x)| / h if that is larger: jumps that cancel in L f do not cancel in higher orders.
    """

    fractions: tuple[float, ...]
    powers: tuple[int, ...]
    longest: float
    reach: float
    bias: float
    jump_bias: float

    def coefficients(self, h: float) -> Tensor:
        """c with sum_i c_i (f(X_{h_i}) - f(x)) = the coefficient of h."""
        nodes = torch.tensor(self.fractions, dtype=torch.float64).sqrt()
        fit = torch.stack([nodes**power for power in self.powers])
        wanted = torch.tensor([float(power == 2) for power in self.powers], dtype=torch.float64)
        return torch.linalg.solve(fit, wanted) / h


_SMALL = _Way((1 / 16, 1 / 4, 9 / 16, 1.0), (1, 2, 3, 4), longest=1e-3, reach=0.03, bias=0.002, jump_bias=0.0)
_MODERATE = _Way((0.5, 1.0), (2, 4), longest=0.25, reach=0.28, bias=0.0, jump_bias=0.02)


@dataclass(frozen=True)
class _Probe:
    """Draws from fixed states, seen through test functions, whose values `here` are (F, B)."""

    subject: Subject
    draw: Draw
    functions: list[TestFunction]
    here: Tensor

    def change(self, h: float, seed: object) -> Tensor:
        """f(X_h) - f(x) for one draw, (F, B)."""
        there = self.draw(h, self.subject.rng("draw", seed))
        return torch.stack([f(there) for f in self.functions]) - self.here

    def step_within(self, way: _Way, room: float) -> float:
        """The longest step that changes the test functions by no more than the reach."""
        h = way.longest * room
        while float(rms(self.change(h, "probe"))) > way.reach and h > NOTHING * room:
            h /= 2
        return h

    def slopes(self, way: _Way, h: float, seeds: range) -> Tensor:
        """Estimates of (L f)(x) for each function and state, (F, B), averaged over the seeds; zero for none."""
        total = torch.zeros_like(self.here)
        for seed in seeds:
            for c, fraction in zip(way.coefficients(h), way.fractions, strict=True):
                total += c * self.change(h * fraction, seed) / len(seeds)
        return total


def _variance(residual: Tensor) -> float:
    return float(residual.var(1).mean().nan_to_num(nan=torch.inf))


def _regress(tally: Tally, residual: Tensor, actions: Tensor, bias: Tensor, where: str) -> None:
    """Mean and regression slope of the residual, for each function and for all together."""
    for k in range(len(actions)):
        scale = rms(actions[k]) + NOTHING
        tally.add(_z_beyond(residual[k] / scale, float(bias[k])), f"{where}, f[{k}], mean")
        tally.add(_z_beyond(_slope(residual[k : k + 1], actions[k : k + 1]), float(bias[k])), f"{where}, f[{k}], slope")
    tally.add(_z_beyond(_slope(residual, actions), _overall(bias)), f"{where}, all f, slope")


def _overall(bias: Tensor) -> float:
    return float(rms(bias))


def _slope(residual: Tensor, actions: Tensor) -> Tensor:
    """Values (B,) whose mean is the slope of the residual on the action: 0.1 for a factor of 1.1."""
    return (residual * actions).mean(0) / (rms(actions) ** 2 + NOTHING)


def _z_beyond(residual: Tensor, bias: float) -> Tensor:
    """Standard errors by which the mean of relative residuals exceeds the bias of the extrapolation."""
    beyond = (residual.mean().abs() - bias).clamp(min=0)
    return beyond / (residual.std() / len(residual) ** 0.5 + IDENTITY)
