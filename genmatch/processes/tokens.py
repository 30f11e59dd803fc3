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

from genmatch.paths.mixture import Mixture
from genmatch.paths.tokens import TokenPath
from genmatch.tensors import expand

PREDICTIONS = ("posterior", "cavity", "score")


def convert(value: Tensor, x: Tensor, t: Tensor, path: TokenPath, source: str, to: str) -> Tensor:
    """Converts logits of kind `source` to kind `to`, (B, *shape, V), at states `x` and times `t`, (B,).

    The result of a conversion is normalised, in float64; an entry of the score at the present token is 0, and not read.
    """
    if source == to:
        return value
    cavity = {"posterior": _cavity_from_posterior, "cavity": _normalised, "score": _cavity_from_score}[source](value, x, t, path)
    return {"posterior": _posterior_from_cavity, "cavity": _normalised, "score": _score_from_cavity}[to](cavity, x, t, path)


def _normalised(logits: Tensor, x: Tensor, t: Tensor, path: TokenPath) -> Tensor:
    return logits.double().log_softmax(-1)


def _posterior_from_cavity(cavity: Tensor, x: Tensor, t: Tensor, path: TokenPath) -> Tensor:
    return (cavity + path.likelihood(x, t).log()).log_softmax(-1)


def _cavity_from_posterior(posterior: Tensor, x: Tensor, t: Tensor, path: TokenPath) -> Tensor:
    """A token that cannot have led to x has no weight; where only one can, as for a revealed token, the cavity is unknown and that one stands in."""
    likelihood = path.likelihood(x, t)
    return torch.where(likelihood > 0, posterior.double() - likelihood.log(), -torch.inf).log_softmax(-1)


def _score_from_cavity(cavity: Tensor, x: Tensor, t: Tensor, path: Mixture) -> Tensor:
    noise, kappa = _noise_and_kappa(x, t, path)
    chances = torch.logaddexp(noise.log(), kappa.log() + cavity)
    known, index = _present(x, cavity)
    # A present mask is no data token: its chance is that of noise.
    own = torch.where(known, chances.gather(-1, index).squeeze(-1), expand(path.schedule.sigma(t), x).log())
    return (chances - own.unsqueeze(-1)).where(~_is_present(x, cavity), 0)


def _cavity_from_score(score: Tensor, x: Tensor, t: Tensor, path: Mixture) -> Tensor:
    """Scores times p_t(x_j | the others) sum to 1 over all states, which gives that factor; what they exceed the noise by is data.

    A score that no law has may fall below the noise: nothing is left of such a token.
    """
    noise, kappa = _noise_and_kappa(x, t, path)
    score = score.double().where(~_is_present(x, score), 0)
    total = score.logsumexp(-1, keepdim=True)
    is_mask = (x >= score.shape[-1]).unsqueeze(-1)
    total = torch.where(is_mask, torch.logaddexp(total, torch.zeros_like(total)), total)
    return ((score - total).exp() - noise).clamp(min=0).log().log_softmax(-1)


def _noise_and_kappa(x: Tensor, t: Tensor, path: Mixture) -> tuple[Tensor, Tensor]:
    """(1 - kappa) p_0(v) for each data token, and kappa, which broadcast against (B, *shape, V)."""
    sigma, kappa = (c.reshape(-1, *[1] * x.dim()) for c in (path.schedule.sigma(t), path.schedule.kappa(t)))
    return sigma * path.source_probs.to(x.device)[..., : path.space.vocab_size], kappa


def _is_present(x: Tensor, logits: Tensor) -> Tensor:
    """Where the token is the present one, (B, *shape, V)."""
    return x.unsqueeze(-1) == torch.arange(logits.shape[-1], device=x.device)


def _present(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the present state is a data token, and its index, (B, *shape, 1)."""
    known = x < logits.shape[-1]
    return known, torch.where(known, x, 0).unsqueeze(-1)
