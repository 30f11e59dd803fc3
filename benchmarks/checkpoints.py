"""What checkpoints cost: time of the same training with and without one each 50 steps.

    python benchmarks/checkpoints.py [folder on the disk to measure]

The time that `Saver.save` takes is compared with the rest: two runs would differ by more on a machine that does other work too.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import genmatch as gm
from genmatch.training.saving import Saver

STEPS, EVERY = 300, 50


def main(where: str | None) -> None:
    """Prints the share of the time that went into saving, and how long a checkpoint took."""
    torch.set_num_threads(1)
    process = gm.Flow(gm.paths.Gaussian((64,)))
    data = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    spent: list[float] = []
    save = Saver.save

    def timed(self: Saver, *arguments: object) -> None:
        start = time.perf_counter()
        save(self, *arguments)
        spent.append(time.perf_counter() - start)

    Saver.save = timed
    for width in (128, 256, 512):
        spent.clear()
        torch.manual_seed(0)
        model = gm.nn.MLP(process.space, process.output_shape, width=width, depth=3)
        size = sum(p.numel() for p in model.parameters())
        with tempfile.TemporaryDirectory(dir=where) as folder:
            seconds = gm.train(process, model, data, steps=STEPS, checkpoint=Path(folder) / "run", every=EVERY, seed=0).seconds
        # `seconds` is taken before the last checkpoint is written.
        share = sum(spent[:-1]) / (seconds - sum(spent[:-1]))
        print(f"{size / 1e6:.2f} M parameters: {1e3 * statistics.median(spent):.1f} ms a checkpoint, {1e3 * seconds / STEPS:.2f} ms a step, {share:+.1%}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
