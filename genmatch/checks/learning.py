r"""Checks of what is learned: the link, the affine generator, the Bregman loss.

The generator must be affine in the mean of the output, and the loss a Bregman divergence: then the average over data points
passes through both, and a network that minimises the loss generates the data.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, propositions 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.checks.base import Finding, Tally, check
from genmatch.checks.statistics import EXACT, IDENTITY, NOTHING, rms
from genmatch.checks.subject import Subject, cast, double, flat, times
from genmatch.tensors import State, leaves, tree_map

_TIMES = (0.1, 0.5, 0.9)
_STATES = 16
_GRADIENTS = 1e-8
"""Relative gap of gradients that passes: the divergences here leave up to 3e-15."""
_STILL = 1e-6
"""Below this an action L f is compared in absolute terms: nothing moves there."""
_NEAR = 1e-6
"""How near the ends of time training comes: float32 tells times apart from 1 down to 6e-8."""


def _states(subject: Subject, fraction: float) -> tuple[State, Tensor]:
    t = times(subject.time(fraction), _STATES)
    return subject.sample(subject.points(_STATES), t, rng=subject.rng("states", fraction)), t


def _tilted(subject: Subject, seed: int) -> Tensor:
    """Another law of the data points."""
    return torch.rand(subject.num_points, dtype=torch.float64, generator=subject.rng("tilt", seed)) + 0.05


def _mix(a: float, m1: State, m2: State) -> State:
    return tree_map(lambda v1, v2: a * v1 + (1 - a) * v2, m1, m2)


@check("link", "mean(natural(m)) = m", "`natural` and `mean`, which must be inverse, and `average`; a figure near 1e-7 tells of float32 inside")
def link(subject: Subject) -> Finding:
    """The link function and its inverse agree, for one data point and for averages."""
    tally, process = Tally(tolerance=IDENTITY), subject.process
    for fraction in _TIMES:
        x, t = _states(subject, fraction)
        m = subject.average(x, t)
        tally.add(_gap(process.mean_at(process.natural_at(m, x, t), x, t), m), f"t = {float(t[0]):.3g}, an average of targets")
        target = process.target(x, t, subject.points(_STATES))
        alone = process.average(tree_map(lambda v: v.unsqueeze(1), target), torch.ones(_STATES, 1, dtype=torch.float64))
        tally.add(_gap(process.mean_at(double(process.natural_at(target, x, t)), x, t), alone), f"t = {float(t[0]):.3g}, one target")
    return tally.finding()


def _gap(a: State, b: State) -> Tensor:
    return (flat(a) - flat(b)).abs().max() / (flat(b).abs().max() + 1)


@check(
    "affine",
    "L[a m1 + (1-a) m2] = a L[m1] + (1-a) L[m2]",
    "`generator`, which must be affine in `mean(output)`, and `natural`; a figure near 1e-7 tells of float32 inside",
)
def affine(subject: Subject) -> Finding:
    """The generator of an average is the average of generators: without it there is no marginalization trick."""
    tally, process = Tally(tolerance=IDENTITY), subject.process
    for fraction in _TIMES:
        x, t = _states(subject, fraction)
        m1, m2 = (subject.average(x, t, _tilted(subject, k)) for k in (0, 1))
        generators = [subject.generator(process.natural_at(m, x, t), x, t) for m in (_mix(0.3, m1, m2), m1, m2)]
        for k, f in enumerate(subject.functions(2)):
            mixed, one, two = (generator.apply(f, x) for generator in generators)
            scale = rms(one) + rms(two) + _STILL
            tally.add((mixed - 0.3 * one - 0.7 * two) / scale, f"t = {float(t[0]):.3g}, f[{k}]")
    return tally.finding()


@check("bregman", "grad_F E D(m, F) = grad_F D(E m, F), zero at the mean; D >= 0", "`divergence`: a Bregman divergence, weighted by x and t alone")
def bregman(subject: Subject) -> Finding:
    """The loss against single data points has the gradient of the loss against their average, so it learns the average."""
    tally, process = Tally(tolerance=_GRADIENTS), subject.process
    for fraction in _TIMES:
        x, t = _states(subject, fraction)
        where = f"t = {float(t[0]):.3g}"
        weights = subject.posterior(x, t)
        targets = subject.targets(x, t, weights > 0)
        m = process.average(targets, weights)
        F = subject.random_output(_STATES, subject.rng("outputs", fraction))
        each = torch.stack([_gradient(subject, _of_point(targets, i), F, x, t) * weights[:, i, None] for i in range(subject.num_points)]).sum(0)
        whole = _gradient(subject, m, F, x, t)
        scale = whole.abs().max() + NOTHING
        tally.add((each - whole) / scale, f"{where}, gradient at a random output")
        tally.add(_gradient(subject, m, process.natural_at(m, x, t), x, t) / scale, f"{where}, gradient at the mean")
        best = process.divergence(m, process.natural_at(m, x, t), x, t).double()
        size = process.divergence(m, F, x, t).double()
        tally.add(best / (size.abs().max() + NOTHING), f"{where}, divergence at the mean")
        tally.add(size.clamp(max=0) / (size.abs().max() + NOTHING), f"{where}, a negative divergence")
    return tally.finding()


def _of_point(targets: State, i: int) -> State:
    """The targets of data point `i` alone."""
    return tree_map(lambda v: v[:, i], targets)


def _gradient(subject: Subject, target: State, output: State, x: State, t: Tensor) -> Tensor:
    """The gradient of the divergence by the output, (B, D)."""
    with torch.enable_grad():
        output = tree_map(lambda v: v.detach().clone().requires_grad_(), output)
        loss = subject.process.divergence(target, output, x, t).sum()
        gradients = torch.autograd.grad(loss, leaves(output), materialize_grads=True, allow_unused=True)
    return torch.cat([gradient.double().flatten(1) for gradient in gradients], 1)


@check(
    "finite-gradients",
    "divergence, its gradient and L f are finite in float32 for t in [t_min, 1 - 1e-6], at t_min a step",
    "divisions by alpha, sigma or 1 - t",
)
def finite_gradients(subject: Subject) -> Finding:
    """Nothing overflows in the precision of training, near either end, and the first step is one, however fast the process is."""
    tally, process, n, f = Tally(tolerance=EXACT), subject.process, 64, subject.functions(1)[0]
    x1 = cast(subject.points(n), torch.float32)
    for t in (process.t_min, subject.time(_NEAR), subject.time(0.5), 1 - 1e-3, 1 - _NEAR):
        t_n = times(t, n)
        x = subject.sample(x1, t_n, rng=subject.rng("float32", t))
        output, target = subject.random_output(n, subject.rng("output32", t), torch.float32), process.target(x, t_n, x1)
        ideal = process.natural_at(target, x, t_n)
        tally.add((~process.divergence(target, output, x, t_n).isfinite()).sum(), f"t = {t:.7g}, the divergence")
        tally.add((~_gradient(subject, target, output, x, t_n).isfinite()).sum(), f"t = {t:.7g}, its gradient")
        for name, prediction in (("a random output", output), ("the ideal output", ideal)):
            generator = subject.generator(prediction, x, t_n)
            # Jumps may be infinitely fast where the simulation starts, as those of a reversed noising are; a step is still a step.
            values = flat(generator.step(x, 0.1, rng=subject.rng("step32", t))) if t == process.t_min else generator.apply(f, x)
            tally.add((~values.isfinite()).sum(), f"t = {t:.7g}, {'a step' if t == process.t_min else 'L f'} of {name}")
    return tally.finding()
