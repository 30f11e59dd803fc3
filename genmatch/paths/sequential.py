r"""The path that reveals a sequence from its beginning, for models that write from left to right.

    p_t(x | x1) = Binomial(k; L, kappa_t)    for x = the first k tokens of x1, and masks after them

Of the masks that are left, $n = L - k$, the first becomes data at rate $n\,w_t$ with $w = \dot\kappa / (1 - \kappa)$, so that as many are
data at each time as on the masked mixture path; only the order is fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.paths.base import Path, with_kappa
from genmatch.paths.visits import by_kappa
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Categorical
from genmatch.tensors import bernoulli, expand


class Sequential(Path):
    """Tokens that are revealed one after the other.

    Args:
        length: tokens L of a sequence.
        vocab_size: number of tokens V; the mask is V.
        schedule: gives kappa, the mean share of revealed tokens.

    Example:
        >>> path = Sequential(4, vocab_size=9)
        >>> path.sample(torch.tensor([[1, 2, 3, 4]]), torch.tensor([0.5]), rng=torch.Generator().manual_seed(0))
        tensor([[1, 9, 9, 9]])
    """

    space: Categorical

    def __init__(self, length: int, vocab_size: int, *, schedule: Schedule = CondOT()) -> None:  # noqa: B008 (immutable)
        self.space = Categorical((length,), vocab_size, mask=True)
        self.schedule = with_kappa(schedule)

    def __repr__(self) -> str:
        return f"Sequential({self.space.size}, vocab_size={self.space.vocab_size}, schedule={self.schedule})"

    @property
    def data_space(self) -> Categorical:
        return Categorical(self.space.shape, self.space.vocab_size)

    def revealed(self, x: Tensor) -> Tensor:
        """How many tokens of each state are data, (B,)."""
        return (x != self.space.mask_id).sum(-1)

    def turns(self, x: Tensor) -> Tensor:
        """One position after the other, (L,), on the device of `x`."""
        return torch.arange(self.space.size, device=x.device)

    def known_misfit(self, mask: Tensor) -> str | None:
        gaps = bool((mask[:, 1:] & ~mask[:, :-1]).any())
        return "a process from left to right does not look ahead, so what is known must stand at the beginning; use a CTMC" if gaps else None

    def warp(self, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        return by_kappa(self.schedule, u, start, end)

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        return torch.full((n, *self.space.shape), self.space.mask_id, device=rng.device if rng else None)

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        count = bernoulli(expand(self.schedule.kappa(t), x1), x1, rng=rng).sum(-1, keepdim=True)
        return torch.where(torch.arange(self.space.size, device=x1.device) < count, x1, self.space.mask_id)

    def _log_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        count, size = self.revealed(x), self.space.size
        prefix = torch.where(torch.arange(size, device=x.device) < count.unsqueeze(-1), x1, self.space.mask_id)
        k, n = count.double(), (size - count).double()
        ways = torch.lgamma(torch.full_like(k, size + 1.0)) - torch.lgamma(k + 1) - torch.lgamma(n + 1)
        chances = torch.special.xlogy(k, self.schedule.kappa(t)) + torch.special.xlogy(n, self.schedule.sigma(t))
        return torch.where((x == prefix).all(-1), ways + chances, -torch.inf)
