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


def toy(source: str, data: str) -> tuple[Chain, torch.Tensor]:
    """A chain with its exact network, and the law of the data."""
    process, law = chain(source), token_law(data)
    return Chain(process, gm.oracle(process, token_data(), law)), law


def ours(exact: Chain, name: str, calls: int, end: float) -> torch.Tensor:
    """The law at the end, for a solver that is one call a position or of a fixed number of calls a step."""
    steps = 1 if name == "first-hitting" else max(1, calls // gm.solvers.get(name).calls)
    return exact.law(name, torch.linspace(0, end, steps + 1, dtype=torch.float64).tolist())[-1]


def theirs(exact: Chain, calls: int, end: float, *, jump: bool) -> torch.Tensor:
    """The law after the steps of flow_matching: a token leaves for x1 with probability 1 - exp(-h rate), where they differ."""
    p = joint(exact.source)
    times = torch.linspace(0, end, calls + 1, dtype=torch.float64).tolist()
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


def distances(source: str, data: str) -> list[dict[str, Any]]:
    """A row for each method and budget, with the distance at each time."""
    exact, law = toy(source, data)
    laws = {t: token_marginal(source, t, law) for t in TIMES}
    out = []
    for calls in CALLS:
        # First-hitting makes a call a position.
        table = {
            ("genmatch", name): [ours(exact, name, calls, t) for t in TIMES] for name in OURS[source] if name != "first-hitting" or calls >= exact.x.shape[1]
        }
        table |= {("flow_matching", name): [theirs(exact, calls, t, jump=name == PEER) for t in TIMES] for name in (PEER, PLAIN)}
        for (package, name), found in table.items():
            errors = {f"t={t:g}": float((p - laws[t]).abs().sum() / 2) for t, p in zip(TIMES, found, strict=True)}
            out.append({"source": source, "data": data, "calls": calls, "package": package, "method": name} | errors)
    return out


def best(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The least error of genmatch, among solvers that make one, beside that of flow_matching, for each case."""
    for (source, data, calls), group in itertools.groupby(rows, key=lambda row: (row["source"], row["data"], row["calls"])):
        errors = {row["method"]: row for row in group if row["method"] != "first-hitting"}
        for t in TIMES:
            column = f"t={t:g}"
            own = min((row for row in errors.values() if row["package"] == "genmatch"), key=lambda row: row[column])
            peer = errors[PLAIN][column]
            case = {"source": source, "data": data, "calls": calls, "t": t, "genmatch": own["method"], "error": own[column]}
            yield case | {"flow_matching": peer, "as called": errors[PEER][column], "ratio": own[column] / peer}


def agreement(source: str, data: str, n: int) -> Iterator[dict[str, Any]]:
    """How far draws of the real solver are from its kernel, and how far noise alone would take them."""
    exact, _ = toy(source, data)
    for t in (0.5, 1.0):
        kernel = theirs(exact, 16, t, jump=True)
        noise = float((kernel * (1 - kernel) / n).sqrt().sum()) * math.sqrt(2 / math.pi) / 2
        gap = float((kernel - drawn(exact, 16, t, n)).abs().sum() / 2)
        yield {"source": source, "data": data, "t": t, "draws": n, "draws to kernel": gap, "expected of noise": noise}


def main() -> None:
    """Measures, and prints the ratio of the best errors, all errors, and how far the draws are from the kernel."""
    chosen = options(__doc__)
    cases = list(itertools.product(OURS, ("weak", "strong")))
    errors = [row for case in cases for row in distances(*case)]
    draws = [row for case in cases for row in agreement(*case, 20_000 if chosen.quick else 200_000)]
    finish(chosen, best=list(best(errors)), errors=errors, draws=draws)


if __name__ == "__main__":
    main()
