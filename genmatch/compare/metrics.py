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
from genmatch.errors import GenmatchError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussian fits of two sets of features, (N, F) and (M, F).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)); not negative, zero for equal moments. It shrinks with N, so compare it
    only at equal N and M.
    """
    if len(a) < 2 or len(b) < 2:
        raise GenmatchError(f"the Frechet distance needs at least 2 points on each side, got {len(a)} and {len(b)}.")
    a, b = a.double(), b.double()
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    one, two = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    # tr (S_a S_b)^(1/2) from the symmetric product with the same eigenvalues.
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ two @ root).clamp(min=0).sqrt().sum()
    return float((gap + one.trace() + two.trace() - 2 * cross).clamp(min=0))


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

    Args:
        samples: points, (N, ...).
        extractor: of features.
        test: what it sees of the test split.
        data: the data set.
        labels: the class that was asked for, of each sample, (N,), if one was.
    """
    seen = extractor(samples)
    row = {
        "frechet": frechet_distance(seen.features, test.features),
        "coverage": coverage(seen.features, test.features),
        "nearest_train": nearest_distance(samples, data.train, data.distance),
        **{figure.key: figure.of(samples, seen.probabilities) for figure in data.figures},
    }
    if seen.probabilities is not None:
        row["confidence"] = float(seen.probabilities.max(-1).values.mean())
        row["balance"] = class_balance(seen.probabilities)
        if labels is not None:
            row["as_asked"] = float((seen.probabilities.argmax(-1) == labels).double().mean())
    return row
