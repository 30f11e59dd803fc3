r"""A path made by any noising chain: a rate matrix that carries data to noise, run back.

    p_t(. | z) = exp(u_t Q) e_z,    u_t = -log kappa_t

The chain with rate matrix $Q$ starts at the data token $z$ at $t = 1$, where its clock $u$ is 0, and has reached its stationary
law, the noise, at $t = 0$, where $u = \infty$. Its time reversal is known and follows the path,

    R^z(v | x) = b_t Q[x, v] p_t(v | z) / p_t(x | z),    b = -u' = kappa' / kappa,

and a step with $z$ known is Bayes' rule, $q(x_s | x_t, z) \propto \exp((u_t - u_s) Q)[x_t, x_s]\, p_s(x_s | z)$. With
$Q = p_0 1^\top - I$ it is the mixture path with its reversal rates.

Source: "A Continuous Time Framework for Discrete Denoising Models" (Campbell et al., 2022), https://arxiv.org/abs/2205.14987,
proposition 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.logits import draw_at, draw_where
from genmatch.paths.base import with_kappa
from genmatch.paths.rates import Rates
from genmatch.paths.tokens import AveragedRates, TablePath, real_matrix
from genmatch.paths.visits import by_kappa
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Categorical
from genmatch.tensors import expand, uniforms


class Noising(TablePath):
    """Tokens that come back from a noising chain.

    Args:
        shape: shape of one state, such as (256,).
        rate_matrix: Q[y, x], the rate from x to y of the noising chain on each token, (V, V): columns sum to zero. It must
            have one stationary law.
        schedule: gives the clock, u = -log kappa.

    Raises:
        GenmatchError: if `rate_matrix` is not one, or its chain does not forget where it started.

    Example: two states.
        >>> path = Noising((1,), torch.tensor([[-1.0, 3.0], [1.0, -3.0]]))
        >>> path.stationary
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """

    def __init__(self, shape: tuple[int, ...], rate_matrix: Tensor, *, schedule: Schedule = CondOT()) -> None:  # noqa: B008 (immutable)
        self.rate_matrix = _checked(rate_matrix)
        self.stationary = _stationary(self.rate_matrix)
        self.space = Categorical(shape, len(self.rate_matrix))
        self.schedule = with_kappa(schedule)

    def __repr__(self) -> str:
        return f"Noising({self.space.shape}, vocab_size={self.space.vocab_size}, schedule={self.schedule})"

    @property
    def rates(self) -> Mapping[str, Rates]:
        return {"reversal": ChainReversal(self)}

    def warp(self, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        return by_kappa(self.schedule, u, start, end)

    def table(self, t: Tensor) -> Tensor:
        return self.kernel(self.clock(t))

    def clock(self, t: Tensor) -> Tensor:
        """u = -log kappa, how long the chain has made noise: infinite at t = 0 and zero at t = 1."""
        kappa = self.schedule.kappa(t)
        return torch.where(kappa < 0.5, -kappa.log(), -torch.log1p(-self.schedule.sigma(t)))

    def kernel(self, u: Tensor) -> Tensor:
        """exp(u Q) for durations (U,), which may be infinite: float64, (U, V, V)."""
        matrix, limit = self.rate_matrix.to(u.device), self.stationary.to(u.device).unsqueeze(-1).expand_as(self.rate_matrix)
        forever = u.isinf().reshape(-1, 1, 1)
        finite = torch.linalg.matrix_exp(torch.where(forever, 0, u.reshape(-1, 1, 1)) * matrix)
        return torch.where(forever, limit, finite.clamp(min=0))


class ChainReversal(AveragedRates):
    """The time reversal of the noising chain; infinitely fast at t = 0."""

    tight = True

    def __init__(self, path: Noising) -> None:
        super().__init__(path)
        self.path = path

    def clock(self, t: Tensor) -> Tensor:
        return self.path.schedule.backward_rate(t)

    def jumps(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        times, time = t.unique(return_inverse=True)
        law = self.path.table(times).mT[time, z]
        ratio = law / law.gather(-1, x.unsqueeze(-1))
        # Where the path never goes there is no rate.
        rates = self.path.rate_matrix.to(x.device)[x] * ratio.nan_to_num(nan=0.0, posinf=0.0)
        return rates.scatter(-1, x.unsqueeze(-1), 0.0)

    def transition(self, logits: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws z from the posterior, and X_s from q(x_s | x_t, z): exact for one token, from t = 0 and up to s = 1."""
        z = draw_where(logits, torch.ones_like(x, dtype=torch.bool), uniforms(x, rng=rng))
        later, row = s.unique(return_inverse=True)
        durations, step = (self.path.clock(t) - self.path.clock(s)).unique(return_inverse=True)
        step, row = (expand(index, x).expand_as(x).flatten() for index in (step, row))
        weights = self.path.kernel(durations)[step, x.flatten()] * self.path.table(later).mT[row, z]
        # A posterior that is not the true one may draw a z that never leads to x; the token then becomes z.
        possible = weights.sum(-1, keepdim=True) > 0
        drawn = draw_at(torch.where(possible, weights, 1).log(), torch.ones_like(x, dtype=torch.bool), rng=rng)
        return torch.where(possible.squeeze(-1), drawn, z).reshape(x.shape)


def _checked(rate_matrix: Any) -> Tensor:
    """Returns a rate matrix in float64, or says what is wrong with it."""
    matrix = real_matrix(rate_matrix, "rate_matrix", "(V, V)")
    if matrix.shape[0] != matrix.shape[1]:
        raise GenmatchError(f"`rate_matrix` must be a finite tensor of shape (V, V), got shape {tuple(matrix.shape)}.")
    rates = matrix - matrix.diagonal().diag()
    if bool((rates < 0).any()):
        raise GenmatchError(f"`rate_matrix` must have no negative rate off its diagonal, got {float(rates.min()):.6g}.")
    gap = float(matrix.sum(0).abs().max())
    if gap > 1e-6 * float(matrix.abs().max() + 1):
        hint = "; its rows do, so pass its transpose" if float(matrix.sum(1).abs().max()) < 1e-6 else "; set the diagonal to minus the sum of the column"
        raise GenmatchError(f"the columns of `rate_matrix` must sum to zero, as Q[y, x] is the rate from x to y; they miss it by {gap:.3g}{hint}.")
    return rates - rates.sum(0).diag()


def _stationary(matrix: Tensor) -> Tensor:
    """The law that the chain reaches from any start, (V,)."""
    _, sizes, vectors = torch.linalg.svd(matrix)
    if len(sizes) > 1 and not bool(sizes[-2] > 1e-9 * (sizes[0] + 1e-300)):
        raise GenmatchError("`rate_matrix` has several stationary laws: the chain never forgets where it started, so its end is not noise; connect its parts.")
    law = vectors[-1] / vectors[-1].sum()
    return law.clamp(min=0) / law.clamp(min=0).sum()
