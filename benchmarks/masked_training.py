"""What training on masked positions alone saves: `python benchmarks/masked_training.py`.

One step of training of a masked chain with V = 50,257 tokens, forwards and back, on one 4-layer transformer of width 256 and one
batch: as `gm.train` does it, with the head on the masked positions alone, and by the usual recipe, in which the network returns all
logits and the cross-entropy of the masked positions is taken of them. Time of the processor and the most memory beyond what was there
before the step, measured in turn in one process; medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from discrete_sampling import medians, peak
from torch import Tensor

import genmatch as gm
from genmatch.models import Predictor
from genmatch.nn import Transformer
from genmatch.training import loss_on
from genmatch.training.objectives import low_discrepancy_times

VOCAB = 50_257
TARGET = {"time": 0.8, "peak": 0.75}


class Case:
    """A chain, its network and a batch."""

    def __init__(self, batch: int, length: int) -> None:
        torch.manual_seed(0)
        self.process = gm.CTMC(gm.paths.Mixture((length,), vocab_size=VOCAB))
        self.net = Transformer(self.process.space, self.process.output_shape, width=256, depth=4, heads=4)
        torch.nn.init.normal_(self.net.head.weight, std=0.02)
        self.x1 = torch.randint(VOCAB, (batch, length))

    def masked(self) -> Tensor:
        """The loss of `gm.train`."""
        return loss_on(self.process, self.net, self.x1, {}, rng=torch.Generator().manual_seed(0))

    def full(self) -> Tensor:
        """The same loss from all logits."""
        rng = torch.Generator().manual_seed(0)
        t = low_discrepancy_times(len(self.x1), 0.0, rng=rng)
        x0 = self.process.path.start(self.x1, {}, rng=rng)
        x = self.process.path.sample(self.x1, t, x0=x0, rng=rng)
        logits = Predictor(self.process, self.net)(x, t)
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, -2), self.x1.flatten(), reduction="none")
        return (nats * (x == self.process.path.space.mask_id).flatten()).sum() / self.x1.numel()

    def step(self, loss: Callable[[], Tensor]) -> Callable[[], None]:
        """Forwards and back."""

        def run() -> None:
            self.net.zero_grad(set_to_none=True)
            loss().backward()

        return run


def main() -> None:
    """Measures, and prints a table and, with `--json`, writes a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    case = Case(options.batch, options.length)
    torch.testing.assert_close(case.masked(), case.full())
    runs = {"all logits": case.step(case.full), "masked only": case.step(case.masked)}
    times = medians(runs, options.repeats)
    peaks = {}
    for name, run in runs.items():
        case.net.zero_grad(set_to_none=True)
        peaks[name] = peak(run)
    unit = options.batch * options.length * VOCAB * 4
    print(f"V = {VOCAB}, L = {options.length}, batch {options.batch}, {options.threads} thread(s), torch {torch.__version__}; medians of {options.repeats}")
    for name in runs:
        print(f"{name:14}{times[name]:10.2f} s{peaks[name] / unit:10.2f} tensors (B, L, V)")
    ratios = {"time": times["masked only"] / times["all logits"], "peak": peaks["masked only"] / peaks["all logits"]}
    met = {name: ratios[name] <= TARGET[name] for name in TARGET}
    print(f"ratios {', '.join(f'{name} {value:.3f}' for name, value in ratios.items())}; targets {TARGET}: {met}")
    if options.json:
        options.json.write_text(json.dumps({"seconds": times, "peak_bytes": peaks, "ratios": ratios, "targets_met": met}, indent=1))
    sys.exit(0 if all(met.values()) else 1)


if __name__ == "__main__":
    main()
