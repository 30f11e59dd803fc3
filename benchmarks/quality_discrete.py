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

import torch
from common import finish, options
from token_kernels import Chain, joint, redraw

import genmatch as gm
from tests.toys import V, chain, token_data, token_law, token_marginal

CALLS, TIMES = (4, 8, 16, 32), (0.25, 0.5, 0.9, 1.0)
OURS = {
    "mask": ("exact", "tau-leaping", "analytic-trapezoid", "theta-trapezoidal", "first-hitting"),
    "uniform": ("exact", "tau-leaping", "analytic-trapezoid", "theta-trapezoidal"),
}


def toy(source: str, data: str) -> tuple[Chain, torch.Tensor]:
    """A chain with its exact network, and the law of the data."""
    process, law = chain(source), token_law(data)
    return Chain(process, gm.oracle(process, token_data(), law)), law


def exact_law(source: str, law: torch.Tensor, t: float) -> torch.Tensor:
    """p_t over all states."""
    return token_marginal(source, t, law)


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


def drawn(exact: Chain, source: str, calls: int, end: float, n: int) -> torch.Tensor:
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


def main() -> None:
    """Measures, and prints the errors, the ratio of the best ones, and how far the draws are from the kernel."""
    chosen = options(__doc__)
    errors, best, checks = [], [], []
    n = 20_000 if chosen.quick else 200_000
    for source, names in OURS.items():
        for data in ("weak", "strong"):
            exact, law = toy(source, data)
            laws = {t: exact_law(source, law, t) for t in TIMES}

            def distance(p, t, laws=laws):
                return float((p - laws[t]).abs().sum() / 2)

            for calls in CALLS:
                case = {"source": source, "data": data, "calls": calls}
                table = {
                    ("genmatch", name): [distance(ours(exact, name, calls, t), t) for t in TIMES] for name in names if name != "first-hitting" or calls >= 3
                }
                table["flow_matching", "MixtureDiscreteEulerSolver"] = [distance(theirs(exact, calls, t, jump=True), t) for t in TIMES]
                table["flow_matching", "the same, without its jump"] = [distance(theirs(exact, calls, t, jump=False), t) for t in TIMES]
                errors += [
                    case | {"package": package, "method": name} | dict(zip((f"t={t:g}" for t in TIMES), values, strict=True))
                    for (package, name), values in table.items()
                ]
                for i, t in enumerate(TIMES):
                    # First-hitting makes no error of the step: the comparison is among those that do.
                    own = min((values[i], name) for (package, name), values in table.items() if package == "genmatch" and name != "first-hitting")
                    peer = table["flow_matching", "the same, without its jump"][i]
                    best.append(
                        case
                        | {
                            "t": t,
                            "genmatch": own[1],
                            "error": own[0],
                            "flow_matching": peer,
                            "as called": table["flow_matching", "MixtureDiscreteEulerSolver"][i],
                            "ratio": own[0] / peer,
                        }
                    )
            for t in (0.5, 1.0):
                kernel, frequencies = theirs(exact, 16, t, jump=True), drawn(exact, source, 16, t, n)
                noise = float((kernel * (1 - kernel) / n).sqrt().sum()) * math.sqrt(2 / math.pi) / 2
                checks.append(
                    {
                        "source": source,
                        "data": data,
                        "t": t,
                        "draws": n,
                        "draws to kernel": float((kernel - frequencies).abs().sum() / 2),
                        "expected of noise": noise,
                        "V": V,
                    }
                )
    finish(chosen, errors=errors, best=best, draws=checks)


if __name__ == "__main__":
    main()
