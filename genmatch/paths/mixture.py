r"""The factorized mixture path of discrete flow matching.

    p_t(x | x1) = prod_j [(1 - kappa_t) p_0^j(x_j) + kappa_t 1[x_j = x1_j]]

Each token is data with probability kappa_t and a draw from the source otherwise. The source decides the family: the mask
for masked diffusion, the uniform law for uniform diffusion, or any law of tokens. The chains that follow it are in
`genmatch.paths.mixture_rates`.

Source: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595, eq. 10.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths.base import with_kappa
from genmatch.paths.couplings import Coupling, check_coupling
from genmatch.paths.mixture_rates import CorrectorRates, MixtureRates, ReversalRates
from genmatch.paths.rates import Rates
from genmatch.paths.source_law import looked_up, source_draw, source_law
from genmatch.paths.tokens import TokenPath
from genmatch.paths.visits import Visit, by_kappa, time_of_kappa
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Categorical
from genmatch.tensors import bernoulli, expand


class Mixture(TokenPath):
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

    def __init__(self, shape: tuple[int, ...], vocab_size: int, *, source: str | Tensor = "mask", schedule: Schedule = CondOT()) -> None:  # noqa: B008 (immutable)
        self.space = Categorical(shape, vocab_size, mask=isinstance(source, str) and source == "mask")
        self.schedule = with_kappa(schedule)
        self._name = source if isinstance(source, str) else "tokens"
        self.source_probs = source_law(source, self.space)
        self._can_be_noise = self.source_probs > 0
        self._draw = source_draw(self.source_probs, self.space)

    def __repr__(self) -> str:
        coupling = "" if self.is_independent else f", coupling={self.coupling}"
        return f"Mixture({self.space.shape}, vocab_size={self.space.vocab_size}, source={self._name!r}, schedule={self.schedule}{coupling})"

    def coupled(self, coupling: Coupling) -> Mixture:
        """This path with noise that may tell of the data: given both ends its mixture rates are the same.

        Raises:
            GenmatchError: if all noise is the same, as with the mask.
        """
        if bool((self.source_probs == 1).any(-1).all()):
            raise GenmatchError(f"all noise of {self} is the same and cannot be paired with data; use source='uniform', or `gm.recipes.distill` for the mask.")
        path = copy.copy(self)
        path.coupling = check_coupling(coupling)
        return path

    @property
    def signature(self) -> tuple[object, ...]:
        return type(self), repr(self), tuple(self.source_probs.flatten().tolist())

    @property
    def rates(self) -> Mapping[str, Rates]:
        mixture: dict[str, Rates] = {"mixture": MixtureRates(self)}
        # The others renew noise from the source, whatever the data.
        return mixture | ({"reversal": ReversalRates(self), "corrector": CorrectorRates(self)} if self.is_independent else {})

    @property
    def t_end(self) -> float:  # type: ignore[override]
        """1 for the mask, where a revealed token cannot be wrong; else a network would have to be certain of every token at the end."""
        return 1.0 if self.space.mask else super().t_end

    def source_prob(self, x: Tensor) -> Tensor:
        """p_0^j(x_j), the probability of each token of `x` under the source, float64, (B, *shape)."""
        return looked_up(self.source_probs, x)

    def is_noise(self, x: Tensor) -> Tensor:
        """Where a token can be noise, (B, *shape): elsewhere the source never puts it, so it must be data.

        With the mask as source these are the masked positions.
        """
        return looked_up(self._can_be_noise, x)

    def likelihood(self, x: Tensor, t: Tensor) -> Tensor:
        values = torch.arange(self.space.vocab_size, device=x.device)
        sigma, kappa = (c.reshape(-1, *[1] * x.dim()) for c in (self.schedule.sigma(t), self.schedule.kappa(t)))
        return sigma * self.source_prob(x).unsqueeze(-1) + kappa * (x.unsqueeze(-1) == values)

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_t given X_s = x for an earlier time `t`, whatever the data: a token is kept with probability kappa_t / kappa_s.

        Args:
            x: states at `s`, (B, *shape).
            s: times in (0, 1], (B,).
            t: times in [0, s], (B,).
            rng: source of randomness.
        """
        self.require_independent("renewing noise")
        kept = bernoulli(expand(self.schedule.kappa(t) / self.schedule.kappa(s), x), x, rng=rng)
        return torch.where(kept, x, self._source(len(x), rng).to(x.device))

    def token_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        sigma, kappa = (c.reshape(-1, *[1] * (x.dim() - 1)) for c in (self.schedule.sigma(t), self.schedule.kappa(t)))
        return sigma * self.source_prob(x) + kappa * (x == x1)

    def source_nats(self, x1: Tensor, t: float) -> Tensor:
        kappa, sigma = (float(c(torch.tensor(t, dtype=torch.float64))) for c in (self.schedule.kappa, self.schedule.sigma))
        if kappa == 0:
            return super().source_nats(x1, 0.0)
        source = self.source_prob(x1)
        own = sigma * source + kappa
        return (own * (own / source).log() + sigma * (1 - source) * math.log(sigma)).flatten(1).sum(-1)

    def warp(self, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        return by_kappa(self.schedule, u, start, end)

    def visit(self, x1: Tensor, u: Tensor, start: float, end: float, *, rng: torch.Generator | None = None) -> Visit:
        """States on the way to `x1`; for the mask over all of time, with the number of masked tokens uniform in 1 .. L.

        A fully revealed state has no rate, and given n masked tokens 1 - kappa has the law Beta(n, L - n + 1), that of the n-th
        smallest of L uniform numbers: one number a token decides both the time and which tokens are masked. An integral of
        rates w c becomes the mean of c L / n, of far smaller variance than with times drawn by themselves.

        Source: "Large Language Diffusion Models" (Nie et al., 2025), https://arxiv.org/abs/2502.09992.
        """
        if not self.space.mask or (start, end) != (0.0, 1.0):
            return super().visit(x1, u, start, end, rng=rng)
        size = self.space.size
        count = (u * size).long().clamp(max=size - 1) + 1
        order = torch.rand(len(x1), size, dtype=torch.float64, device=x1.device, generator=rng)
        sigma = order.sort(-1).values.gather(-1, count.unsqueeze(-1) - 1)
        t = time_of_kappa(self.schedule, 1 - sigma.squeeze(-1), sigma.squeeze(-1))
        x = torch.where((order <= sigma).view_as(x1), self.space.mask_id, x1)
        return Visit(x, t, size / (count * self.schedule.rate(t)))

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        return self._draw(n, rng)

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        x0 = self._source(len(x1), rng).to(x1.device) if x0 is None else x0
        is_data = bernoulli(expand(self.schedule.kappa(t), x1), x1, rng=rng)
        return torch.where(is_data, x1, x0)
