"""How far samples are from held-out data: quality, diversity, memorisation.

Sources: the Frechet distance of Gaussian fits, "GANs Trained by a Two Time-Scale Update Rule" (Heusel et al., 2017),
https://arxiv.org/abs/1706.08500; coverage, "Reliable Fidelity and Diversity Metrics" (Naeem et al., 2020),
https://arxiv.org/abs/2002.09797.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.compare.features import Extractor, Measure
from genmatch.data.dataset import DataSet, euclidean
from genmatch.errors import GenmatchError, checked_seed

_DRAWS = 100
"""Times that the samples are drawn again for a standard error: it is known to 7 % then."""


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussian fits of two sets of features, (N, F) and (M, F).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)); not negative, zero for equal moments. It shrinks with N, so compare it
    only at equal N and M.
    """
    if len(a) < 2 or len(b) < 2:
        raise GenmatchError(f"the Frechet distance needs at least 2 points on each side, got {len(a)} and {len(b)}.")
    return float(_distances(a.double().unsqueeze(0), b.double()))


def frechet_error(a: Tensor, b: Tensor, *, draws: int = _DRAWS, seed: int = 0) -> float:
    """Standard error of `frechet_distance` for the draw of `a`, with `b` as it is: the bootstrap over the points of `a`.

    The spread of the distance over sets of N points drawn from `a` with replacement. Their mean is not used: drawing again
    adds noise, which shifts the distance up.
    """
    rng = torch.Generator().manual_seed(checked_seed(seed))
    rows = [torch.randint(len(a), (len(a),), generator=rng) for _ in range(draws)]
    return float(torch.cat([_distances(a.double()[row].unsqueeze(0), b.double()) for row in rows]).std())


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """The distance of each of several sets of points, (K, N, F), from one, (M, F): (K,)."""
    gap = (a.mean(1) - b.mean(0)).square().sum(-1)
    centred = a - a.mean(1, keepdim=True)
    one, two = centred.mT @ centred / (a.shape[1] - 1), torch.cov(b.T).reshape(b.shape[1], -1)
    # tr (S_a S_b)^(1/2) from the symmetric product with the same eigenvalues.
    values, vectors = torch.linalg.eigh(two)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ one @ root).clamp(min=0).sqrt().sum(-1)
    return (gap + one.diagonal(dim1=-2, dim2=-1).sum(-1) + two.trace() - 2 * cross).clamp(min=0)


def coverage(samples: Tensor, real: Tensor, k: int = 5) -> float:
    """Share of real points whose ball out to their k-th real neighbour holds a sample."""
    k = min(k, len(real) - 1)
    radius = torch.cdist(real, real).kthvalue(k + 1, dim=-1).values
    return float((torch.cdist(real, samples).min(-1).values <= radius).double().mean())


def nearest_distance(points: Tensor, reference: Tensor, distance: Callable[[Tensor, Tensor], Tensor] = euclidean) -> float:
    """Mean distance from each point to the nearest reference point; zero if every point is a copy."""
    return float(distance(points, reference).min(-1).values.mean())


def class_balance(probabilities: Tensor) -> float:
    """Entropy of the predicted classes over the entropy of equal shares, in [0, 1]."""
    shares = torch.bincount(probabilities.argmax(-1), minlength=probabilities.shape[1]).double() / len(probabilities)
    return float(torch.special.entr(shares).sum() / math.log(probabilities.shape[1]))


def evaluate(samples: Tensor, extractor: Extractor, test: Measure, data: DataSet, labels: Tensor | None = None) -> dict[str, float]:
    """All metrics of samples against the test split: the figures of one row of a report, by name.

    The standard error of `figure` is called `figure_error`, where it is known: by the bootstrap for the Frechet distance, over test points
    for the coverage, over samples for means.

    Args:
        samples: points, (N, ...).
        extractor: of features.
        test: what it sees of the test split.
        data: the data set.
        labels: the class that was asked for, of each sample, (N,), if one was.
    """
    seen = extractor(samples)
    covered = coverage(seen.features, test.features)
    row = {
        "frechet": frechet_distance(seen.features, test.features),
        "frechet_error": frechet_error(seen.features, test.features),
        "coverage": covered,
        "coverage_error": math.sqrt(covered * (1 - covered) / len(test.features)),
        **_mean("nearest_train", data.distance(samples, data.train).min(-1).values),
        **{figure.key: figure.of(samples, seen.probabilities) for figure in data.figures},
    }
    if seen.probabilities is not None:
        row |= _mean("confidence", seen.probabilities.max(-1).values)
        row["balance"] = class_balance(seen.probabilities)
        if labels is not None:
            row |= _mean("as_asked", (seen.probabilities.argmax(-1) == labels).double())
    return row


def _mean(name: str, values: Tensor) -> dict[str, float]:
    """The mean of one value a sample, (N,), and its standard error."""
    values = values.double()
    return {name: float(values.mean()), f"{name}_error": float(values.std() / math.sqrt(len(values)))}
