r"""Solvers that take tokens back: known tokens become noise again with a small probability and are drawn anew.

With kappa the probability of data and sigma_r the probability of a remask, at most min(1, (1 - kappa_s) / kappa_t),

    a known token     becomes the mask with probability sigma_r,
    a masked one      is revealed with probability (kappa_s - (1 - sigma_r) kappa_t) / (1 - kappa_t).

Given the data this carries p_t to p_s exactly for every sigma_r, as the plain step does. With an exact network it only adds
errors of a step; it helps a network that errs, whose wrong tokens are then not final.

At s = t that is a move which keeps the time, and `ReMDMLoop` makes a number of them at one time.

The same for any source: with probability k a token takes the ordinary step, and otherwise the draw of the data that the
prediction leads to is noised to s (k = 1 - sigma_r / (1 - kappa_s) for masks).

Sources: "Remasking Discrete Diffusion Models with Inference-Time Scaling" (Wang et al., 2025), https://arxiv.org/abs/2503.00307;
"The Diffusion Duality, Chapter II: Psi-Samplers and Efficient Curriculum" (Deschenaux et al., ICLR 2026),
https://arxiv.org/abs/2602.21185.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import number_in, positive_integer, unknown
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import JUMP, Predict, Solver
from genmatch.solvers.chains import chain_of, redraw
from genmatch.tensors import bernoulli, expand, uniforms

_WAYS = ("cap", "rescale")


class ReMDM(Solver):
    """For masks: known tokens are masked again now and then, to be drawn anew; order 0 for a fixed share, one call a step.

    Args:
        eta: how much is remasked, at least 0; 0 is the exact step.
        how: "cap", a share of at most `eta` of the known tokens; "rescale", `eta` (at most 1) of the largest share that keeps the law.

    Raises:
        GenmatchError: if an argument is out of range.
    """

    order = 0
    calls = 1
    kinds = JUMP
    needs = ("posterior", "masked", "redrawing", "hidden")
    sparse = True

    def __init__(self, eta: float = 0.05, how: str = "rescale") -> None:
        if how not in _WAYS:
            raise unknown("way to remask", str(how), _WAYS)
        self.eta = number_in("[0, 1]" if how == "rescale" else "[0, inf)", eta, "eta", "0 is the exact step")
        self.how = how

    def share(self, kappa_t: Tensor, kappa_s: Tensor) -> Tensor:
        """The probability sigma_r that a known token is masked, (B,).

        Args:
            kappa_t: kappa at the present time, (B,).
            kappa_s: at the next one, (B,).
        """
        most = torch.where(kappa_t > 0, (1 - kappa_s) / kappa_t, 1).clamp(max=1)
        return self.eta * most if self.how == "rescale" else most.clamp(max=self.eta)

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        kappa = chain_of(process).redrawing.kappa
        return _remasked(process, predict, x, t, s, self.share(kappa(t), kappa(s)), rng)


class ReMDMLoop(Solver):
    """For masks: the exact step, held at one time for a number of calls that remask as many tokens as they reveal; order 0, adaptive.

    All that is known when the clock stands still may be drawn anew, which is where tokens that were drawn together and do not fit
    are taken back. The other steps take one call.

    Args:
        at: the time at which the clock stands still, in (0, 1).
        moves: network calls there.
        share: the probability that a known token is masked in one of them, in [0, 1]; at most (1 - kappa) / kappa of that time is used.

    Raises:
        GenmatchError: if an argument is out of range.
    """

    order = 0
    calls = None
    kinds = JUMP
    needs = ("transition", "posterior", "masked", "redrawing", "hidden")
    sparse = True
    finishes = True

    def __init__(self, at: float = 0.55, moves: int = 8, share: float = 0.05) -> None:
        self.at = number_in("(0, 1)", at, "at", "it is the time at which the clock stands still")
        self.moves = positive_integer(moves, "moves")
        self.share = number_in("[0, 1]", share, "share", "it is a probability, and 0 remasks nothing")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        here = torch.full_like(t, self.at)
        if not bool(((t < here) & (here <= s)).all()):
            return process.transition(predict(x, t), x, t, s, rng=rng)
        x = process.transition(predict(x, t), x, t, here, rng=rng)
        kappa = chain_of(process).redrawing.kappa(here)
        share = ((1 - kappa) / kappa).clamp(max=self.share)
        for _ in range(self.moves):
            x = _remasked(process, predict, x, here, here, share, rng)
        return x if bool((s == here).all()) else process.transition(predict(x, here), x, here, s, rng=rng)


def _remasked(process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, share: Tensor, rng: torch.Generator | None) -> Tensor:
    """Known tokens are masked with probability `share`, (B,), and so many masks are revealed that the law of the path is kept."""
    chain = chain_of(process)
    kappa_t, kappa_s = chain.redrawing.kappa(t), chain.redrawing.kappa(s)
    masked, coin = chain.masked(x), uniforms(x, rng=rng)
    reveal = masked & (coin < expand((kappa_s - (1 - share) * kappa_t) / (1 - kappa_t), coin))
    known = redraw(x, reveal, chain.posterior(predict(x, t), x, t), rng)
    return chain.hidden(known, ~masked & (coin < expand(share, coin)))


class Psi(Solver):
    """Each token takes the ordinary step, or is drawn from its posterior and noised again; order 0 for a fixed share, one call a step.

    Args:
        keep: the probability k of the ordinary step, in [0, 1].

    Raises:
        GenmatchError: if `keep` lies elsewhere.
    """

    order = 0
    calls = 1
    kinds = JUMP
    needs = ("transition", "finish", "is_noise")
    sparse = True

    def __init__(self, keep: float = 0.95) -> None:
        self.keep = number_in("[0, 1]", keep, "keep", "it is a probability, and 1 is the exact step")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        output = predict(x, t)
        ordinary = process.transition(output, x, t, s, rng=rng)
        noised = process.path.sample(process.finish(output, x, t, rng=rng), s, rng=rng)
        return torch.where(bernoulli(torch.tensor(self.keep, device=x.device), x, rng=rng), ordinary, noised)
