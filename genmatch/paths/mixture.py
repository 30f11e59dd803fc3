r"""The factorized mixture path of discrete flow matching.

    p_t(x | x1) = prod_j [(1 - kappa_t) p_0^j(x_j) + kappa_t 1[x_j = x1_j]]

Each token is data with probability kappa_t and a draw from the source otherwise. The source decides the family: the mask
for masked diffusion, the uniform law for uniform diffusion, or any law of tokens.

Source: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595, eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, unknown
from genmatch.paths.base import Path, check_schedule
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Categorical
from genmatch.tensors import bernoulli, draw_categorical, expand


class Mixture(Path):
    """Tokens that are noise or data.

    Args:
        shape: shape of one state, such as (256,).
        vocab_size: number of tokens V of the data.
        source: "mask" (an extra state V), "uniform", a law of tokens (V,), or a law for each position (*shape, V).
        schedule: gives kappa, the probability of data.

    Raises:
        GenmatchError: if the source is not a law of tokens, or the schedule has no kappa.

    Example:
        >>> path = Mixture((3,), vocab_size=5, source="mask")
        >>> path.source(1)
        tensor([[5, 5, 5]])
    """

    space: Categorical

    def __init__(self, shape: tuple[int, ...], vocab_size: int, *, source: str | Tensor = "mask", schedule: Schedule = CondOT()) -> None:  # noqa: B008 (immutable)
        self.space = Categorical(shape, vocab_size, mask=isinstance(source, str) and source == "mask")
        self.schedule = check_schedule(schedule)
        self.schedule.kappa(torch.zeros(1))
        self._name = source if isinstance(source, str) else "tokens"
        self.source_probs = _source_law(source, self.space)
        self._draw = _source_draw(self.source_probs, self.space)

    def __repr__(self) -> str:
        return f"Mixture({self.space.shape}, vocab_size={self.space.vocab_size}, source={self._name!r}, schedule={self.schedule})"

    @property
    def signature(self) -> tuple[object, ...]:
        return *super().signature, tuple(self.source_probs.flatten().tolist())

    @property
    def data_space(self) -> Categorical:
        return Categorical(self.space.shape, self.space.vocab_size)

    def source_prob(self, x: Tensor) -> Tensor:
        """p_0^j(x_j), the probability of each token of `x` under the source, float64, (B, *shape)."""
        law = self.source_probs.to(x.device)
        return law[x] if law.dim() == 1 else law.expand(len(x), *law.shape).gather(-1, x.unsqueeze(-1)).squeeze(-1)

    def is_noise(self, x: Tensor) -> Tensor:
        """Where a token can be noise, (B, *shape): elsewhere the source never puts it, so it must be data.

        With the mask as source these are the masked positions.
        """
        return self.source_prob(x) > 0

    def token_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """Probability of each token of `x` under p_t(. given x1), float64, (B, *shape)."""
        sigma, kappa = (c.reshape(-1, *[1] * (x.dim() - 1)) for c in (self.schedule.sigma(t), self.schedule.kappa(t)))
        return sigma * self.source_prob(x) + kappa * (x == x1)

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        return self._draw(n, rng)

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        noise = self._source(len(x1), rng).to(x1.device) if x0 is None else x0
        is_data = bernoulli(expand(self.schedule.kappa(t), x1), x1, rng=rng)
        return torch.where(is_data, x1, noise)

    def _log_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        return self.token_prob(x, t, x1).log().flatten(1).sum(-1)


def _source_law(source: Any, space: Categorical) -> Tensor:
    """The law of a noise token over all states, float64, (S,) or (*shape, S)."""
    if isinstance(source, str):
        if source == "mask":
            law = torch.zeros(space.num_states, dtype=torch.float64)
            law[space.mask_id] = 1.0
            return law
        if source == "uniform":
            return torch.full((space.num_states,), 1 / space.num_states, dtype=torch.float64)
        raise unknown("source", source, ["mask", "uniform"])
    try:
        law = torch.as_tensor(source).double()
    except (TypeError, ValueError, RuntimeError):
        raise GenmatchError(f"`source` must be 'mask', 'uniform' or a tensor of probabilities, got {source!r}.") from None
    shapes = ((space.num_states,), (*space.shape, space.num_states))
    if tuple(law.shape) not in shapes:
        raise GenmatchError(f"`source` must have shape {shapes[0]} or {shapes[1]}, got {tuple(law.shape)}.")
    total = law.sum(-1)
    if not bool((law >= 0).all()) or not bool(((total - 1).abs() < 1e-6).all()):
        raise GenmatchError(
            f"`source` must hold probabilities that sum to 1, got a minimum of {law.min():.3g} and sums from {total.min():.6g} to {total.max():.6g}; divide by the sum."
        )
    return law / total.unsqueeze(-1)


def _source_draw(law: Tensor, space: Categorical) -> Callable[[int, torch.Generator | None], Tensor]:
    """How to draw noise from `law`: nothing to draw for a certain token, and no table for equal probabilities."""

    def certain(n: int, rng: torch.Generator | None) -> Tensor:
        return torch.full((n, *space.shape), int(law.argmax()), device=rng.device if rng else None)

    def equal(n: int, rng: torch.Generator | None) -> Tensor:
        return torch.randint(space.num_states, (n, *space.shape), device=rng.device if rng else None, generator=rng)

    def any_law(n: int, rng: torch.Generator | None) -> Tensor:
        rows = law.log().to(rng.device if rng else None).expand(n, *space.shape, space.num_states)
        return draw_categorical(rows.reshape(-1, space.num_states), rng=rng).reshape(n, *space.shape)

    if law.dim() == 1 and bool((law == 1).any()):
        return certain
    if law.dim() == 1 and bool((law == law[0]).all()):
        return equal
    return any_law
