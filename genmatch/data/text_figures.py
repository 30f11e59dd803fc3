"""What a comparison measures in text: figures of samples, features, and how many tokens differ."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.data.dataset import Features, Figure
from genmatch.data.tokenisers import Tokeniser

_WORD = re.compile(r"(?<=[^\w'])[\w']*\w[\w']*(?=[^\w'])")
"""Words with something on both sides: those at the ends of a window may be cut."""

_COPIED = 24
_NGRAM = 4


def figures(code: Tokeniser, corpus: str) -> tuple[Figure, ...]:
    """The figures of windows of text, given the tokeniser and the training text.

    Args:
        code: the tokeniser.
        corpus: the training text.
    """
    known = set(re.findall(r"[\w']+", corpus.lower()))
    spans = {corpus[i : i + _COPIED] for i in range(len(corpus) - _COPIED + 1)}

    def of(measure: Callable[[list[str]], float]) -> Callable[[Tensor, Tensor | None], float]:
        return lambda points, _: measure([code.decode(row) for row in points])

    return (
        Figure(
            "entropy",
            "entropy",
            "of single tokens, in bits: repetitive text has less than real text, noise has more",
            "{:.3f}",
            lambda points, _: token_entropy(points),
        ),
        Figure("distinct", f"distinct {_NGRAM}-grams", "share of different ones among all of the samples'", "{:.1%}", lambda points, _: distinct(points)),
        Figure("words", "real words", "share of whole words that occur in the training text", "{:.1%}", of(lambda texts: share_known(texts, known))),
        Figure(
            "copied",
            "copied",
            f"share of spans of {_COPIED} characters that occur in the training text",
            "{:.1%}",
            of(lambda texts: share_copied(texts, spans)),
        ),
    )


def token_entropy(points: Tensor) -> float:
    """Entropy of the frequencies of single tokens, in bits, of windows (B, L).

    Example:
        >>> token_entropy(torch.tensor([[0, 1], [2, 3]]))
        2.0
    """
    shares = points.flatten().bincount().double() / points.numel()
    return float(torch.special.entr(shares).sum() / torch.log(torch.tensor(2.0, dtype=torch.float64)))


def distinct(points: Tensor) -> float:
    """Share of different n-grams among all of windows (B, L): 1 if none occurs twice. It falls with B."""
    grams = points.unfold(-1, min(_NGRAM, points.shape[-1]), 1).flatten(0, 1)
    return len(grams.unique(dim=0)) / len(grams)


def share_known(texts: list[str], known: set[str]) -> float:
    """Share of whole words that are in `known`; 0 if there is no word.

    Args:
        texts: what is read.
        known: words, in lower case.

    Example:
        >>> share_known([" to be orr not "], {"to", "be", "or", "not"})
        0.75
    """
    found = [word in known for text in texts for word in _WORD.findall(text.lower())]
    return sum(found) / max(1, len(found))


def share_copied(texts: list[str], spans: set[str]) -> float:
    """Share of the texts' spans that are in `spans`; 0 if a text is shorter than a span."""
    found = [text[i : i + _COPIED] in spans for text in texts for i in range(len(text) - _COPIED + 1)]
    return sum(found) / max(1, len(found))


def pairs(train: Tensor, count: int = 64) -> Features:
    """How often the `count` commonest pairs of neighbouring tokens of the training windows occur in a window.

    Args:
        train: windows of tokens, (N, L).
        count: how many pairs.
    """
    size = int(train.max()) + 1
    found, times = (train[:, :-1] * size + train[:, 1:]).unique(return_counts=True)
    common = found[times.topk(min(count, len(times))).indices]

    def features(points: Tensor) -> Tensor:
        # A token that the training text does not have makes no pair of it.
        inside = (points[:, :-1] < size) & (points[:, 1:] < size)
        seen = torch.where(inside, points[:, :-1] * size + points[:, 1:], -1)
        return torch.stack([(seen == pair).sum(-1) for pair in common.tolist()], -1).double()

    return Features(f"counts of the {len(common)} commonest pairs of neighbouring tokens", features)


def differences(a: Tensor, b: Tensor) -> Tensor:
    """In how many places each window of `a`, (N, L), differs from each of `b`, (M, L): (N, M).

    Example:
        >>> differences(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 2], [2, 1, 0]]))
        tensor([[0., 2.]])
    """
    total = torch.zeros(len(a), len(b), dtype=torch.int16)
    for j in range(a.shape[1]):
        total += a[:, j].unsqueeze(1) != b[:, j]
    return total.float()
