"""What conversions of predictions do at the ends of time: `python benchmarks/endpoints.py`.

For each schedule the coefficients, in genmatch and in flow_matching, at t in {0, 1e-6, 1 - 1e-6, 1}: the relative error of sigma in
float32 input, against the closed form in high precision, and whether each conversion is finite. A conversion that divides by what is
zero there is infinite in both; what matters is that nothing asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from common import finish, options

import genmatch as gm
from genmatch.paths.conversion import PREDICTIONS, coefficients

TIMES = (0.0, 1e-6, 1 - 1e-6, 1.0)


def vp_sigma(t: Fraction) -> float:
    """sqrt(1 - exp(-B(1 - t))), without cancellation."""
    u = 1 - t
    return math.sqrt(-math.expm1(-float(Fraction(1, 10) * u + Fraction(199, 20) * u * u)))


SIGMA: dict[str, Callable[[Fraction], float]] = {
    "CondOT": lambda t: float(1 - t),
    "Cosine": lambda t: math.sin(math.pi / 2 * float(1 - t)),
    "Polynomial(2)": lambda t: float(1 - t * t),
    "VP": vp_sigma,
}
OURS = {"CondOT": gm.schedules.CondOT(), "Cosine": gm.schedules.Cosine(), "Polynomial(2)": gm.schedules.Polynomial(2.0), "VP": gm.schedules.VP()}


def peers() -> dict[str, object]:
    """The schedulers of flow_matching by our names."""
    from flow_matching.path import scheduler

    return {
        "CondOT": scheduler.CondOTScheduler(),
        "Cosine": scheduler.CosineScheduler(),
        "Polynomial(2)": scheduler.PolynomialConvexScheduler(2),
        "VP": scheduler.VPScheduler(),
    }


def relative(value: float, exact: float) -> float:
    """The error in units of the exact value; absolute, where that is 0."""
    return abs(value - exact) / (exact or 1.0)


def finite(t: float, schedule: gm.schedules.Schedule) -> str:
    """Conversions of genmatch that are finite, of twelve."""
    time = torch.tensor([t], dtype=torch.float64)
    pairs = [(a, b) for a in PREDICTIONS for b in PREDICTIONS if a != b]
    good = [pair for pair in pairs if all(bool(c.isfinite().all()) for c in coefficients(schedule, time, *pair))]
    return f"{len(good)} of {len(pairs)}"


def peer_finite(t: float, schedule: object) -> str:
    """Conversions of flow_matching that are finite, of the six that it has."""
    from flow_matching.path import AffineProbPath

    path, time, x = AffineProbPath(schedule), torch.tensor([t]), torch.ones(1)
    names = ("target_to_velocity", "epsilon_to_velocity", "velocity_to_target", "epsilon_to_target", "velocity_to_epsilon", "target_to_epsilon")
    values = [getattr(path, name)(x, x, time) for name in names]
    return f"{sum(bool(value.isfinite().all()) for value in values)} of {len(names)}"


def main() -> None:
    """Measures, and prints a table."""
    chosen = options(__doc__)
    rows, others = [], peers()
    for name, schedule in OURS.items():
        for t in TIMES:
            given = torch.tensor([t], dtype=torch.float32)
            exact = SIGMA[name](Fraction(float(given)))
            theirs = others[name](given)  # type: ignore[operator]
            rows.append(
                {"schedule": name, "t": ("0", "1e-6", "1 - 1e-6", "1")[TIMES.index(t)]}
                | {"error of sigma": relative(float(schedule.sigma(given)), exact), "flow_matching": relative(float(theirs.sigma_t), exact)}
                | {"finite conversions": finite(float(given), schedule), "of flow_matching": peer_finite(t, others[name])}
            )
    finish(chosen, endpoints=rows)


if __name__ == "__main__":
    main()
