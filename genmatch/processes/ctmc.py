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
from genmatch.processes.base import MarkovProcess
from genmatch.tensors import bernoulli, draw_categorical, expand


class CTMC(MarkovProcess):
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

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.path.space.shape, self.path.space.vocab_size)

    def target(self, x: Tensor, t: Tensor, x1: Tensor, *, x0: Tensor | None = None) -> Tensor:
        return x1

    def natural(self, target: Tensor) -> Tensor:
        """Log probabilities of tokens (B, *shape), which are certain, or of their averages (B, *shape, V)."""
        return (target if target.is_floating_point() else self._one_hot(target)).log()

    def mean(self, output: Tensor) -> Tensor:
        return output.softmax(-1)

    def average(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Posterior probabilities (B, *shape, V) from tokens (B, N, *shape): each data point votes with its weight."""
        votes = weights.reshape(*weights.shape, *[1] * (targets.dim() - 2)).expand(targets.shape)
        total = votes.new_zeros(len(targets), *self.output_shape)
        return total.scatter_add_(-1, targets.movedim(1, -1), votes.movedim(1, -1))

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the predicted tokens, nats, (B,), over the tokens that can be noise.

        For tokens as targets this is the cross-entropy of Algorithm 8 of the lecture notes on discrete diffusion.
        """
        log_probs = output.log_softmax(-1)
        if target.is_floating_point():
            nats = torch.special.xlogy(target, target).sum(-1) - torch.where(target > 0, target * log_probs, 0).sum(-1)
        else:
            nats = -log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return torch.where(self.path.is_noise(x), nats, torch.zeros_like(nats)).flatten(1).sum(-1)

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return Jump(expand(self.path.schedule.rate(t), x) * self.path.is_noise(x), Categorical(output))

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The exact jump: first which tokens are redrawn, then new ones there, so that no rare token competes with the mask."""
        probability = expand(self.path.schedule.jump_probability(t, s), x)
        jumps = bernoulli(probability, x, rng=rng) & self.path.is_noise(x)
        return x.masked_scatter(jumps, draw_categorical(output[jumps], rng=rng))

    def _one_hot(self, tokens: Tensor) -> Tensor:
        vocabulary = torch.arange(self.path.space.vocab_size, device=tokens.device)
        return (tokens.unsqueeze(-1) == vocabulary).to(torch.get_default_dtype())
