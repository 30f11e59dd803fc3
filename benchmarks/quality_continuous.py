"""Error against network calls on an exact flow: `python benchmarks/quality_continuous.py`.

Data on the line with a mixture of two Gaussians as density, so that the exact network is known. A flow on the line carries quantiles
along: the error is the Wasserstein-2 distance of 400 of them to the exact ones, without sampling noise. Each method spends
its calls between 0 and t. The scale of the circle was chosen, as 0.5, on the first law; the second one was not looked at before.
`scale=std` gives `circle-rk4` the standard deviation of the data, which a user can measure. flow_matching's `ODESolver` is called as its documentation says, with every method of fixed steps that it
offers; those that start with others, or iterate, are charged for the calls that they make.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import torch
from common import finish, options

import genmatch as gm
from genmatch.schedules import CondOT
from genmatch.solvers.circle import CircleRK4
from tests.toys import GaussianMixture, full, line

CALLS, TIMES = (8, 16, 32), (0.25, 0.5, 0.9, 1.0)
LEVELS = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
OURS = {
    **dict.fromkeys(("exact", "midpoint", "heun", "rk4"), "uniform"),
    "2m": "log-snr",
    **dict.fromkeys(("exponential-heun", "adams", "adams-4", "circle-rk4", "circle-rk5"), "angle"),
}
"""Solvers, each with the grid that suits it."""
SCALED = "circle-rk4, scale=std"
PEERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4, "explicit_adams": 1, "implicit_adams": 1}
"""Methods of flow_matching, with the calls of a step."""


class Three(GaussianMixture):
    """Three parts of very different widths."""

    weights = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    means = torch.tensor([-0.6, 0.1, 1.2], dtype=torch.float64)
    stds = torch.tensor([0.15, 0.4, 0.1], dtype=torch.float64)


LAWS = {"two": GaussianMixture(CondOT()), "three": Three(CondOT())}


def start(law: GaussianMixture) -> torch.Tensor:
    """Quantiles of the noise."""
    return law.quantiles(LEVELS, 0.0).unsqueeze(-1)


def error(law: GaussianMixture, x: torch.Tensor, t: float) -> float:
    """Wasserstein-2 distance."""
    return float((x[:, 0] - law.quantiles(LEVELS, t)).square().mean().sqrt())


def grid_to(name: str, steps: int, end: float) -> torch.Tensor:
    """A grid from 0 to `end`, even in the clock of that name: the first part of a fine one, thinned."""
    if end == 1 or name == "uniform":
        return end * gm.time_grid(steps, name, CondOT())
    fine = gm.time_grid(20_000, name, CondOT())
    last = int((fine - end).abs().argmin())
    times = fine[torch.linspace(0, last, steps + 1).round().long()]
    times[-1] = end
    return times


def std(law: GaussianMixture) -> float:
    """Standard deviation of the data."""
    mean = (law.weights * law.means).sum()
    return float((law.weights * (law.stds**2 + (law.means - mean) ** 2)).sum().sqrt())


def ours(law: GaussianMixture, name: str, calls: int, end: float) -> tuple[float, int]:
    """Error and calls of a solver of genmatch."""
    solver = CircleRK4(std(law)) if name == SCALED else gm.solvers.get(name)
    times = grid_to(OURS.get(name, "angle"), max(1, calls // solver.calls), end)
    run = gm.simulate(gm.Flow(line()), law.velocity, start(law), times, solver=solver)
    return error(law, run.states[-1], end), run.nfe


def theirs(law: GaussianMixture, name: str, calls: int, end: float) -> tuple[float, int]:
    """Error and calls of a method of flow_matching."""
    from flow_matching.solver import ODESolver

    made = 0

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal made
        made += 1
        return law.velocity(x, full(float(t), len(x)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # implicit Adams warns that its iteration has not converged
        step, times = end / max(1, calls // PEERS[name]), torch.tensor([0.0, end], dtype=torch.float64)
        x = ODESolver(velocity).sample(start(law), step_size=step, method=name, time_grid=times)
    return error(law, x, end), made


def measure() -> Iterator[dict[str, object]]:
    """A row for each law, method, budget and time."""
    for (label, law), (package, names, one) in itertools.product(LAWS.items(), (("genmatch", (*OURS, SCALED), ours), ("flow_matching", PEERS, theirs))):
        for name, calls, t in itertools.product(names, CALLS, TIMES):
            value, made = one(law, name, calls, t)
            yield {"law": label, "package": package, "method": name, "calls": calls, "made": made, "t": t, "error": value}


def wide(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """One row for the errors at all times."""
    keys = ("law", "package", "method", "calls")
    groups = itertools.groupby(rows, key=lambda row: tuple(row[key] for key in keys))
    return [dict(zip(keys, values, strict=True)) | {"made": 0} | merged(list(group)) for values, group in groups]


def merged(group: list[dict[str, object]]) -> dict[str, object]:
    """The most calls that were made, and the error at each time."""
    return {"made": max(row["made"] for row in group)} | {f"t={row['t']:g}": row["error"] for row in group}


def best(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The least error of each package within the calls allowed, and their ratio."""
    out = []
    for label, calls, t in itertools.product(LAWS, CALLS, TIMES):
        able = [row for row in rows if (row["law"], row["calls"], row["t"]) == (label, calls, t) and row["made"] <= calls]
        own, peer = (min((row for row in able if row["package"] == package), key=lambda row: row["error"]) for package in ("genmatch", "flow_matching"))
        out.append(
            {"law": label, "calls": calls, "t": t, "genmatch": own["method"], "its error": own["error"]}
            | {"flow_matching": peer["method"], "error": peer["error"], "ratio": own["error"] / peer["error"]}
        )
    return out


def main() -> None:
    """Measures, and prints the errors and the ratio of the best ones at equal calls."""
    chosen = options(__doc__)
    rows = list(measure())
    finish(chosen, best=best(rows), errors=wide(rows))


if __name__ == "__main__":
    main()
