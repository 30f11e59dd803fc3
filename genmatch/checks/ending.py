r"""Checks of the last draw, `finish`: where a process ends if its prediction does not change any more.

With the data point known it ends there. With the mean $m$ of the target over several data points it ends in a draw $X_1$ which,
taken as the data point, has that mean,

    E[m(x, t, X_1) | X_t = x] = m :

a flow ends in the mean of the data, a chain in tokens from their posterior. Taking the most likely token instead changes the law.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.checks.base import Finding, Skip, Tally, check
from genmatch.checks.paths import mean_of
from genmatch.checks.statistics import ARRIVED, bernstein_score, rms
from genmatch.checks.subject import Subject, flat, times
from genmatch.tensors import State

_TIMES = (0.05, 0.4, 0.8)
_LOOK = "`finish`, or `transition` to s = 1, from which it follows"


@check("finish", "X_1 = x1 if the data point is known", _LOOK)
def finish(subject: Subject) -> Finding:
    """The last step ends in the data point that the prediction names."""
    _needs_an_end(subject)
    tally, n = Tally(tolerance=ARRIVED), int(max(500, subject.effort * 4000))
    x1 = subject.points(n)
    for fraction in _TIMES:
        t = times(subject.time(fraction), n)
        x = subject.sample(x1, t, rng=subject.rng("finish states", fraction))
        end = subject.process.finish(subject.output(x, t, x1), x, t, rng=subject.rng("finish", fraction))
        gap = (flat(end) - flat(x1)).abs().amax(1)
        for i in range(subject.num_points):
            tally.add(gap[subject.index(n) == i].mean() / (1 + flat(x1).abs().max()), f"t = {float(t[0]):.3g}, x1[{i}]")
    return tally.finding()


@check("finish-mean", "E[m(x, t, X_1) | X_t = x] = m, and X_1 is drawn as `transition` to s = 1 draws it", _LOOK + ": a draw is not its most likely value")
def finish_mean(subject: Subject) -> Finding:
    """The last step has the mean that the prediction says, and the law of the frozen process."""
    _needs_an_end(subject)
    if not subject.path.has_log_prob:
        raise Skip("the path has no density, so the posterior is unknown")
    tally, n, process = Tally(), min(subject.num_draws, int(subject.effort * 20_000)), subject.process
    for fraction in _TIMES:
        t = times(subject.time(fraction), n)
        x = subject.sample(subject.points(n), t, rng=subject.rng("mean states", fraction))
        m = subject.average(x, t)
        output = process.natural_at(m, x, t)
        end = process.finish(output, x, t, rng=subject.rng("mean", fraction))
        _compare_means(subject, tally, x, flat(mean_of(subject, process.target(x, t, end))), flat(m), f"t = {float(t[0]):.3g}")
        if process.supports("transition"):
            stepped: State = process.transition(output, x, t, torch.ones_like(t), rng=subject.rng("mean, stepped", fraction))
            for k, f in enumerate(subject.functions()):
                tally.add(bernstein_score(f(end) - f(stepped), 1.0), f"t = {float(t[0]):.3g}, f[{k}] against `transition`")
    return tally.finding()


def _compare_means(subject: Subject, tally: Tally, x: State, found: Tensor, m: Tensor, where: str) -> None:
    """The gap, summed with the weights m, which shows what is too sharp, and with random ones."""
    gap, scale = found - m, rms(m) * m.shape[1]
    tally.add(bernstein_score((gap * m).sum(1), scale * rms(m)), f"{where}, along m")
    weights = torch.randn(2, m.shape[1], dtype=torch.float64, generator=subject.rng("finish weights"))
    for k, f in enumerate(subject.functions()):
        tally.add(bernstein_score(gap @ weights[k % 2] * f(x), scale), f"{where}, f[{k}]")


def _needs_an_end(subject: Subject) -> None:
    if not subject.process.supports("finish"):
        raise Skip("the process defines neither `finish` nor `transition`")
    x1 = subject.points(64)
    if not torch.equal(flat(subject.sample(x1, times(1, 64), rng=subject.rng("end"))), flat(x1)):
        raise Skip("the path does not end in the data point")
