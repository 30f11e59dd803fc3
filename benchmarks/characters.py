"""Diffusion against writing from left to right, on characters: `python benchmarks/characters.py [text.txt]`.

Families are trained on one text with one transformer of equal size and one budget of processor time each, and give bits a character
of the held-out tenth: of the mask and of reversal rates as tight bounds, of the autoregressive model exactly. Then they write, which
is timed. The text of the package is the default; the budget is small by default too, far from where these models converge.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import genmatch as gm
from genmatch.data.corpus import text
from genmatch.data.dataset import DataSet
from genmatch.nn import Transformer
from genmatch.paths import Blocks, Sequential
from genmatch.processes import MarkovProcess
from genmatch.training import train

_TRIAL = 8


def families(length: int, vocab: int, block: int) -> dict[str, MarkovProcess]:
    """What is compared."""
    uniform = gm.paths.Mixture((length,), vocab, source="uniform")
    return {
        "autoregressive": gm.processes.Autoregressive(Sequential(length, vocab)),
        "block": gm.processes.BlockDiffusion(Blocks(length, vocab, block)),
        "mask": gm.CTMC(gm.paths.Mixture((length,), vocab)),
        "uniform, posterior": gm.CTMC(uniform, prediction="posterior", rates="reversal"),
        "uniform, cavity": gm.CTMC(uniform, prediction="cavity", rates="reversal"),
    }


def network(process: MarkovProcess, options: argparse.Namespace) -> Transformer:
    """A fresh network from the seed."""
    torch.manual_seed(options.seed)
    return Transformer(process.space, process.output_shape, width=options.width, depth=options.depth, **process.network)


def measure(process: MarkovProcess, data: DataSet, options: argparse.Namespace) -> dict[str, Any]:
    """Trains one family and measures it."""
    settings = {"batch_size": options.batch, "lr": options.lr, "objective": options.objective or process.objective, "seed": options.seed}
    for steps in (2, _TRIAL):  # the first calls of a process are slower
        start = time.process_time()
        train(process, network(process, options), data.train, steps=steps, **settings)
    each = (time.process_time() - start) / _TRIAL
    steps = max(1, round(60 * options.minutes / each))
    model = network(process, options)
    start = time.process_time()
    result = train(process, model, data.train, steps=steps, ema=min(0.999, 1 - 10 / (steps + 10)), **settings)
    seconds = time.process_time() - start
    found = gm.elbo(process, result.model, data.test[: options.windows], draws=options.draws, seed=options.seed)
    start = time.process_time()
    samples = gm.sample(process, result.model, options.samples, steps=options.length, seed=options.seed)
    writing = time.process_time() - start
    return {
        "bits": found.bits_per_coordinate,
        "error": found.bits_error,
        "kind": found.kind,
        "steps": steps,
        "seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "calls": options.length,
        "characters_a_second": samples.numel() / writing,
        "figures": {figure.key: figure.of(samples, None) for figure in data.figures},
        "process": repr(process),
    }


def main() -> None:
    """Measures, and prints a table and, with `--json`, writes a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=None, help="a text file in UTF-8; the package's own text by default")
    parser.add_argument("--minutes", type=float, default=2.0, help="of processor time, for each family")
    parser.add_argument("--only", nargs="*", default=None, help="names of the families to measure")
    for name, default in {
        "length": 64,
        "width": 64,
        "depth": 2,
        "batch": 32,
        "block": 8,
        "windows": 256,
        "draws": 16,
        "samples": 64,
        "threads": 1,
        "seed": 0,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--objective", default=None, help="of training; what each process recommends by default")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = text(options.path, length=options.length)
    vocab = data.views[0].space.vocab_size
    result: dict[str, Any] = {"settings": {**vars(options), "path": options.path.name if options.path else "packaged", "json": None}, "rows": {}}
    print(f"{'':20}{'bits a character':>20}{'steps':>8}{'characters/s':>14}{'real words':>12}  kind")
    for name, process in families(options.length, vocab, options.block).items():
        if options.only and name not in options.only:
            continue
        row = result["rows"][name] = measure(process, data, options)
        bits = f"{row['bits']:.3f} ± {row['error']:.3f}"
        print(f"{name:20}{bits:>20}{row['steps']:8}{row['characters_a_second']:14.0f}{row['figures']['words']:12.1%}  {row['kind']}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
