r"""The Kolmogorov forward identity: the generator moves the law as the path says.

    d/dt E f(X_t) = E (L_t f)(X_t)     for every test function f

On a finite space both sides are computed exactly, as dp/dt = Q p. Elsewhere they are expectations over the same draws:
d/dt E f is estimated by moving t under a fixed random seed, or as E[f d/dt log p_t], whichever is less noisy. A
corrector stays at p_t, so that the left side is 0.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, eq. 5.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.checks.base import Finding, Skip, Tally, check
from genmatch.checks.paths import exact, law
from genmatch.checks.statistics import DRAW_BY_DRAW, SUMMED, derivative, rms, z_score
from genmatch.checks.subject import Subject, double, take, times
from genmatch.generators import Generator
from genmatch.marginal import log_marginal, oracle
from genmatch.spaces import TestFunction
from genmatch.tensors import State, batch_size

_EXACT_TIMES = (0.05, 0.3, 0.6, 0.95)
_TIMES = (0.1, 0.5, 0.85)
_FEW = 20_000
"""Draws that show whether a density is smooth; more than the quick level has."""
_DERIVED = 1e-8
"""Gap of dp/dt = Q p that passes, relative to the largest speed: differences of order eight leave up to 4e-10 on the paths here."""
_STILL = 1e-3
"""Below this a speed is compared in absolute terms: nothing moves there."""
_NO_RATE = 1e-9
"""Stands for the largest rate where there is none."""
_LONG, _SHORT, _INSTANT = 0.05, 0.003, 1e-4
"""Times over which a speed is measured, over the way to the nearer end: the first two tell jumps from smooth motion, the last has no bias."""
_JUMPY = 0.02
"""Relative bias of a speed over the long time: several times 0.05^2, the square of the time."""
_SAME_SPEED = 1.3
"""Factor within which two speeds are the same: that of jumps differs by sqrt(0.05 / 0.003), which is 4."""
_LOOK = "the sign and every factor of `generator` and `target`, and the derivatives of the schedule"


@check("forward-conditional", "d/dt E f(X_t) = E (L_t f)(X_t) given x1", _LOOK)
def forward_conditional(subject: Subject) -> Finding:
    """The conditional generator generates the conditional path."""
    if exact(subject):
        return _exact(subject, range(subject.num_points), _conditional_law, _conditional_rates)

    def log_prob(x: State, t: Tensor, x1: State) -> Tensor:
        return subject.path.log_prob(x, t, x1)

    return _simulated(subject, subject.conditional, log_prob if subject.path.has_log_prob else None, by_point=True)


@check("forward-marginal", "d/dt E f(X_t) = E (L_t f)(X_t) with L_t the posterior mean of generators", _LOOK + ", and `average`")
def forward_marginal(subject: Subject) -> Finding:
    """The marginalization trick: the averaged generator generates the mixture of paths."""
    if not subject.path.has_log_prob:
        raise Skip("the path has no density, so the posterior is unknown")
    if exact(subject):
        return _exact(subject, [-1], _marginal_law, _marginal_rates)

    def log_prob(x: State, t: Tensor, x1: State) -> Tensor:
        return log_marginal(subject.process, subject.data, x, t, weights=subject.weights)

    def generator(x: State, t: Tensor, x1: State) -> Generator:
        return _marginal(subject, x, t)

    return _simulated(subject, generator, log_prob, by_point=False)


@check("rates", "Q(y | x) >= 0 for y != x, and sum_y Q(y | x) = 0", "the intensity and the destination of `generator`")
def rates(subject: Subject) -> Finding:
    """What moves the law is a generator of a process: its rates are not negative."""
    if not exact(subject):
        raise Skip("the states cannot be listed, or the path has no density")
    tally = Tally(tolerance=SUMMED)
    for t, i in itertools.product(map(subject.time, _EXACT_TIMES), [-1, *range(subject.num_points)]):
        p, q = (_marginal_law, _marginal_rates) if i < 0 else (_conditional_law, _conditional_rates)
        matrix = _on_support(q(subject, t, i), p(subject, t, i))
        where = f"t = {t:.3g}, " + ("the marginal" if i < 0 else f"x1[{i}]")
        scale = matrix.abs().max() + _NO_RATE
        tally.add((matrix - matrix.diagonal().diag()).clamp(max=0) / scale, f"{where}: a negative rate")
        tally.add(matrix.sum(0) / scale, f"{where}: the sum of a column")
    return tally.finding()


def _marginal(subject: Subject, x: State, t: Tensor) -> Generator:
    return subject.generator(double(oracle(subject.process, subject.data, subject.weights)(x, t)), x, t)


def _conditional_law(subject: Subject, t: float, i: int) -> Tensor:
    return law(subject, t, i)


def _conditional_rates(subject: Subject, t: float, i: int) -> Tensor:
    states = subject.states
    n = batch_size(states)
    return subject.conditional(states, times(t, n), subject.point(i, n)).dense(subject.space)


def _marginal_law(subject: Subject, t: float, i: int) -> Tensor:
    return torch.stack([w * law(subject, t, i) for i, w in enumerate(subject.weights)]).sum(0)


def _marginal_rates(subject: Subject, t: float, i: int) -> Tensor:
    states = subject.states
    return _marginal(subject, states, times(t, batch_size(states))).dense(subject.space)


def _on_support(matrix: Tensor, p: Tensor) -> Tensor:
    """Rates out of states that never occur may be anything; they count as zero."""
    return torch.where(p > 0, matrix.double(), 0)


def _exact(
    subject: Subject,
    points: range | list[int],
    p: Callable[[Subject, float, int], Tensor],
    q: Callable[[Subject, float, int], Tensor],
) -> Finding:
    """dp/dt = Q p, relative to the largest |dp/dt|."""
    tally = Tally(tolerance=_DERIVED)
    for t, i in itertools.product(map(subject.time, _EXACT_TIMES), points):
        p_t = p(subject, t, i)
        d_p = subject.speed * derivative(lambda s, i=i: p(subject, s, i), t)  # type: ignore[misc]
        flow = _on_support(q(subject, t, i), p_t) @ p_t
        tally.add((d_p - flow) / (d_p.abs().max() + flow.abs().max() + _STILL), f"t = {t:.3g}" + (f", x1[{i}]" if i >= 0 else ""))
    return tally.finding()


def _simulated(
    subject: Subject,
    generator: Callable[[State, Tensor, State], Generator],
    log_prob: Callable[[State, Tensor, State], Tensor] | None,
    by_point: bool,
) -> Finding:
    tally, n = Tally(), subject.num_actions()
    index = subject.index(n) if by_point else torch.multinomial(subject.weights, n, replacement=True, generator=subject.rng("points"))
    x1 = take(subject.data, index)
    groups = {"": torch.ones(n, dtype=torch.bool)} | ({f", x1[{i}]": index == i for i in range(subject.num_points)} if by_point else {})
    for t in map(subject.time, _TIMES):
        x = subject.sample(x1, times(t, n), rng=subject.rng("forward", t))
        moving = generator(x, times(t, n), x1)
        estimates = _estimates(subject, x, t, x1, log_prob)
        for k, f in enumerate(subject.functions()):
            action = moving.apply(f, x)
            flows = [(subject.speed * estimate.values(f), estimate.slack) for estimate in estimates]
            for where, group in groups.items():
                _compare(tally, [(flow[group], slack) for flow, slack in flows], action[group], f"t = {t:.3g}, f[{k}]{where}")
    return tally.finding()


def _compare(tally: Tally, flows: list[tuple[Tensor, float]], action: Tensor, where: str) -> None:
    """The z-score of d/dt E f - E L f by the estimate whose error is smallest."""
    scale = rms(action) + _STILL
    flow, slack = min(flows, key=lambda pair: float(((pair[0] - action).var() / len(action) + (pair[1] * scale) ** 2).nan_to_num(nan=torch.inf)))
    tally.add(z_score(flow - action, scale, slack), where)


@dataclass(frozen=True)
class _Estimate:
    """An estimate of d/dt E f(X_t), one value a draw; `slack` is its relative bias."""

    values: Callable[[TestFunction], Tensor]
    slack: float


def _estimates(subject: Subject, x: State, t: float, x1: State, log_prob: Callable[[State, Tensor, State], Tensor] | None) -> list[_Estimate]:
    """The estimates of d/dt E f(X_t) that a path allows.

    Both are differences in time of something that may jump, a path under a fixed seed or the logarithm of a density with edges. Few draws
    meet a jump in a short time, too few to know a standard error: what jumps serves only where nothing is smooth, and over a longer time.
    """
    n, room = batch_size(x), min(t, 1 - t)
    few = min(n, _FEW)
    functions = subject.functions()

    def speed(reach: float) -> Callable[[TestFunction], Tensor]:
        before, after = (subject.sample(x1, times(s, n), rng=subject.rng("forward", t)) for s in (t - reach, t + reach))
        return lambda f: (f(after) - f(before)) / (2 * reach)

    def score(reach: float, n: int = n) -> Tensor:
        here, ends = (take(state, torch.arange(n)) for state in (x, x1))
        return (log_prob(here, times(t + reach, n), ends) - log_prob(here, times(t - reach, n), ends)) / (2 * reach)  # type: ignore[misc]

    long, short, instant = (share * room for share in (_LONG, _SHORT, _INSTANT))
    estimates = []
    if smooth := _alike(*(torch.stack([speed(reach)(f) for f in functions]) for reach in (long, short))):
        estimates.append(_Estimate(speed(instant), DRAW_BY_DRAW))
    if log_prob is not None and (not smooth or _alike(score(long, few), score(short, few))):
        change = score(instant)
        estimates.append(_Estimate(lambda f: (f(x) - f(x).mean()) * change, DRAW_BY_DRAW))
    return estimates or [_Estimate(speed(long), _JUMPY)]


def _alike(long: Tensor, short: Tensor) -> bool:
    """Whether a speed does not depend on the time over which it is measured; that of jumps does."""
    return bool(rms(long) < _SAME_SPEED * rms(short) < _SAME_SPEED**2 * rms(long))
