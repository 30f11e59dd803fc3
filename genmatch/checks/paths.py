"""Checks of the path: its ends, its density, and the target on it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from genmatch.checks.base import Finding, Skip, Tally, check
from genmatch.checks.statistics import SUMMED, chi_square_score, z_score
from genmatch.checks.subject import Subject, double, flat, take, times
from genmatch.errors import GenmatchError
from genmatch.spaces.reference import Reference
from genmatch.tensors import State, batch_size, tree_map

_TIMES = (0.05, 0.3, 0.6, 0.95)
_ENOUGH = 200
"""Draws that two laws share, from which their balance says something."""
_GIVEN = 1e-9
"""Mean distance that counts as one standard error between the noise that is given and X_0: `IDENTITY`, for states of size 1."""
_SOURCE = 1e-12
"""Gap of probabilities at t = 0 that counts as one standard error: the same numbers by another route, rounded to 1e-16."""
_NEAR_END = 1e-8
"""How near t = 1 a path must have come to its data point."""
_CLOSE = 0.01
"""How near, in test functions of size 1: sigma is 3e-5 there even for VP, whose slope is infinite."""
_BITWISE = 1e-20
"""Far below any rounding: a probability that must be 0 or 1 must be so to the last bit."""
_WRONG = 1e3
"""What a state that is not the data point counts, where 1 passes."""


def law(subject: Subject, t: float, i: int) -> Tensor:
    """p_t(x | x1[i]) at every state of a finite space, (S,)."""
    if t not in subject.laws:
        states, n = subject.states, subject.num_points
        index = torch.arange(n).repeat_interleave(batch_size(states))
        everywhere = tree_map(lambda v: v.repeat(n, *[1] * (v.dim() - 1)), states)
        subject.laws[t] = subject.path.log_prob(everywhere, times(t, len(index)), take(subject.data, index)).exp().view(n, -1)
    return subject.laws[t][i]


def frequencies(subject: Subject, x: State) -> Tensor:
    """How often each state of a finite space occurs in `x`, (S,)."""
    return torch.bincount(subject.space.index(x), minlength=int(subject.space.cardinality)).double()


def exact(subject: Subject) -> bool:
    """Whether the path's law can be listed."""
    return subject.is_finite and subject.path.has_log_prob


@check("source", "p_0(x | x1) = p_0(x), and `source` draws from it", "the path's `_source`, its `_sample` where it is given `x0`, and its schedule at t = 0")
def source(subject: Subject) -> Finding:
    """At t = 0 the path is the source, whatever the data point."""
    n, tally = subject.num_draws, Tally()
    start = double(subject.path.source(n, rng=subject.rng("source", 0)))
    x1 = [subject.point(i, n) for i in range(subject.num_points)]
    draws = [subject.sample(point, times(0, n), rng=subject.rng("source", 1)) for point in x1]
    given = subject.sample(x1[0], times(0, n), x0=start, rng=subject.rng("source", 2))
    tally.add((flat(given) - flat(start)).abs().mean() / _GIVEN, "X_0 given x0, which must be x0")
    for k, f in enumerate(subject.functions()):
        for i, x in enumerate(draws):
            tally.add(z_score(f(x) - f(start), 1.0), f"f[{k}] of X_0 given x1[{i}] against f[{k}] of the source")
            tally.add(z_score(f(x) - f(draws[0]), 1.0), f"f[{k}] of X_0 given x1[{i}] against x1[0]")
    if exact(subject):
        laws = [law(subject, 0, i) for i in range(subject.num_points)]
        for i, p in enumerate(laws):
            tally.add((p - laws[0]).abs().max() / _SOURCE, f"p_0(x | x1[{i}]) against p_0(x | x1[0])")
        tally.add(chi_square_score(frequencies(subject, start), laws[0]), "the frequencies of the source's draws")
    return tally.finding()


@check("data", "X_1 = x1 exactly, and X_t -> x1 as t -> 1", "the schedule at t = 1: its ends must be exact constants")
def data(subject: Subject) -> Finding:
    """At t = 1 the path is the data point, to the last bit; the schedule's rounding there ruins multistep solvers."""
    n, tally = 2000, Tally(tolerance=1.0)
    x1 = double(subject.process.data_space.random(n, rng=subject.rng("data")))
    end = subject.sample(x1, times(1, n), rng=subject.rng("end"))
    tally.add(((flat(end) != flat(x1)).any(1)).sum() * _WRONG, "X_1, which must equal x1")
    near = subject.sample(x1, times(1 - _NEAR_END, n), rng=subject.rng("near"))
    for k, f in enumerate(subject.functions()):
        tally.add((f(near) - f(x1)).abs().mean() / _CLOSE, f"f[{k}] at t = 1 - 1e-8")
    if exact(subject):
        for i in range(subject.num_points):
            here = frequencies(subject, subject.point(i, 1))
            tally.add((law(subject, 1, i) - here).abs().max() / _BITWISE, f"p_1(x | x1[{i}]), which must be 0 off x1")
    return tally.finding()


@check("coupling", "E[f(X_0) | c] = E f(X_0), X_0 = start(x1, c)", "the coupling's `pair`: it must keep the law of the noise, under every condition alone")
def coupling(subject: Subject) -> Finding:
    """However noise is paired with the data of a batch, it starts from the source, where sampling starts."""
    tally, batches, size = Tally(), int(max(100, subject.effort * 200)), 5 * subject.num_points
    index = subject.index(size)
    # Without a coupling one batch is as good as many.
    repeats, whole = (1, batches * size) if subject.path.is_independent else (batches, size)
    for name, condition, groups in (("no condition", {}, [index >= 0]), ("a label", {"label": subject.index(whole) % 2}, [index % 2 == c for c in range(2)])):
        rng = subject.rng("coupling", name)
        pairs = [subject.path.start(subject.points(whole), condition, rng=rng) for _ in range(repeats)]
        fresh = subject.path.source(batches * size, rng=rng)
        started = tree_map(lambda *parts: torch.cat(parts), *pairs)
        for k, f in enumerate(subject.functions()):
            gap = (f(started) - f(fresh)).view(batches, size)
            for c, rows in enumerate(groups):
                tally.add(z_score(gap[:, rows].mean(1), 1.0), f"{name}, c = {c}, f[{k}]")
    return tally.finding()


@check("path-normalised", "sum_x p_t(x | x1) = 1, or the integral", "the path's `_log_prob`: its constant and its exponents; or its `_sample`")
def path_normalised(subject: Subject) -> Finding:
    """Probabilities sum to one at every time: all of them on a finite space, else against a law q of known density.

    There the identity is E_q[p / (p + q)] = E_p[q / (p + q)], whose terms are bounded.
    """
    if not subject.path.has_log_prob:
        raise Skip("the path has no density")
    if not subject.is_finite:
        return _measured(subject)
    tally = Tally(tolerance=SUMMED)
    for t, i in itertools.product((0.0, *_TIMES, 1.0), range(subject.num_points)):
        tally.add(law(subject, t, i).sum() - 1, f"t = {t:g}, x1[{i}]")
    return tally.finding()


def _measured(subject: Subject) -> Finding:
    if subject.path.has_atoms:
        raise Skip("the law has atoms, where a law of known density has none")
    tally, n, seen = Tally(), subject.num_draws // 6, False
    for t, i in itertools.product(map(subject.time, _TIMES), range(subject.num_points)):
        pilot = subject.sample(subject.point(i, 500), times(t, 500), rng=subject.rng("pilot", t, i))
        try:
            reference = subject.space.reference(pilot)
        except GenmatchError as reason:
            raise Skip(str(reason)) from None
        share_q, share_p = _shares(subject, reference, t, i, n)
        # Laws that hardly meet say nothing of each other: late on a manifold, where the uniform law is the only one known.
        if n * max(float(share_q.mean()), float(share_p.mean())) > _ENOUGH:
            seen = True
            tally.add(z_score(share_q - share_p, 1.0), f"t = {t:.3g}, x1[{i}]")
    if not seen:
        raise Skip("no law of known density is near the path's")
    return tally.finding()


def _shares(subject: Subject, reference: Reference, t: float, i: int, n: int) -> tuple[Tensor, Tensor]:
    """p / (p + q) at draws from q, and q / (p + q) at draws from p, for p = p_t(. | x1[i])."""
    x, y = reference.draw(n, subject.rng("reference", t, i)), subject.sample(subject.point(i, n), times(t, n), rng=subject.rng("normal", t, i))
    gaps = [subject.path.log_prob(z, times(t, n), subject.point(i, n)) - reference.log_prob(z) for z in (x, y)]
    return torch.sigmoid(gaps[0]), torch.sigmoid(-gaps[1])


@check("path-samples", "`sample` draws from the law whose logarithm is `log_prob`", "the path's `_sample` and `_log_prob`")
def path_samples(subject: Subject) -> Finding:
    """Draws follow the density: by counting, or by the balance of two densities p and q, E_p[f q/(p+q)] = E_q[f p/(p+q)]."""
    if not subject.path.has_log_prob:
        raise Skip("the path has no density")
    tally = Tally()
    for t in map(subject.time, _TIMES):
        if subject.is_finite:
            _count(subject, tally, t)
        else:
            later = t + 0.3 * (1 - t) / subject.space.size**0.5
            _balance(subject, tally, (t, 0), (later, 0))
            _balance(subject, tally, (t, 0), (t, 1))
    return tally.finding()


def _count(subject: Subject, tally: Tally, t: float) -> None:
    n = subject.num_draws
    for i in range(subject.num_points):
        x = subject.sample(subject.point(i, n), times(t, n), rng=subject.rng("count", t, i))
        tally.add(chi_square_score(frequencies(subject, x), law(subject, t, i)), f"t = {t:.3g}, x1[{i}]")


def _balance(subject: Subject, tally: Tally, p: tuple[float, int], q: tuple[float, int]) -> None:
    """p and q as (time, how many data points further on), for every data point."""
    n = subject.num_draws // 4 * subject.num_points
    index = subject.index(n)

    def law_of(which: tuple[float, int]) -> tuple[Tensor, State]:
        return times(which[0], n), take(subject.data, (index + which[1]) % subject.num_points)

    sides = []
    for here, there in ((p, q), (q, p)):
        t, x1 = law_of(here)
        x = subject.sample(x1, t, rng=subject.rng("balance", here, there))
        log_ratio = subject.path.log_prob(x, *law_of(there)) - subject.path.log_prob(x, t, x1)
        sides.append((x, torch.sigmoid(log_ratio)))
    (x, share_x), (y, share_y) = sides
    gaps = {"": share_x - share_y} | {f", f[{k}]": f(x) * share_x - f(y) * share_y for k, f in enumerate(subject.functions(2))}
    for i in range(subject.num_points):
        where = f"t = {p[0]:.3g}, x1[{i}] against t = {q[0]:.3g}, x1[{(i + q[1]) % subject.num_points}]"
        for name, gap in gaps.items():
            tally.add(z_score(gap[index == i], 1.0), where + name)


@check("target-x0", "E[m(x, t, x1; x0) | x, x1] = m(x, t, x1)", "the use of `x0` in `target` and in the path's `_sample`")
def target_x0(subject: Subject) -> Finding:
    """Knowing the noise changes the target by nothing on average; on a Gaussian path by nothing at all."""
    tally, n = Tally(), min(subject.num_draws, int(subject.effort * 20_000))
    x1 = subject.points(n)
    for t in map(subject.time, _TIMES):
        x0 = double(subject.path.source(n, rng=subject.rng("x0", t)))
        x = subject.sample(x1, times(t, n), x0=x0, rng=subject.rng("x0 path", t))
        plain, known = (flat(mean_of(subject, subject.process.target(x, times(t, n), x1, x0=given))) for given in (None, x0))
        gap = (known - plain).sum(1)
        for k, f in enumerate(subject.functions()):
            tally.add(z_score(gap * f(x), plain.abs().sum(1).mean()), f"t = {t:.3g}, f[{k}]")
        fresh = subject.sample(x1, times(t, n), rng=subject.rng("fresh", t))
        for k, f in enumerate(subject.functions()):
            tally.add(z_score(f(x) - f(fresh), 1.0), f"t = {t:.3g}, f[{k}] of X_t from a drawn x0")
    return tally.finding()


def mean_of(subject: Subject, target: State) -> State:
    """A target as an average over one data point: tokens become probabilities."""
    certain = torch.ones(batch_size(target), 1, dtype=torch.float64)
    return subject.process.average(tree_map(lambda v: v.unsqueeze(1), target), certain)
