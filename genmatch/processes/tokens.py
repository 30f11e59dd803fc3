r"""One place that converts what a network predicts on a path of tokens; everything in logarithms.

With $\ell_v = p_t(x_j | v)$ the likelihood of the present token, three predictions determine each other:

    posterior   pi(v) = p(x1_j = v | x)                      what is averaged, and what rates are made of
    cavity      c(v)  = p(x1_j = v | the other tokens)       pi(v) proportional to c(v) l_v
    score       s(v)  = p_t(x with x_j = v) / p_t(x) = ((1 - kappa) p_0(v) + kappa c(v)) / ((1 - kappa) p_0(x_j) + kappa c(x_j))

The cavity, or leave-one-out posterior, is what the formulas of uniform diffusion ask for (UDLM), the concrete score what SEDD
learns. They coincide with the posterior, up to a factor, for a masked token and nowhere else, so a prediction is named and
converted, never guessed. A score says nothing of the data where kappa = 0, and is defined on a mixture path.

Sources: "Simple Guidance Mechanisms for Discrete Diffusion Models" (Schiff et al., 2025), https://arxiv.org/abs/2412.10193;
"Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution" (Lou et al., 2024), https://arxiv.org/abs/2310.16834.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.calculus import neighbours
from genmatch.errors import GenmatchError
from genmatch.paths.mixture import Mixture
from genmatch.paths.tokens import TokenPath
from genmatch.processes.base import LogWeight
from genmatch.tensors import expand

PREDICTIONS = ("posterior", "cavity", "score")


def convert(value: Tensor, x: Tensor, t: Tensor, path: TokenPath, source: str, to: str) -> Tensor:
    """Converts logits of kind `source` to kind `to`, (B, *shape, V), at states `x` and times `t`, (B,).

    The result of a conversion is normalised, in float64; an entry of the score at the present token is 0, and not read.

    Args:
        value: what the network returned, (B, *shape, V).
        x: states, (B, *shape).
        t: times, (B,).
        path: of the tokens.
        source: the kind of `value`.
        to: the kind that is wanted.
    """
    if source == to:
        return value
    return _from_cavity(_to_cavity(value, x, t, path, source), x, t, path, to)


def _to_cavity(value: Tensor, x: Tensor, t: Tensor, path: TokenPath, source: str) -> Tensor:
    """A data token that cannot have led to x has no weight. Where only one can, as at a revealed token, it has all of it: any cavity gives the same posterior."""
    if source == "score":
        return _cavity_from_score(value, x, t, with_score(path))
    if source == "cavity":
        return value.double().log_softmax(-1)
    likelihood = path.likelihood(x, t)
    return torch.where(likelihood > 0, value.double() - likelihood.log(), -torch.inf).log_softmax(-1)


def _from_cavity(cavity: Tensor, x: Tensor, t: Tensor, path: TokenPath, to: str) -> Tensor:
    if to == "score":
        return _score_from_cavity(cavity, x, t, with_score(path))
    return cavity if to == "cavity" else (cavity + path.likelihood(x, t).log()).log_softmax(-1)


def with_score(path: TokenPath) -> Mixture:
    """Returns `path` if scores determine the data on it, or raises `GenmatchError`."""
    if not isinstance(path, Mixture):
        raise GenmatchError(f"a score determines the data on a mixture path only, got {path!r}; use prediction='posterior' or 'cavity'.")
    return path


def _score_from_cavity(cavity: Tensor, x: Tensor, t: Tensor, path: Mixture) -> Tensor:
    kappa = path.schedule.kappa(t).reshape(-1, *[1] * x.dim())
    chances = torch.logaddexp(_noise(x, t, path).log(), kappa.log() + cavity)
    is_token = x < cavity.shape[-1]
    own = chances.gather(-1, torch.where(is_token, x, 0).unsqueeze(-1)).squeeze(-1)
    # A present mask is no data token: its chance is that of noise.
    own = torch.where(is_token, own, expand(path.schedule.sigma(t), x).log())
    return torch.where(present(x, cavity), 0, chances - own.unsqueeze(-1))


def _cavity_from_score(score: Tensor, x: Tensor, t: Tensor, path: Mixture) -> Tensor:
    """Scores times p_t(x_j | the others) sum to 1 over all states, which gives that factor; what they exceed the noise by is data.

    A score that no law has may fall below the noise: nothing is left of such a token.
    """
    score = torch.where(present(x, score), 0, score.double())
    total = score.logsumexp(-1)
    total = torch.where(x < score.shape[-1], total, torch.logaddexp(total, torch.zeros_like(total)))
    return ((score - total.unsqueeze(-1)).exp() - _noise(x, t, path)).clamp(min=0).log().log_softmax(-1)


def tilted_cavity(cavity: Tensor, x: Tensor, t: Tensor, path: Mixture, log_weight: LogWeight) -> Tensor:
    """The cavity if the law of the states were p_t(x) exp(log_weight(x)), where a token can be noise; logits, (B, *shape, V).

    A token is noise or data, so the law of data is what is left of the law of the token given the others, once noise is taken away:

        kappa c'(v) = p'(v) - (1 - kappa) p_0(v),    p'(v) proportional to p_t(x_j = v | the others) exp(log_weight(x with x_j = v))

    That of the mask as source is c(v) exp(log_weight), normalised. Weights that no law has may leave less than the noise: then there is no such data.

    Args:
        cavity: its logits, (B, *shape, V).
        x: states, (B, *shape).
        t: times in (0, 1), (B,).
        path: of the tokens.
        log_weight: of states and their rows.
    """
    kappa = path.schedule.kappa(t).reshape(-1, *[1] * x.dim())
    noise, cavity = _noise(x, t, path), cavity.double().log_softmax(-1)
    chances = torch.logaddexp(noise.log(), kappa.log() + cavity)
    asked = ~chances.isneginf() & path.is_noise(x).unsqueeze(-1)
    chances = chances + neighbours(log_weight, x, torch.arange(cavity.shape[-1], device=x.device), asked)
    possible = ~chances.isneginf().all(-1, keepdim=True)
    tilted = (torch.where(possible, chances, 0).softmax(-1) - noise).clamp(min=0).log()
    return torch.where(possible, tilted, cavity).log_softmax(-1)


def _noise(x: Tensor, t: Tensor, path: Mixture) -> Tensor:
    """(1 - kappa) p_0(v) for each data token, which broadcasts against (B, *shape, V)."""
    return path.schedule.sigma(t).reshape(-1, *[1] * x.dim()) * path.source_probs.to(x.device)[..., : path.space.vocab_size]


def present(x: Tensor, logits: Tensor) -> Tensor:
    """Where a token is the present one, (B, *shape, V)."""
    return x.unsqueeze(-1) == torch.arange(logits.shape[-1], device=x.device)
