r"""What processes share if their network predicts the posterior of each coordinate of the data.

The statistic is the one-hot vector of $x_1^j$, so its posterior mean is $\pi^j(v | x) = p(x_1^j = v | X_t = x)$: a network
outputs logits, a target is a token, and the Bregman divergence is the cross-entropy.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Generator
from genmatch.processes.base import MarkovProcess
from genmatch.spaces import Categorical


class PosteriorProcess(MarkovProcess):
    """A process on a path to tokens, whose network returns logits of p(x1_j = v given x), (B, *shape, V).

    Subclasses set `path` and `kinds` and define `generator`, affine in the probabilities `mean(output)`.
    """

    @property
    def vocabulary(self) -> Categorical:
        """The space of the tokens that are predicted.

        Raises:
            GenmatchError: if the data of the path are not tokens.
        """
        space = self.path.data_space
        if not isinstance(space, Categorical):
            raise GenmatchError(f"{type(self).__name__} predicts tokens, data in a Categorical space, got {space}.")
        return space

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.vocabulary.shape, self.vocabulary.vocab_size)

    def target(self, x: Tensor, t: Tensor, x1: Tensor, *, x0: Tensor | None = None) -> Tensor:
        r"""The data point itself, one-hot: its posterior mean is the probability $\pi^j(v | x) = p(x_1^j = v | X_t = x)$ of each token."""
        return x1

    @abstractmethod
    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator: ...

    def natural(self, target: Tensor) -> Tensor:
        """Log probabilities of tokens (B, *shape), which are certain, or of their averages (B, *shape, V)."""
        if target.is_floating_point():
            return target.log()
        values = torch.arange(self.vocabulary.vocab_size, device=target.device)
        return (target.unsqueeze(-1) == values).to(torch.get_default_dtype()).log()

    def mean(self, output: Tensor) -> Tensor:
        return output.softmax(-1)

    def average(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Posterior probabilities (B, *shape, V) from tokens (B, N, *shape): each data point votes with its weight."""
        votes = weights.reshape(*weights.shape, *[1] * (targets.dim() - 2)).expand(targets.shape)
        total = votes.new_zeros(len(targets), *self.output_shape)
        return total.scatter_add_(-1, targets.movedim(1, -1), votes.movedim(1, -1))

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the predicted probabilities, nats, (B,): the cross-entropy for tokens as targets."""
        return self.nats(target, output).flatten(1).sum(-1)

    def nats(self, target: Tensor, output: Tensor) -> Tensor:
        """The divergence of each coordinate, (B, *shape), of tokens (B, *shape) or probabilities (B, *shape, V)."""
        log_probs = output.log_softmax(-1)
        if target.is_floating_point():
            return torch.special.xlogy(target, target).sum(-1) - torch.where(target > 0, target * log_probs, 0).sum(-1)
        return -log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
