"""Toy laws with exact answers: densities, and means given a noisy observation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.logits import draw_categorical
from genmatch.reprs import described


class GaussianMixture:
    """A mixture of isotropic Gaussians on R^d.

    Args:
        means: (K, d).
        stds: (K,).
        weights: (K,), equal by default.

    Raises:
        GenmatchError: if the shapes do not fit.
    """

    __repr__ = described

    def __init__(self, means: Tensor, stds: Tensor, weights: Tensor | None = None) -> None:
        self.means = means.double()
        self.stds = stds.double()
        self.weights = torch.ones(len(means), dtype=torch.float64) if weights is None else weights.double()
        self.weights = self.weights / self.weights.sum()
        if means.dim() != 2 or self.stds.shape != (len(means),) or self.weights.shape != (len(means),):
            raise GenmatchError(
                f"means must be (K, d), stds and weights (K,), got {tuple(means.shape)}, {tuple(self.stds.shape)}, {tuple(self.weights.shape)}."
            )

    def sample(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        """`n` points, (n, d), float32."""
        which = draw_categorical(self.weights.log().expand(n, -1), rng=rng)
        xi = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=rng)
        return (self.means[which] + self.stds[which].unsqueeze(-1) * xi).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats, float64, (B,)."""
        return torch.logsumexp(self._log_joint(x.double(), 1.0, 0.0), -1)

    def posterior_mean(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """E[x1 given alpha x1 + sigma noise = x], float64, (B, d): the exact network of a Gaussian path that predicts the data.

        Args:
            x: states, (B, d).
            alpha: of the path, a number or one for each state, (B,).
            sigma: likewise, positive.

        Example:
            >>> law = GaussianMixture(torch.tensor([[2.0]]), torch.tensor([1.0]))
            >>> law.posterior_mean(torch.zeros(2, 1), torch.tensor([0.0, 1.0]), 1.0)
            tensor([[2.],
                    [1.]], dtype=torch.float64)
        """
        x, alpha, sigma = x.double(), _column(alpha), _column(sigma)
        weights = self._log_joint(x, alpha, sigma).softmax(-1)
        gain = alpha * self.stds**2 / (alpha**2 * self.stds**2 + sigma**2)
        means = self.means + gain.unsqueeze(-1) * (x.unsqueeze(1) - alpha.unsqueeze(-1) * self.means)
        return (weights.unsqueeze(-1) * means).sum(1)

    def _log_joint(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        alpha, sigma = _column(alpha), _column(sigma)
        variance = alpha**2 * self.stds**2 + sigma**2
        square = ((x.unsqueeze(1) - alpha.unsqueeze(-1) * self.means) ** 2).sum(-1)
        return self.weights.log() - square / (2 * variance) - x.shape[1] / 2 * torch.log(2 * math.pi * variance)


def _column(value: float | Tensor) -> Tensor:
    """A number, or one for each of a batch, against the components of a mixture, (1 or B, 1)."""
    return torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1)


class Checkerboard:
    """The uniform law on the dark squares of a board over [-side, side]^2.

    Args:
        squares: squares a row, even.
        side: half the width of the board.

    Raises:
        GenmatchError: if `squares` is odd or less than 2.
    """

    __repr__ = described

    def __init__(self, squares: int = 4, side: float = 2.0) -> None:
        if squares < 2 or squares % 2:
            raise GenmatchError(f"`squares` must be even and at least 2, got {squares}.")
        self.squares, self.side = squares, side

    def sample(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        """`n` points, (n, 2), float32."""
        column = torch.randint(self.squares, (n,), generator=rng)
        row = 2 * torch.randint(self.squares // 2, (n,), generator=rng) + column % 2
        corner = torch.stack([column, row], -1) + torch.rand(n, 2, generator=rng)
        return corner * (2 * self.side / self.squares) - self.side

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats, float64, (B,); -inf on light squares and off the board."""
        cell = torch.floor((x.double() + self.side) * self.squares / (2 * self.side))
        dark = (cell.sum(-1) % 2 == 0) & ((cell >= 0) & (cell < self.squares)).all(-1)
        level = -math.log(2 * self.side**2)
        return torch.where(dark, level, -torch.inf).double()


class MarkovChain:
    """A stationary chain of tokens: each follows from the one before.

    Args:
        transition: probabilities of the next token, rows = present token, (V, V).
        length: tokens a sequence.

    Raises:
        GenmatchError: if `transition` is not square, or its rows do not sum to 1.
    """

    __repr__ = described

    def __init__(self, transition: Tensor, length: int) -> None:
        self.transition = transition.double()
        if transition.dim() != 2 or transition.shape[0] != transition.shape[1] or not bool(((self.transition.sum(-1) - 1).abs() < 1e-6).all()):
            raise GenmatchError(f"`transition` must be a square matrix whose rows sum to 1, got shape {tuple(transition.shape)}.")
        self.transition = self.transition / self.transition.sum(-1, keepdim=True)
        self.length = length
        self.start = _stationary(self.transition)

    def sample(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        """`n` sequences, (n, length), int64."""
        tokens = [draw_categorical(self.start.log().expand(n, -1), rng=rng)]
        for _ in range(self.length - 1):
            tokens.append(draw_categorical(self.transition.log()[tokens[-1]], rng=rng))
        return torch.stack(tokens, -1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log probability in nats, float64, (B,)."""
        return self.start.log()[x[:, 0]] + self.transition.log()[x[:, :-1], x[:, 1:]].sum(-1)


def _stationary(transition: Tensor) -> Tensor:
    """The law p with p = p T and sum p = 1, by least squares: the equations are one too many and consistent."""
    v = len(transition)
    equations = torch.cat([transition.T - torch.eye(v, dtype=torch.float64), torch.ones(1, v, dtype=torch.float64)])
    right = torch.zeros(v + 1, dtype=torch.float64)
    right[-1] = 1
    law = torch.linalg.lstsq(equations, right.unsqueeze(-1)).solution.squeeze(-1).clamp(min=0)
    return law / law.sum()
