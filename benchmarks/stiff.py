"""What one stiff sample costs the others: `python benchmarks/stiff.py`.

64 samples in a slow field, alone and together with one in a field that decays 2,000 times as fast, with adaptive steps at a tolerance
of 1e-6. genmatch's `adaptive` has a step for each sample; `dopri5` is torchdiffeq's, with one step for all, which is also what
flow_matching's `ODESolver` runs.
"""

from __future__ import annotations

import torch
from common import finish, options

import genmatch as gm
from genmatch.solvers.adaptive import Adaptive
from genmatch.solvers.ode import Dopri5

RTOL = ATOL = 1e-6
END, EASY = 0.9, 64


def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Stiff where the state is negative."""
    slow = torch.cos(3 * t).reshape(-1, 1)
    return torch.where(x < 0, -2000.0 * (x + 2 + 0.1 * slow), slow * x.sin())


def ours(x0: torch.Tensor, solver: gm.solvers.Solver) -> dict[str, int]:
    """Calls of the first sample, and samples that the network saw in all."""
    flow = gm.Flow(gm.paths.Gaussian((1,), dtype=torch.float64))
    run = gm.simulate(flow, field, x0, torch.tensor([0.0, END], dtype=torch.float64), solver=solver)
    return {"calls of an easy sample": int(run.calls[0]), "samples seen": int(run.calls.sum())}


def theirs(x0: torch.Tensor) -> dict[str, int]:
    """The same of flow_matching."""
    from flow_matching.solver import ODESolver

    calls = 0

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return field(x, t.expand(len(x)))

    ODESolver(velocity).sample(x0, step_size=None, method="dopri5", rtol=RTOL, atol=ATOL, time_grid=torch.tensor([0.0, END], dtype=torch.float64))
    return {"calls of an easy sample": calls, "samples seen": calls * len(x0)}


def main() -> None:
    """Counts, and prints a table."""
    chosen = options(__doc__)
    easy = torch.linspace(0.2, 3.0, EASY, dtype=torch.float64).unsqueeze(-1)
    both = torch.cat([easy, torch.tensor([[-1.0]], dtype=torch.float64)])
    rows = []
    for package, method, count in (
        ("genmatch", "adaptive", lambda x0: ours(x0, Adaptive(RTOL, ATOL))),
        ("genmatch", "dopri5", lambda x0: ours(x0, Dopri5(RTOL, ATOL))),
        ("flow_matching", "dopri5", theirs),
    ):
        alone, together = count(easy), count(both)
        key = "calls of an easy sample"
        rows.append(
            {"package": package, "method": method, f"{key}, alone": alone[key], "with a stiff one": together[key], "times": together[key] / alone[key]}
            | {"samples seen, alone": alone["samples seen"], "samples seen, with it": together["samples seen"]}
        )
    finish(chosen, stiff=rows)


if __name__ == "__main__":
    main()
