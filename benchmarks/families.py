"""Families on digits with several seeds: `python benchmarks/families.py --seeds 5`.

The comparison of `genmatch compare` for each seed, joined as `genmatch report` joins: the mean over seeds of the best Frechet distance of
each family over that of the training split, with its interval of 95 %. A run that is stopped goes on where it was, with the same `--out`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import finish

import genmatch as gm
from genmatch.compare import Study

FAMILIES = ("flow", "diffusion", "jump", "flow+jump", "mask", "uniform", "uniform-reversal", "metric")


def main() -> None:
    """Compares, prints a table and, with `--json`, writes a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2500, help="of training, for each family")
    parser.add_argument("--nfe", type=int, nargs="*", default=[16, 64], help="network calls a sample")
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--json", type=Path, default=None)
    chosen = parser.parse_args()
    places = [chosen.out / f"seed-{seed}" for seed in range(chosen.seeds)]
    plans = [gm.compare.Plan("digits", processes=FAMILIES, steps=chosen.steps, nfe=tuple(chosen.nfe), seed=seed) for seed in range(chosen.seeds)]
    study = Study([gm.compare(plan, place, say=print) for plan, place in zip(plans, places, strict=True)], [str(place) for place in places])
    finish(chosen, families=[row(line, chosen.steps) for line in study.ranked])


def row(line, steps: int) -> dict[str, object]:
    """What a family reached: figures with half of their intervals."""
    distance, training = line.over_floor(), line.training
    return {
        "family": line.name,
        "seeds": len(line.seeds),
        "steps": steps,
        "calls": line.best,
        "Frechet distance / floor": distance.value,
        "±": distance.half,
        "least": min(one["frechet"] for one in line.rows(line.best)) / line.floor,
        "most": max(one["frechet"] for one in line.rows(line.best)) / line.floor,
        "seconds of training": training.value,
    }


if __name__ == "__main__":
    main()
