"""What the loop and the solver cost beyond the network: `python benchmarks/overhead.py`.

*Share*: a network that takes 5 ms a call, sampled in 32 steps, against 32 bare calls of it. *Own cost*: a network that returns what it
has, at 220 and at 20 steps; the difference is 200 steps, without what is done once. A batch of 16 states of 16 coordinates, or of 16 tokens.
Processor time on one thread. flow_matching's solvers do the same work beside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from common import finish, medians, options

import genmatch as gm

BATCH, SIZE, VOCAB, SLOW, STEPS = 16, 16, 8, 0.005, 32


class Busy:
    """A network that keeps the processor busy for `seconds`, and returns what it has.

    Args:
        output: for states of (B, ...), what is returned.
        seconds: how long a call takes.
    """

    def __init__(self, output: Callable[[torch.Tensor], torch.Tensor], seconds: float = 0.0) -> None:
        self.output, self.seconds = output, seconds

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **extras: object) -> torch.Tensor:
        """The output, when the time has passed."""
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        return self.output(x)


class Head(torch.nn.Module):
    """Probabilities as flow_matching wants them, from logits; a module, as its solver asks for one."""

    def __init__(self, network: Busy) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, t: torch.Tensor, **extras: object) -> torch.Tensor:
        """Of data tokens and the mask, which is never drawn."""
        return torch.nn.functional.pad(self.network(x, t).softmax(-1), (0, 1))


LOGITS = torch.randn(BATCH, SIZE, VOCAB, generator=torch.Generator().manual_seed(0))


def still(x: torch.Tensor) -> torch.Tensor:
    """A velocity, or a prediction of the data."""
    return x


def tokens(x: torch.Tensor) -> torch.Tensor:
    """Logits of some or all rows."""
    return LOGITS[: len(x)]


def both(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of a vector and of tokens."""
    return {"vector": x["vector"], "words": tokens(x["words"])}


def cases() -> dict[str, tuple[gm.MarkovProcess, Callable[[torch.Tensor], torch.Tensor], str]]:
    """By name a process, what its network returns and a solver."""
    path = gm.paths.Gaussian((SIZE,))
    flow, diffusion = gm.Flow(path), gm.Diffusion(path)
    mask, uniform = (gm.CTMC(gm.paths.Mixture((SIZE,), vocab_size=VOCAB, source=source)) for source in ("mask", "uniform"))
    table: dict[str, Any] = {f"flow, {name}": (flow, still, name) for name in ("exact", "euler", "midpoint", "2m", "adams", "circle-rk4")}
    table |= {"diffusion, exact": (diffusion, still, "exact"), "diffusion, euler-maruyama": (diffusion, still, "euler-maruyama")}
    table |= {
        "mask, exact": (mask, tokens, "exact"),
        "uniform, exact": (uniform, tokens, "exact"),
        "mask, analytic-trapezoid": (mask, tokens, "analytic-trapezoid"),
    }
    levels = torch.linspace(-1, 1, VOCAB)
    jump, level_flow = gm.JumpProcess(path, levels), gm.LevelFlow(path, levels)
    reversal = gm.CTMC(gm.paths.Mixture((SIZE,), vocab_size=VOCAB, source="uniform"), rates="reversal")
    metric = gm.CTMC(gm.paths.Metric((SIZE,), vocab_size=VOCAB))
    return table | {
        "uniform-reversal, exact": (reversal, tokens, "exact"),
        "metric, euler": (metric, tokens, "euler"),
        "autoregressive, left-to-right": (gm.processes.Autoregressive(gm.paths.Sequential(SIZE, VOCAB)), tokens, "left-to-right"),
        "jump, euler": (jump, tokens, "euler"),
        "flow+jump, euler": (gm.Superposition([level_flow, jump], [0.5, 0.5], heads="shared"), tokens, "euler"),
        "product of flow and mask, exact": (gm.Product(vector=flow, words=mask), both, "exact"),
        "flow on a sphere, exact": (gm.Flow(gm.paths.Geodesic(gm.spaces.Sphere(2))), still, "exact"),
    }


def peer_flow(network: Busy, steps: int) -> None:
    """Euler steps of flow_matching."""
    from flow_matching.solver import ODESolver

    ODESolver(network).sample(torch.randn(BATCH, SIZE), step_size=1 / steps, method="euler")


def peer_tokens(network: Busy, steps: int) -> None:
    """Steps of flow_matching's solver for tokens."""
    from flow_matching.path import MixtureDiscreteProbPath
    from flow_matching.path.scheduler import CondOTScheduler
    from flow_matching.solver import MixtureDiscreteEulerSolver

    solver = MixtureDiscreteEulerSolver(Head(network), MixtureDiscreteProbPath(CondOTScheduler()), VOCAB + 1)
    solver.sample(torch.full((BATCH, SIZE), VOCAB), step_size=1 / steps)


def main() -> None:
    """Measures, and prints a table."""
    chosen = options(__doc__)
    runs: dict[str, tuple[str, Callable[[Busy, int], object], Callable[[torch.Tensor], torch.Tensor], int]] = {}
    for name, (process, output, solver) in cases().items():
        sample = lambda network, steps, p=process, s=solver: gm.sample(p, network, BATCH, steps=steps, solver=s, seed=0)  # noqa: E731
        runs[name] = ("genmatch", sample, output, gm.solvers.get(solver).calls)
    runs |= {"flow, euler ": ("flow_matching", peer_flow, still, 1), "mask, euler": ("flow_matching", peer_tokens, tokens, 1)}
    start, alone = torch.zeros(BATCH, SIZE), Busy(still, SLOW)
    rows, repeats = [], 3 if chosen.quick else 9
    for name, (package, run, output, calls) in runs.items():
        free, slow = Busy(output), Busy(output, SLOW)
        made = Counted(slow)
        run(made, STEPS)
        short = medians({"20": lambda r=run, f=free: r(f, 20), "220": lambda r=run, f=free: r(f, 220)}, repeats)
        bare = lambda m=made: [alone(start, start) for _ in range(m.calls)]  # noqa: E731
        whole = medians({"run": lambda r=run, s=slow: r(s, STEPS), "bare": bare}, repeats)
        own = (short["220"] - short["20"]) / 200
        rows.append(
            {"package": package, "what": name.strip(), "calls a step": calls, "own cost, ms a step": 1e3 * own}
            | {"own cost, ms a run": 1e3 * (short["20"] - 20 * own), f"share of {STEPS} steps at 5 ms, %": 100 * (whole["run"] / whole["bare"] - 1)}
        )
    finish(chosen, overhead=rows)


class Counted:
    """A network whose calls are counted."""

    def __init__(self, network: Busy) -> None:
        self.network, self.calls = network, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **extras: object) -> torch.Tensor:
        """The network's output."""
        self.calls += 1
        return self.network(x, t)


if __name__ == "__main__":
    main()
