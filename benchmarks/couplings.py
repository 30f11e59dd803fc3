"""How much of a batch a coupling uses: `python benchmarks/couplings.py`.

One batch of data and one of noise are paired. The share of the data points, and of the noise, that occur in the pairs; the mean squared
distance of the pairs, in that of independent ones; and the time. torchcfm draws its pairs from the exact plan with replacement.
"""

from __future__ import annotations

import time
import warnings

import torch
from common import finish, options

import genmatch as gm

DIM = 16


def used(points: torch.Tensor, of: torch.Tensor) -> float:
    """Percentage of the rows `of` that occur among `points`."""
    return 100 * len(points.unique(dim=0)) / len(of)


def main() -> None:
    """Measures, and prints a table."""
    chosen = options(__doc__)
    rows = []
    for batch in (128, 512) if chosen.quick else (128, 512, 2048):
        rng = torch.Generator().manual_seed(0)
        centres = 2 * torch.randn(8, DIM, generator=rng)
        x1 = centres[torch.randint(8, (batch,), generator=rng)] + 0.5 * torch.randn(batch, DIM, generator=rng)
        x0 = torch.randn(batch, DIM, generator=rng)
        space = gm.spaces.Euclidean((DIM,))
        apart = float((x0 - x1).square().sum(-1).mean())
        for package, name, pair in (
            ("genmatch", "OptimalTransport()", lambda x0=x0, x1=x1, s=space: (gm.couplings.OptimalTransport().pair(x0, x1, s, {}), x1)),
            ("genmatch", "Sinkhorn(1.0)", lambda x0=x0, x1=x1, s=space, r=rng: (gm.couplings.Sinkhorn(1.0).pair(x0, x1, s, {}, rng=r), x1)),
            ("torchcfm", 'OTPlanSampler("exact")', lambda x0=x0, x1=x1: theirs(x0, x1)),
        ):
            start = time.process_time()
            paired0, paired1 = pair()
            taken = time.process_time() - start
            rows.append(
                {"batch": batch, "package": package, "coupling": name, "data used, %": used(paired1, x1), "noise used, %": used(paired0, x0)}
                | {"squared distance": float((paired0 - paired1).square().sum(-1).mean()) / apart, "ms": 1e3 * taken}
            )
    finish(chosen, couplings=rows)


def theirs(x0: torch.Tensor, x1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of torchcfm."""
    from torchcfm.optimal_transport import OTPlanSampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OTPlanSampler(method="exact").sample_plan(x0, x1)


if __name__ == "__main__":
    main()
