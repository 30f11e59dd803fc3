r"""Training on two processes, to the same numbers

What is random in a step is drawn from the seed and the step for the *whole* batch, and each process works on its rows of it:

$$
\nabla L = \sum_{r} \nabla L_{\text{rows of process } r} .
$$

So the script that runs alone runs under `torchrun` as it is, with the losses of one process up to the order of additions. This one starts itself again, twice.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from picture import BLUE, ORANGE, claim, panels, save, size

import genmatch as gm

STEPS = size(400, 12)


def train(metrics):
    torch.manual_seed(0)
    process = gm.CTMC(gm.paths.Mixture((12,), vocab_size=4))
    network = gm.nn.MLP(process.space, process.output_shape, width=64, depth=2).double()
    gm.train(process, network, gm.data.get("chain").view("tokens").train, steps=STEPS, lr=3e-3, seed=0, metrics=metrics)


def losses(metrics):
    return torch.tensor([json.loads(line)["loss"] for line in metrics.read_text().splitlines()], dtype=torch.float64)


def main():
    with tempfile.TemporaryDirectory() as folder:
        alone, together = Path(folder) / "alone.jsonl", Path(folder) / "together.jsonl"
        train(alone)
        flags = [word for word in sys.argv[1:] if word.startswith("--")]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        subprocess.run([*torchrun, __file__, str(together), *flags], check=True, capture_output=True)
        one, two = losses(alone), losses(together)
    claim("largest difference of a loss between one process and two", (one - two).abs().max(), below=1e-9)
    claim("loss at the end, over that at the start", one[-5:].mean() / one[:5].mean(), below=1)

    figure, (above, below) = panels(1, 2, width=5.8, height=1.9, title="Two processes train to the numbers of one", sharex=True)
    above.plot(one, color=BLUE, linewidth=2.4, alpha=0.5, label="one process")
    above.plot(two, color=ORANGE, linewidth=0.8, label="two processes")
    above.set(ylabel="loss a token, nats")
    above.legend(frameon=False, fontsize=8)
    below.semilogy((one - two).abs().clamp(min=1e-18), ".", color="black", markersize=2)
    below.set(xlabel="step", ylabel="difference", ylim=(1e-18, 1e-8))
    save(figure)


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(Path(sys.argv[1]))
    else:
        main()
