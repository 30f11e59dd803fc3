r"""Solvers for masks that reveal chosen positions, one group a network call.

With the mask as source the posterior of a masked token does not depend on time, so a sample is revealed in any order,

    p(x) = prod_i p(x_{j_i} | x_{j_1}, ..., x_{j_{i-1}}),

and revealing one position a call is exact as long as the order is chosen by the state alone. Time only says how many positions
are known. *First-hitting* takes them in the order in which the path reveals them, which is exact at every time. The others
reveal the expected number of a step, rounded up, those of the highest score first: the number of masks is right at every time
of the grid, the law at the end with one position a call, and with more than one the error is that tokens revealed together are
drawn independently.

Where a process has blocks that are filled one after the other, those of an earlier one come first, whatever their score.

A score must not look at the token that it is about to draw. Ranking positions by the probability of the *sampled* token, as
MaskGIT and LLaDA do, draws likely tokens too often and has the wrong law even with an exact network and one position a call.

Sources: "Masked Diffusion Models are Secretly Time-Agnostic Masked Models" (Zheng et al., ICLR 2025),
https://arxiv.org/abs/2409.02908 (first-hitting); "Train for the Worst, Plan for the Best" (Kim et al., 2025),
https://arxiv.org/abs/2502.06768 (margin); "Fast-dLLM" (Wu et al., 2025), https://arxiv.org/abs/2505.22618 (threshold);
"Accelerated Sampling from Masked Diffusion Models via Entropy Bounded Unmasking" (Ben-Hamu et al., 2025),
https://arxiv.org/abs/2505.24857.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import number_in, positive_integer, unknown
from genmatch.logits import draw_where
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import JUMP, Predict, Solver
from genmatch.solvers.chains import chain_of
from genmatch.solvers.positions import SCORES, count, earlier, ranks
from genmatch.tensors import expand, uniforms

_IN_ORDER: tuple[str, ...] = ("posterior", "masked", "redrawing", "turns")
_NEEDS: tuple[str, ...] = (*_IN_ORDER, "cavity")
"""A cavity is what makes any order right: the law of a token given all that is known, not only what comes before it."""


class FirstHitting(Solver):
    """For masks: each position at the moment in which the path reveals it, one call a position; exact at every time of the grid.

    The number of calls does not depend on the grid: one for each position.
    """

    order = math.inf
    calls = None
    kinds = JUMP
    needs: tuple[str, ...] = _NEEDS
    sparse = True
    finishes = True

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        chain = chain_of(process)
        u, uniform = uniforms(x, rng=rng), uniforms(x, rng=rng)
        hit = chain.redrawing.time_at(expand(chain.redrawing.sigma(t), u) * (1 - u))
        masked = chain.masked(x)
        due = count(masked & (u < expand(chain.redrawing.jump_probability(t, s), u)))
        moments = hit.masked_fill(~masked, torch.inf).flatten(1).sort(-1).values
        place = ranks(-hit.masked_fill(~masked, torch.inf), turns=chain.turns(x).masked_fill(~masked, x[0].numel()))
        for i in range(int(due.max())):
            now = masked & (place == i) & expand(due > i, x)
            time = torch.where(due > i, moments[:, i], t)
            x = x.masked_scatter(now, draw_where(chain.posterior(predict(x, time), x, time), now, uniform))
        return x


class Reveal(Solver):
    """Reveals the positions of the highest score first. Subclasses say how many one network call may reveal.

    Raises:
        GenmatchError: if `score` is unknown.
    """

    order = 0
    kinds = JUMP
    needs: tuple[str, ...] = _NEEDS
    sparse = True
    finishes = True

    def __init__(self, score: str) -> None:
        if not isinstance(score, str) or score not in SCORES:
            raise unknown("score", str(score), list(SCORES))
        self.score = score

    @abstractmethod
    def allowed(self, scores: Tensor) -> Tensor:
        """How many positions one call may reveal, (B,), at least 1, from the scores in falling order, (B, L); -inf where nothing is due."""

    def choose(self, logits: Any, where: Tensor, due: Tensor, ties: Tensor, turns: Tensor | None = None) -> Tensor:
        """The positions to reveal now, (B, *shape).

        Args:
            logits: of the posterior, (B, *shape, V).
            where: the positions to choose from, (B, *shape).
            due: at most how many in each sample, (B,).
            ties: random numbers that decide between equal scores, (B, *shape).
            turns: when each position has its turn, (*shape); one and the same by default.
        """
        turns = torch.zeros_like(where[0], dtype=torch.int64) if turns is None else turns
        before = earlier(where, turns)
        # What lies beyond all that is due is not looked at.
        scores = SCORES[self.score](logits, where & (before < expand(due, where)))
        first = scores.masked_fill(before > 0, -torch.inf)
        most = torch.minimum(due, self.allowed(first.flatten(1).sort(-1, descending=True).values))
        return where & (ranks(scores, ties, turns.masked_fill(~where, where[0].numel())) < expand(most, where))

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        chain, ties, uniform, time = chain_of(process), uniforms(x, rng=rng), uniforms(x, rng=rng), t
        masks = count(chain.masked(x))
        due = (masks * chain.redrawing.jump_probability(t, s) - 1e-9).ceil().long()
        while True:
            logits = chain.posterior(predict(x, time), x, time)
            now = self.choose(logits, chain.masked(x) & expand(due > 0, x), due, ties, chain.turns(x))
            x = x.masked_scatter(now, draw_where(logits, now, uniform))
            due = due - count(now)
            if not bool((due > 0).any()):
                return x
            # The time at which a path has as many masks as are left.
            left = count(chain.masked(x)) / masks.clamp(min=1)
            time = torch.where(left > 0, chain.redrawing.time_at(chain.redrawing.sigma(t) * left), t)


class TopK(Reveal):
    """For masks: reveals the positions of the highest score; exact with k = 1 for an exact network, whatever the score.

    Args:
        score: "confidence", "margin", "entropy", "random" or "left-to-right".
        k: positions a network call; by default all that are due, which is one call a step.

    Raises:
        GenmatchError: if the score is unknown, or `k` is not a positive integer.
    """

    def __init__(self, score: str = "confidence", k: int | None = None) -> None:
        super().__init__(score)
        self.needs = _IN_ORDER if score == "left-to-right" else _NEEDS
        self.k = None if k is None else positive_integer(k, "k")
        self.calls = 1 if k is None else None

    def allowed(self, scores: Tensor) -> Tensor:
        return torch.full_like(scores[:, 0], scores.shape[1] if self.k is None else self.k, dtype=torch.int64)


class Threshold(Reveal):
    """For masks: reveals every position whose most likely token has at least this probability, and at least one; adaptive.

    Of what is due at the next time of the grid: `steps=1` leaves the number of calls to the rule alone.

    Args:
        threshold: the probability, in (0, 1].

    Raises:
        GenmatchError: if `threshold` lies elsewhere.
    """

    calls = None

    def __init__(self, threshold: float = 0.9) -> None:
        super().__init__("confidence")
        self.threshold = number_in("(0, 1]", threshold, "threshold", "it is a probability, and 1 reveals one position a call")

    def allowed(self, scores: Tensor) -> Tensor:
        return (scores >= self.threshold).sum(-1).clamp(min=1)


class EntropyBounded(Reveal):
    """For masks: reveals the most certain positions while sum H - max H of them stays below a bound, and at least one; adaptive.

    That sum bounds what is lost by drawing them independently. Of what is due at the next time of the grid: `steps=1`
    leaves the number of calls to the rule alone.

    Args:
        gamma: the bound, nats, at least 0.

    Raises:
        GenmatchError: if `gamma` is negative.
    """

    calls = None

    def __init__(self, gamma: float = 0.1) -> None:
        super().__init__("entropy")
        self.gamma = number_in("[0, inf]", gamma, "gamma", "it is a number of nats, and 0 reveals one position a call")

    def allowed(self, scores: Tensor) -> Tensor:
        entropy = -scores
        # Where nothing is due both are infinite, and their difference is NaN: not counted.
        return (entropy.cumsum(-1) - entropy <= self.gamma).sum(-1).clamp(min=1)


def confidence() -> TopK:
    """For masks: reveals what is due, the positions with the most likely tokens first; one call a step."""
    return TopK("confidence")


def margin() -> TopK:
    """For masks: reveals what is due, first where the most likely token leads the second by most; one call a step."""
    return TopK("margin")


def entropy() -> TopK:
    """For masks: reveals what is due, the positions of the least entropy first; one call a step."""
    return TopK("entropy")


def random_order() -> TopK:
    """For masks: reveals what is due, in random order; one call a step."""
    return TopK("random")


def left_to_right() -> TopK:
    """For masks: reveals what is due, from left to right; one call a step."""
    return TopK("left-to-right")
