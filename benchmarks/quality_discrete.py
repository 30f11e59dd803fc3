"""Error against network calls on exact chains: `python benchmarks/quality_discrete.py`.

Three tokens of four, with the exact posterior as network: total variation to the exact law at each time. The laws of our solvers, and
of flow_matching's, are carried along by the exact kernels of their steps, without sampling noise; the kernel of the peer is
checked against draws of the real `MixtureDiscreteEulerSolver`.
Each method spends its calls between 0 and t. The peer's last step jumps to the data whatever the time is, as its code says, so
that before t = 1 its error is that of the data's law; the kernel without that jump is shown beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from common import finish, options
from token_kernels import Chain, joint, redraw

import genmatch as gm
from tests.toys import chain, token_data, token_law, token_marginal

CALLS, TIMES = (4, 8, 16, 32), (0.25, 0.5, 0.9, 1.0)
OURS = dict.fromkeys(("mask", "uniform"), ("exact", "tau-leaping", "analytic-trapezoid", "theta-trapezoidal"))
OURS["mask"] += ("first-hitting",)
GRIDS = ("uniform", "angle")


def toy(source: str, data: str) -> tuple[Chain, torch.Tensor]:
    """A chain with its exact network, and the law of the data."""
    process, law = chain(source), token_law(data)
    return Chain(process, gm.oracle(process, token_data(), law)), law


def ours(exact: Chain, name: str, grid: str, calls: int, end: float) -> torch.Tensor:
    """The law at the end, for a solver that is one call a position or of a fixed number of calls a step, on a grid shrunk to end there."""
    steps = 1 if name == "first-hitting" else max(1, calls // gm.solvers.get(name).calls)
    return exact.law(name, (end * gm.time_grid(steps, grid, exact.process.path.schedule)).tolist())[-1]


def theirs(exact: Chain, grid: str, calls: int, end: float, *, jump: bool) -> torch.Tensor:
    """The law after the steps of flow_matching: a token leaves for x1 with probability 1 - exp(-h rate), where they differ."""
    p = joint(exact.source)
    times = (end * gm.time_grid(calls, grid, exact.process.path.schedule)).tolist()
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        last = i == calls - 1 and (jump or s == 1)
        leave = 1.0 if last else 1 - math.exp(-(s - t) / (1 - t))
        p = joint(redraw(exact.posterior(t), exact.x, torch.full(exact.x.shape, leave, dtype=torch.float64))).T @ p
    return p


def drawn(exact: Chain, calls: int, end: float, n: int) -> torch.Tensor:
    """Frequencies of `n` draws of the real solver."""
    from flow_matching.path import MixtureDiscreteProbPath
    from flow_matching.path.scheduler import CondOTScheduler
    from flow_matching.solver import MixtureDiscreteEulerSolver
    from flow_matching.utils import ModelWrapper

    states = exact.process.space.num_states
    space = exact.process.space

    class Posterior(ModelWrapper):
        def forward(self, x: torch.Tensor, t: torch.Tensor, **extras: object) -> torch.Tensor:
            return exact.posterior(float(t[0]))[space.index(x)]

    torch.manual_seed(0)
    x0 = exact.process.path.source(n)
    solver = MixtureDiscreteEulerSolver(Posterior(None), MixtureDiscreteProbPath(CondOTScheduler()), states)
    x = solver.sample(x0, step_size=end / calls, time_grid=torch.tensor([0.0, end]), dtype_categorical=torch.float64)
    return torch.bincount(space.index(x), minlength=len(exact.x)).double() / n


PEER, PLAIN = "MixtureDiscreteEulerSolver", "the same, without its jump"


def cases(source: str, calls: int, positions: int) -> Iterator[tuple[str, str]]:
    """Solvers and grids of genmatch. First-hitting makes a call a position and has no grid."""
    for name in OURS[source]:
        if name != "first-hitting":
            yield from ((name, grid) for grid in GRIDS)
        elif calls >= positions:
            yield name, "uniform"


def distances(source: str, data: str) -> list[dict[str, Any]]:
    """A row for each method and budget, with the distance at each time."""
    exact, law = toy(source, data)
    laws = {t: token_marginal(source, t, law) for t in TIMES}
    out = []
    for calls in CALLS:
        table = {("genmatch", name, grid): [ours(exact, name, grid, calls, t) for t in TIMES] for name, grid in cases(source, calls, exact.x.shape[1])}
        for name, grid in itertools.product((PEER, PLAIN), GRIDS):
            table["flow_matching", name, grid] = [theirs(exact, grid, calls, t, jump=name == PEER) for t in TIMES]
        for (package, name, grid), found in table.items():
            errors = {f"t={t:g}": float((p - laws[t]).abs().sum() / 2) for t, p in zip(TIMES, found, strict=True)}
            out.append({"source": source, "data": data, "calls": calls, "package": package, "method": name, "grid": grid} | errors)
    return out


def best(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The least error of genmatch, among solvers that make one, beside the least of flow_matching, for each case."""
    for (source, data, calls), group in itertools.groupby(rows, key=lambda row: (row["source"], row["data"], row["calls"])):
        some = list(group)
        for t in TIMES:

            def least(*names: str, some: list[dict[str, Any]] = some, column: str = f"t={t:g}") -> tuple[str, str, float]:
                return min(((row["method"], row["grid"], row[column]) for row in some if row["method"] in names), key=lambda found: found[-1])

            method, grid, error = least(*(name for name in OURS[source] if name != "first-hitting"))
            _, peer_grid, peer = least(PLAIN)
            case = {"source": source, "data": data, "calls": calls, "t": t, "genmatch": method, "grid": grid, "error": error}
            yield case | {"flow_matching": peer, "its grid": peer_grid, "as called": least(PEER)[-1], "ratio": error / peer}


def agreement(source: str, data: str, n: int) -> Iterator[dict[str, Any]]:
    """How far draws of the real solver are from its kernel, and how far noise alone would take them."""
    exact, _ = toy(source, data)
    for t in (0.5, 1.0):
        kernel = theirs(exact, "uniform", 16, t, jump=True)
        noise = float((kernel * (1 - kernel) / n).sqrt().sum()) * math.sqrt(2 / math.pi) / 2
        gap = float((kernel - drawn(exact, 16, t, n)).abs().sum() / 2)
        yield {"source": source, "data": data, "t": t, "draws": n, "draws to kernel": gap, "expected of noise": noise}


def main() -> None:
    """Measures, and prints the ratio of the best errors, all errors, and how far the draws are from the kernel."""
    chosen = options(__doc__)
    toys = list(itertools.product(OURS, ("weak", "strong")))
    errors = [row for names in toys for row in distances(*names)]
    draws = [row for names in toys for row in agreement(*names, 20_000 if chosen.quick else 200_000)]
    finish(chosen, best=list(best(errors)), errors=errors, draws=draws)


if __name__ == "__main__":
    main()
