"""What sampling tokens costs beyond the network: `python benchmarks/discrete_sampling.py`.

A masked chain with V = 50,257 tokens is sampled in 16 steps by a 4-layer transformer of width 256, once with its parts
`features` and `head`, once as a whole. The unit of time is as many bare forward passes as there are steps, of memory one
(B, L, V) float32 tensor. All are measured in turn in one process, on the same network and states, and the medians are
printed; then how the time grows with the steps and the vocabulary. flow_matching is measured beside them, if it is installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import genmatch as gm
from genmatch.nn import Transformer

LENGTH, BATCH, STEPS, VOCAB = 256, 4, 16, 50_257
TARGETS = {"split": (0.25, 0.1), "whole": (1.1, 1.5)}


class Whole(torch.nn.Module):
    """A network without parts."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.net(x, t)


class Case:
    """One chain with its network, and what is measured on it."""

    def __init__(self, vocab: int, steps: int) -> None:
        torch.manual_seed(0)
        self.process = gm.CTMC(gm.paths.Mixture((LENGTH,), vocab_size=vocab))
        self.net = Transformer(self.process.space, self.process.output_shape, width=256, depth=4, heads=4).eval()
        torch.nn.init.normal_(self.net.head.weight, std=0.05)
        self.vocab, self.steps = vocab, steps
        self.x = self.process.path.source(BATCH)

    @torch.no_grad()
    def forward(self, times: int = 1) -> None:
        """Bare forward passes, each of whose outputs is dropped at once."""
        for i in range(times):
            self.net(self.x, torch.full((BATCH,), i / self.steps))

    @torch.no_grad()
    def features(self) -> None:
        """A pass up to the head."""
        self.net.features(self.x, torch.zeros(BATCH))

    def sample(self, model: torch.nn.Module, solver: str = "exact") -> None:
        """Samples from noise to data."""
        gm.sample(self.process, model, BATCH, steps=self.steps, solver=solver, seed=0)

    def peer(self) -> Callable[[], None] | None:
        """The mask sampler of flow_matching, or None if it is not installed."""
        try:
            from flow_matching.path import MixtureDiscreteProbPath
            from flow_matching.path.scheduler import CondOTScheduler
            from flow_matching.solver import MixtureDiscreteEulerSolver
            from flow_matching.utils import ModelWrapper
        except ImportError:
            return None

        class Wrapped(ModelWrapper):
            def forward(self, x: torch.Tensor, t: torch.Tensor, **extras: object) -> torch.Tensor:
                # It counts the mask as a token of the data, of probability zero.
                logits = self.model(x, t.expand(len(x)))
                return torch.nn.functional.pad(logits.softmax(-1), (0, 1))

        solver = MixtureDiscreteEulerSolver(Wrapped(self.net), MixtureDiscreteProbPath(CondOTScheduler()), self.vocab + 1)
        return lambda: solver.sample(self.x, step_size=1 / self.steps, time_grid=torch.tensor([0.0, 1.0]))


def seconds(run: Callable[[], None]) -> float:
    """Time of the processor in one run: on one thread that is the wall time, less what others on the machine take."""
    start = time.process_time()
    run()
    return time.process_time() - start


def peak(run: Callable[[], None]) -> int:
    """The most memory that a run holds at a time beyond what was there before, bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    held = most = 0
    events = watched.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def medians(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """The median time of each, measured in turn after a round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            spent = seconds(run)
            if round_:
                taken[name].append(spent)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Measures, and prints a table and, with `--json`, a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--solvers", action="store_true", help="also other solvers, of which first-hitting makes a call a position")
    parser.add_argument("--curves", action="store_true", help="also how the time grows with the steps and the vocabulary")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    case = Case(VOCAB, STEPS)
    runs: dict[str, Callable[[], None]] = {
        "forward passes": lambda: case.forward(STEPS),
        "split": lambda: case.sample(case.net),
        "whole": lambda: case.sample(Whole(case.net)),
    }
    if options.solvers:
        runs |= {f"split, {name}": lambda name=name: case.sample(case.net, name) for name in ("confidence", "analytic-trapezoid", "first-hitting")}
    if (peer := case.peer()) is not None:
        runs["flow_matching"] = peer
    times = medians(runs, options.repeats)
    unit = BATCH * LENGTH * VOCAB * 4
    forward, features = peak(case.forward), peak(case.features)
    rows = {}
    print(f"V = {VOCAB}, L = {LENGTH}, batch {BATCH}, {STEPS} steps, {options.threads} thread(s), torch {torch.__version__}; medians of {options.repeats}")
    print(f"{'':28}{'time, x passes':>16}{'peak, tensors':>16}{'above a pass':>14}{'above features':>16}")
    for name, run in runs.items():
        most = peak(run)
        row = {"time": times[name] / times["forward passes"], "peak": most / unit, "above": (most - forward) / unit, "above_features": (most - features) / unit}
        rows[name] = row
        print(f"{name:28}{row['time']:16.3f}{row['peak']:16.3f}{row['above']:14.3f}{row['above_features']:16.3f}")
    met = {name: rows[name]["time"] <= t and rows[name]["above_features" if name == "split" else "above"] <= m for name, (t, m) in TARGETS.items()}
    print(f"targets {TARGETS}: {met}")
    result = {"rows": rows, "seconds": times, "targets_met": met}
    if options.curves:
        result["curves"] = curves(options.repeats)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    sys.exit(0 if all(met.values()) else 1)


def curves(repeats: int) -> list[dict[str, float]]:
    """The time against the steps at V = 50,257, and against V at 16 steps; in passes of the same network."""
    rows = []
    print(f"{'V':>8}{'steps':>8}{'split, passes':>16}{'whole, passes':>16}")
    for vocab, steps in [*((VOCAB, steps) for steps in (4, 16, 64)), *((vocab, STEPS) for vocab in (64, 1024, 8192))]:
        case = Case(vocab, steps)
        runs = {"pass": case.forward, "split": lambda c=case: c.sample(c.net), "whole": lambda c=case: c.sample(Whole(c.net))}
        times = medians(runs, max(1, repeats // 2))
        row = {"vocab": vocab, "steps": steps, "split": times["split"] / times["pass"], "whole": times["whole"] / times["pass"]}
        rows.append(row)
        print(f"{vocab:8}{steps:8}{row['split']:16.2f}{row['whole']:16.2f}")
    return rows


if __name__ == "__main__":
    main()
