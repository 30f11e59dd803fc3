"""Error against network calls on an exact flow: `python benchmarks/quality_continuous.py`.

Data on the line with a mixture of two Gaussians as density, so that the exact network is known. A flow on the line carries quantiles
along: the error is the Wasserstein-2 distance of 400 of them to the exact ones, without sampling noise. Each method spends
its calls between 0 and t. flow_matching's `ODESolver` is called as its documentation says, with every method of fixed steps that it
offers; those that start with others, or iterate, are charged for the calls that they make.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from common import finish, options
from tests.toys import GaussianMixture, full, line

import genmatch as gm
from genmatch.schedules import CondOT

CALLS, TIMES = (8, 16, 32), (0.25, 0.5, 0.9, 1.0)
LEVELS = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
OURS = {"exact": "uniform", "midpoint": "uniform", "heun": "uniform", "rk4": "uniform", "2m": "log-snr", "exponential-heun": "angle", "adams": "angle"}
"""Solvers, each with the grid that suits it."""
PEERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4, "explicit_adams": 1, "implicit_adams": 1}
"""Methods of flow_matching, with the calls of a step."""

LAW = GaussianMixture(CondOT())
START = LAW.quantiles(LEVELS, 0.0).unsqueeze(-1)


def error(x: torch.Tensor, t: float) -> float:
    """Wasserstein-2 distance."""
    return float((x[:, 0] - LAW.quantiles(LEVELS, t)).square().mean().sqrt())


def grid_to(name: str, steps: int, end: float) -> torch.Tensor:
    """A grid from 0 to `end`, even in the clock of that name: the first part of a fine one, thinned."""
    if end == 1 or name == "uniform":
        return end * gm.time_grid(steps, name, CondOT())
    fine = gm.time_grid(20_000, name, CondOT())
    last = int((fine - end).abs().argmin())
    times = fine[torch.linspace(0, last, steps + 1).round().long()]
    times[-1] = end
    return times


def ours(name: str, calls: int, end: float) -> tuple[float, int]:
    """Error and calls of a solver of genmatch."""
    times = grid_to(OURS[name], max(1, calls // gm.solvers.get(name).calls), end)
    run = gm.simulate(gm.Flow(line()), LAW.velocity, START, times, solver=name)
    return error(run.states[-1], end), run.nfe


def theirs(name: str, calls: int, end: float) -> tuple[float, int]:
    """Error and calls of a method of flow_matching."""
    from flow_matching.solver import ODESolver

    made = 0

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal made
        made += 1
        return LAW.velocity(x, full(float(t), len(x)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # implicit Adams warns that its iteration has not converged
        x = ODESolver(velocity).sample(START, step_size=end / max(1, calls // PEERS[name]), method=name, time_grid=torch.tensor([0.0, end], dtype=torch.float64))
    return error(x, end), made


def rows(package: str, names: dict[str, object], measure: Callable[[str, int, float], tuple[float, int]]) -> list[dict[str, object]]:
    """A row for each method and budget."""
    out = []
    for name in names:
        for calls in CALLS:
            measured = [measure(name, calls, t) for t in TIMES]
            out.append({"package": package, "method": name, "calls": calls, "made": max(n for _, n in measured)} | {f"t={t:g}": e for t, (e, _) in zip(TIMES, measured, strict=True)})
    return out


def main() -> None:
    """Measures, and prints the errors and the ratio of the best ones at equal calls."""
    chosen = options(__doc__)
    errors = rows("genmatch", OURS, ours) + rows("flow_matching", PEERS, theirs)
    best = []
    for calls in CALLS:
        for column in [f"t={t:g}" for t in TIMES]:
            pick = {
                package: min((row for row in errors if row["package"] == package and row["calls"] == calls and row["made"] <= calls), key=lambda row: row[column])
                for package in ("genmatch", "flow_matching")
            }
            row = {"calls": calls, "t": column[2:]}
            for package, winner in pick.items():
                row |= {package: winner["method"], f"{package} error": winner[column]}
            best.append(row | {"ratio": pick["genmatch"][column] / pick["flow_matching"][column]})
    finish(chosen, errors=errors, best=best)


if __name__ == "__main__":
    main()
