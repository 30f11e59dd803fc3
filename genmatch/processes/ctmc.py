r"""Continuous-time Markov chains on tokens: discrete flow matching, masked and uniform diffusion.

The network predicts the posterior $\pi^j(v | x) = p(x_1^j = v | X_t = x)$ of each token. On the mixture path the conditional
rate $w_t (\delta_{x_1^j} - \delta_{x_j})$, with $w = \dot\kappa / (1 - \kappa)$, averages to

    Q^j(v | x) = w_t (pi^j(v | x) - 1[v = x_j]) :

at rate $w_t$ a token is redrawn from its posterior. With the posterior frozen, a token is redrawn between $t$ and $s$ with
probability $q = (\kappa_s - \kappa_t) / (1 - \kappa_t)$. A token that the source never puts is data already and stays:
with the mask as source, every token that is not the mask.

Sources: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595, theorem 3; "Generative Flows on
Discrete State-Spaces" (Campbell et al., 2024), https://arxiv.org/abs/2402.04997, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, unknown
from genmatch.generators import Categorical, Generator, Jump
from genmatch.paths.base import Path
from genmatch.paths.mixture import Mixture
from genmatch.processes.posterior import PosteriorProcess
from genmatch.tensors import bernoulli, draw_categorical, expand


class CTMC(PosteriorProcess):
    """Tokens that jump from noise to data.

    Args:
        path: a mixture path.
        prediction: what the network returns: "posterior", logits of p(x1_j given x), (B, *shape, V).
        rates: "mixture", the rates above.

    Raises:
        GenmatchError: if the path is not a mixture, or a name is unknown.

    Example:
        >>> process = CTMC(Mixture((3,), vocab_size=5, source="uniform"))
        >>> process.output_shape
        (3, 5)
    """

    path: Mixture
    kinds = frozenset({"jump"})

    def __init__(self, path: Path, prediction: str = "posterior", rates: str = "mixture") -> None:
        if not isinstance(path, Mixture):
            raise GenmatchError(f"CTMC needs a mixture path, got {path!r}; pass `gm.paths.Mixture(shape, vocab_size)`.")
        if prediction != "posterior":
            raise unknown("prediction", str(prediction), ["posterior"])
        if rates != "mixture":
            raise unknown("kind of rates", str(rates), ["mixture"])
        self.path = path
        self.prediction = prediction
        self.rates = rates

    def __repr__(self) -> str:
        return f"CTMC({self.path}, prediction={self.prediction!r}, rates={self.rates!r})"

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the predicted tokens, nats, (B,), over the tokens that can be noise.

        For tokens as targets this is the cross-entropy of Algorithm 8 of the lecture notes on discrete diffusion.
        """
        nats = self.nats(target, output)
        return torch.where(self.path.is_noise(x), nats, torch.zeros_like(nats)).flatten(1).sum(-1)

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return Jump(expand(self.path.schedule.rate(t), x) * self.path.is_noise(x), Categorical(output))

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The exact jump: first which tokens are redrawn, then new ones there, so that no rare token competes with the mask."""
        probability = expand(self.path.schedule.jump_probability(t, s), x)
        jumps = bernoulli(probability, x, rng=rng) & self.path.is_noise(x)
        return x.masked_scatter(jumps, draw_categorical(output[jumps], rng=rng))
