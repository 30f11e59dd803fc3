"""Standard errors, z-scores and finite differences that the checks share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FALSE_ALARM = 1e-6
"""Probability that a check by simulation fails a correct process."""
IDENTITY = 1e-9
"""Relative gap of an identity of algebra that passes: the processes here leave up to 3e-14, and one operation in float32 leaves 1e-7."""
SUMMED = 1e-10
"""Gap of a sum of probabilities or rates over listed states that passes: the paths here leave up to 1e-15, and a larger space more."""
ARRIVED = 1e-8
"""Relative distance from the data point that passes for an end in it: the last steps here leave up to 2e-14, in float32 1e-7."""
EXACT = 0.0
"""For what is counted or compared bit by bit."""
NOTHING = 1e-12
"""Added to a size that may be zero, so that 0 / 0 is 0: four digits above the rounding of float64."""
DRAW_BY_DRAW = 1e-6
"""Relative gap that counts as one standard error where an identity holds draw by draw: the square of a difference in time over 1e-4 of the way is 1e-8."""
_LARGEST = 5
"""How many of its largest terms a sum may be beyond the normal law: log(1 / FALSE_ALARM) / 3, by Bernstein's inequality."""
_COUNTED = 10
"""Expected number of draws from which a state is counted by itself: Pearson's law needs 5 to 10."""
_REACH = 0.02
"""Step of `derivative` over the way to the nearer end: 0.02^8 is 3e-14, and rounding leaves 1e-16 / 0.02."""


def z_limit(tests: int) -> float:
    """The largest |z| of `tests` correct comparisons exceeds this with the probability `FALSE_ALARM`.

    Example:
        >>> round(z_limit(1), 2), round(z_limit(100), 2)
        (4.89, 5.73)
    """
    tail = torch.tensor(FALSE_ALARM / (2 * max(tests, 1)), dtype=torch.float64)
    return -float(torch.special.ndtri(tail))


def z_score(residual: Tensor, scale: Tensor | float, floor: float = DRAW_BY_DRAW) -> Tensor:
    """|mean| of independent residuals (N,) in standard errors.

    Residuals without noise are measured in units of `floor * scale`, so that an identity that holds draw by draw is tested
    as one.
    """
    variance = residual.var() / len(residual)
    return residual.mean().abs() / torch.sqrt(variance + (floor * torch.as_tensor(scale) + NOTHING) ** 2)


def bernstein_score(residual: Tensor, scale: Tensor | float) -> Tensor:
    """`z_score` with room for events so rare that the normal law says too little of them.

    By Bernstein's inequality a sum of bounded terms may exceed what the normal law allows by about five of the largest.
    """
    beyond = (residual.mean().abs() - _LARGEST * residual.abs().max() / len(residual)).clamp(min=0)
    return beyond / torch.sqrt(residual.var() / len(residual) + (DRAW_BY_DRAW * torch.as_tensor(scale) + NOTHING) ** 2)


def rms(value: Tensor) -> Tensor:
    """Root mean square."""
    return (value.double() ** 2).mean().sqrt()


def chi_square_score(counts: Tensor, law: Tensor) -> Tensor:
    """How far `counts` (S,) of independent draws are from the probabilities `law`, as a standard normal deviate.

    Pearson's statistic, with states that are expected fewer than ten times counted together, brought to a normal by the
    cube root of Wilson and Hilferty. Infinite if a state of probability zero occurred.
    """
    if bool((counts[law <= 0] > 0).any()):
        return torch.tensor(math.inf, dtype=torch.float64)
    expected = law * counts.sum()
    rare = expected < _COUNTED
    expected = torch.cat([expected[~rare], expected[rare].sum().reshape(1)])
    observed = torch.cat([counts[~rare], counts[rare].sum().reshape(1)])
    if float(expected[-1]) < _COUNTED:  # too few to count for themselves: the largest bin takes them
        largest = expected[:-1].argmax()
        expected[largest] += expected[-1]
        observed[largest] += observed[-1]
        expected, observed = expected[:-1], observed[:-1]
    freedom = len(expected) - 1
    if freedom == 0:
        return torch.zeros((), dtype=torch.float64)
    statistic = ((observed - expected) ** 2 / expected).sum()
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5


_STENCIL = torch.tensor([1 / 280, -4 / 105, 1 / 5, -4 / 5, 4 / 5, -1 / 5, 4 / 105, -1 / 280], dtype=torch.float64)
_OFFSETS = (-4, -3, -2, -1, 1, 2, 3, 4)


def derivative(function: Callable[[float], Tensor], t: float) -> Tensor:
    """d/dt of a smooth function on (0, 1), by central differences of order eight, close to `t` on the scale of the way to the ends."""
    h = _REACH * min(t, 1 - t)
    values = torch.stack([function(t + k * h) for k in _OFFSETS])
    return torch.tensordot(_STENCIL, values, 1) / h
