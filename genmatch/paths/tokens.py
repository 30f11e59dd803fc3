r"""Paths of tokens that move independently given the data, and the rates by which a Markov chain follows one.

    p_t(x | x1) = prod_j p_t(x_j | x1_j)

A path of tokens knows the likelihood $p_t(x_j | z)$ of each data token $z$, and the ways to follow it: conditional rates
$Q_t^z(v | x)$ to each state $v$ with $\dot p = Q p$. Averaged over the posterior $\pi$ of the data they are the rates

    Q_t(v | x) = sum_z pi(z | x) Q_t^z(v | x)

that generate the data. Rate and destination are averaged together: a jump draws $z$ in proportion to $\pi(z) \lambda^z(x)$,
with $\lambda^z$ the exit rate, and then $v$ in proportion to $Q^z(v | x)$, which costs O(V) a jump.

Source: "Generative Flows on Discrete State-Spaces" (Campbell et al., 2024), https://arxiv.org/abs/2402.04997, proposition 3.1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.destinations import Chained
from genmatch.errors import GenmatchError
from genmatch.generators import Jump
from genmatch.logits import draw_at
from genmatch.paths.base import Path
from genmatch.paths.rates import Rates
from genmatch.paths.visits import LATEST
from genmatch.spaces import Categorical
from genmatch.tensors import expand, uniforms

_AT_ONCE = 2**22
"""Rates that are computed at a time: bounds the memory."""


class TokenPath(Path):
    """A path of independent tokens. Subclasses define `likelihood`, `token_prob` and `rates`."""

    space: Categorical
    t_end = LATEST

    @property
    def signature(self) -> tuple[object, ...]:
        # Tables and functions have no names to compare by: only a path itself is known to be the same.
        return *super().signature, id(self)

    @property
    def data_space(self) -> Categorical:
        return Categorical(self.space.shape, self.space.vocab_size)

    @property
    @abstractmethod
    def rates(self) -> Mapping[str, Rates]:
        """The ways to follow this path by name, the usual one first."""

    @abstractmethod
    def likelihood(self, x: Tensor, t: Tensor) -> Tensor:
        """p_t(x_j | v), the probability of each token of `x` given each data token v, float64, (B, *shape, V)."""

    @abstractmethod
    def token_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """Probability of each token of `x` under p_t(. given x1), float64, (B, *shape)."""

    def known(self, x1: Tensor, t: Tensor, x0: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The tokens themselves, at every time.

        With the mask as source a token that is data stays, so this is exact: the posterior of the rest given it is that of
        the data. Elsewhere the network takes it for a token that may be noise, and makes less of it early on.
        """
        return x1

    def is_noise(self, x: Tensor) -> Tensor:
        """Where a token can be noise, (B, *shape); elsewhere it must be data, and stays."""
        return torch.ones_like(x, dtype=torch.bool)

    def _log_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        return self.token_prob(x, t, x1).log().flatten(1).sum(-1)


class TablePath(TokenPath):
    """A path of tokens whose law is a table at each time: for vocabularies of up to a few hundred tokens.

    Subclasses define `table` and `rates`. The table at t = 0 must have equal columns, and that at t = 1 must be the identity.
    """

    @abstractmethod
    def table(self, t: Tensor) -> Tensor:
        """p_t(x | z) at distinct times `t`, (U,): float64, (U, V, V), each column [u, :, z] a law."""

    def likelihood(self, x: Tensor, t: Tensor) -> Tensor:
        table, time = self._table(t, x)
        return table[time, x]

    def token_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        table, time = self._table(t, x)
        return table[time, x, x1]

    def _table(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The table at the distinct times of `t`, (U, V, V), and which of them each token of `x` has, (B, *shape)."""
        distinct, index = t.unique(return_inverse=True)
        return self.table(distinct), expand(index, x).expand_as(x)

    def _start(self, device: torch.device) -> Tensor:
        """p_0, the law of a noise token, (V,)."""
        return self.table(torch.zeros(1, dtype=torch.float64, device=device))[0, :, 0]

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        law = self._start(rng.device if rng else torch.device("cpu"))
        everywhere = torch.ones(n, self.space.size, dtype=torch.bool, device=law.device)
        return draw_at(law.log().expand(n * self.space.size, -1), everywhere, rng=rng).reshape(n, *self.space.shape)

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        """From `x0` by the coupling that keeps as many tokens as it can: x0 stays with probability min(1, p_t(x0) / p_0(x0))."""
        x0 = self._source(len(x1), rng).to(x1.device) if x0 is None else x0
        table, time = self._table(t, x1)
        law, start = table.mT[time, x1], self._start(t.device)
        keep = law.gather(-1, x0.unsqueeze(-1)).squeeze(-1) / start[x0]
        moves = uniforms(x1, rng=rng) >= keep
        return x0.masked_scatter(moves, draw_at((law - start).clamp(min=0).log()[moves], moves, rng=rng))


class AveragedRates(Rates):
    """Rates given by `jumps`, from one state and for one data token at a time.

    Args:
        path: the path that they follow.
    """

    def __init__(self, path: TokenPath) -> None:
        self.num_tokens = path.space.vocab_size

    @abstractmethod
    def clock(self, t: Tensor) -> Tensor:
        """A factor of all rates, (B,); it may be infinite at the ends of time, where the rest stays finite."""

    @abstractmethod
    def jumps(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Q_t^z(v | x) over the clock, to each state v, for states, data tokens and times (N,): float64, (N, V), zero at v = x."""

    def generator(self, logits: Tensor, x: Tensor, t: Tensor) -> Jump:
        weights = logits.log_softmax(-1) + self._exits(x, t).log()
        total = weights.exp().sum(-1)
        flat_x, flat_t = x.flatten(), expand(t, x).expand_as(x).flatten()

        def law(index: Tensor, z: Tensor) -> Tensor:
            return self.jumps(flat_x[index], z, flat_t[index])

        intensity = torch.where(total > 0, expand(self.clock(t), x) * total, 0)
        return Jump(intensity, Chained(weights, law))

    def _exits(self, x: Tensor, t: Tensor) -> Tensor:
        """The exit rate over the clock for each data token, (B, *shape, V): found once for each pair of a time and a state."""
        times, time = t.unique(return_inverse=True)
        size = int(x.max()) + 1
        pairs, index = (expand(time, x) * size + x).unique(return_inverse=True)
        states, moments = pairs % size, times[pairs // size]

        def exits(z: Tensor) -> Tensor:
            each, moment = states.repeat_interleave(len(z)), moments.repeat_interleave(len(z))
            return self.jumps(each, z.repeat(len(states)), moment).sum(-1).view(len(states), -1)

        at_once = max(1, _AT_ONCE // (len(states) * self.num_tokens))
        return torch.cat([exits(z) for z in torch.arange(self.num_tokens, device=x.device).split(at_once)], -1)[index]


def real_matrix(value: Any, name: str, shape: str) -> Tensor:
    """Returns `value` as a finite matrix, float64, or raises `GenmatchError`; `shape` is what the message says of it, such as "(V, V)"."""
    try:
        matrix = torch.as_tensor(value).double()
    except (TypeError, ValueError, RuntimeError):
        raise GenmatchError(f"`{name}` must be a tensor of shape {shape}, got {value!r}.") from None
    if matrix.dim() != 2 or not bool(matrix.isfinite().all()):
        raise GenmatchError(f"`{name}` must be a finite tensor of shape {shape}, got shape {tuple(matrix.shape)}.")
    return matrix
