r"""The path that reveals a sequence block by block, in any order inside a block: between masked diffusion and writing from left to right.

    p_t(x | x1) = Binomial(k; L, kappa_t) / C(n, r)

for x with k tokens of x1 revealed: all of the blocks before the open one, r of the n tokens of that block, and masks after it. Of the
$m = n - r$ masks of the open block each becomes data at rate $N w_t / m$, with $N = L - k$ masks in all and $w = \dot\kappa / (1 - \kappa)$:
as many are data at each time as on the masked mixture path, of which only the order is another. One block is that path, and blocks
of one token are `Sequential`.

Source: "Block Diffusion: Interpolating Between Autoregressive and Diffusion Language Models" (Arriola et al., ICLR 2025),
https://arxiv.org/abs/2503.09573, whose blocks follow each other as here, each with a clock of its own; the law and its bound are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import positive_integer
from genmatch.paths.base import Path, with_kappa
from genmatch.paths.visits import Visit, by_kappa, time_of_kappa
from genmatch.rows import uniform
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Categorical
from genmatch.tensors import bernoulli, expand, uniforms


class Blocks(Path):
    """Tokens that are revealed block by block.

    Args:
        length: tokens L of a sequence.
        vocab_size: number of tokens V; the mask is V.
        block: tokens a block; the last block has what is left.
        schedule: gives kappa, the mean share of revealed tokens.

    Example:
        >>> path = Blocks(6, vocab_size=9, block=3)
        >>> path.sample(torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([0.6]), rng=torch.Generator().manual_seed(8))
        tensor([[1, 2, 3, 9, 5, 9]])
    """

    space: Categorical

    def __init__(self, length: int, vocab_size: int, block: int, *, schedule: Schedule = CondOT()) -> None:  # noqa: B008 (immutable)
        self.space = Categorical((length,), vocab_size, mask=True)
        self.block = positive_integer(block, "block")
        self.schedule = with_kappa(schedule)

    def __repr__(self) -> str:
        return f"Blocks({self.space.size}, vocab_size={self.space.vocab_size}, block={self.block}, schedule={self.schedule})"

    @property
    def data_space(self) -> Categorical:
        return Categorical(self.space.shape, self.space.vocab_size)

    def turns(self, x: Tensor) -> Tensor:
        """The block of each position, (L,), on the device of `x`."""
        return torch.arange(self.space.size, device=x.device) // self.block

    def sizes(self, x: Tensor) -> Tensor:
        """How many tokens the block of each position has, (L,)."""
        turns = self.turns(x)
        return turns.bincount()[turns]

    def open(self, x: Tensor) -> Tensor:
        """Where the masks of the first block are that has any, (B, L): those that may become data now."""
        masked, turns = x == self.space.mask_id, self.turns(x)
        first = torch.where(masked, turns, self.space.size).amin(-1, keepdim=True)
        return masked & (turns == first)

    def places(self, keys: Tensor) -> Tensor:
        """The place of each position in the order of the blocks, and of `keys` in [0, 1] inside a block, (B, L), from 0."""
        return (self.turns(keys) + keys).argsort(dim=-1, stable=True).argsort(-1)

    def known_misfit(self, mask: Tensor) -> str | None:
        left = torch.where(mask, self.space.size, self.turns(mask)).amin(-1, keepdim=True)
        gaps = bool((mask & (self.turns(mask) > left)).any())
        return (
            f"blocks of {self.block} are filled one after the other, so what is known must be whole blocks at the beginning and a part of the next; use a CTMC"
            if gaps
            else None
        )

    def warp(self, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        return by_kappa(self.schedule, u, start, end)

    def visit(self, x1: Tensor, u: Tensor, start: float, end: float, *, rng: torch.Generator | None = None) -> Visit:
        """States on the way to `x1`; over all of time, with the number of masked tokens uniform in 1 .. L, as on the masked mixture path."""
        if (start, end) != (0.0, 1.0):
            return super().visit(x1, u, start, end, rng=rng)
        size = self.space.size
        count = (u * size).long().clamp(max=size - 1) + 1
        keys = uniforms(x1, rng=rng)
        sigma = keys.sort(-1).values.gather(-1, count.unsqueeze(-1) - 1).squeeze(-1)
        t = time_of_kappa(self.schedule, 1 - sigma, sigma)
        # The smallest keys are masked, as there.
        x = torch.where(self.places(1 - keys) >= size - count.unsqueeze(-1), self.space.mask_id, x1)
        return Visit(x, t, size / (count * self.schedule.rate(t)))

    def streams(self, x1: Tensor, u: Tensor, *, rng: torch.Generator | None = None) -> Visit:
        """Every block noised on its own and, after them, the data: a state of 2 L tokens that shows all blocks at once.

        The number of masked tokens of a block is uniform in 1 .. n. The blocks of a sequence have numbers that are evenly spread.

        Args:
            x1: data points, (B, L).
            u: numbers in (0, 1), float64, (B,).
            rng: source of randomness.

        Returns:
            States (B, 2 L), and weights n / m of each position that is masked, zero elsewhere, (B, L).
        """
        turns, sizes = self.turns(x1), self.sizes(x1)
        level = (u.unsqueeze(-1) + turns / (int(turns[-1]) + 1)) % 1
        count = (level * sizes).long().clamp(max=self.block - 1) + 1
        inside = self.places(uniform(tuple(x1.shape), dtype=torch.float64, device=x1.device, rng=rng)) - turns * self.block
        masked = inside < count
        noised = torch.where(masked, self.space.mask_id, x1)
        return Visit(torch.cat([noised, x1], -1), u, torch.where(masked, sizes / count, 0.0).double())

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        return torch.full((n, *self.space.shape), self.space.mask_id, device=rng.device if rng else None)

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        count = bernoulli(expand(self.schedule.kappa(t), x1), x1, rng=rng).sum(-1, keepdim=True)
        return torch.where(self.places(uniforms(x1, rng=rng)) < count, x1, self.space.mask_id)

    def _log_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        known, size = x != self.space.mask_id, self.space.size
        count = known.sum(-1)
        opened = self.open(x)
        start = torch.where(opened.any(-1), torch.where(opened, self.turns(x), 0).amax(-1), 0) * self.block
        here = torch.where(opened.any(-1), torch.where(opened, self.sizes(x), 0).amax(-1), 1)
        inside = torch.where(opened.any(-1), count - start, 0)
        # What is revealed is all that comes before the open block, and nothing that comes after it.
        ordered = (inside >= 0) & ~(known & (self.turns(x) * self.block >= (start + here).unsqueeze(-1)) & opened.any(-1, keepdim=True)).any(-1)
        fits = ordered & (~known | (x == x1)).all(-1)
        k, n = count.double(), (size - count).double()
        chances = torch.special.xlogy(k, self.schedule.kappa(t)) + torch.special.xlogy(n, self.schedule.sigma(t))
        return torch.where(fits, _log_ways(size, k) - _log_ways(here, inside) + chances, -torch.inf)


def _log_ways(n: Tensor | int, k: Tensor) -> Tensor:
    """Logarithm of the number of ways to choose k of n, float64."""
    n, k = torch.as_tensor(n, dtype=torch.float64, device=k.device), k.double()
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
