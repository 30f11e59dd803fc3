r"""The factorized mixture path of discrete flow matching.

    p_t(x | x1) = prod_j [(1 - kappa_t) p_0^j(x_j) + kappa_t 1[x_j = x1_j]]

Each token is data with probability kappa_t and a draw from the source otherwise. The source decides the family: the mask
for masked diffusion, the uniform law for uniform diffusion, or any law of tokens. Two chains follow it. With
$w = \dot\kappa / (1 - \kappa)$, $b = \dot\kappa / \kappa$ and $\pi$ the posterior of $x_1^j$, for $v \ne x_j$:

    mixture rates     Q(v | x) = w pi(v)
    reversal rates    R(v | x) = w pi(v) + b p_0(v) (A + kappa (1 - pi(x_j))) / (A + kappa),   A = (1 - kappa) p_0(x_j)

The second is the time reversal of the noising chain, which redraws a token from $p_0$ at rate $b$: the sum over $z$ of
$\pi(z)\, b\, p_0(x_j)\, p_t(v | z) / p_t(x_j | z)$, written out. They agree for the mask, and for no other source. The
likelihood bound of the reversal rates is tight. A third, the corrector, runs forwards and back at once and stays where it is.

Sources: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595, eq. 10; "Score-based Continuous-time
Discrete Diffusion Models" (Sun et al., 2023), https://arxiv.org/abs/2211.16750, proposition 3.2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, unknown
from genmatch.generators import Categorical as TokenLaw
from genmatch.generators import Jump, add_jumps
from genmatch.generators import Mixture as EitherLaw
from genmatch.logits import draw_at, draw_where
from genmatch.paths.base import with_kappa
from genmatch.paths.couplings import Coupling, check_coupling
from genmatch.paths.rates import Rates
from genmatch.paths.tokens import TokenPath
from genmatch.paths.visits import EARLIEST, Visit, by_kappa, time_of_kappa
from genmatch.rows import integers
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Categorical
from genmatch.tensors import bernoulli, expand, scatter, uniforms


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
        self.source_probs = _source_law(source, self.space)
        self._can_be_noise = self.source_probs > 0
        self._draw = _source_draw(self.source_probs, self.space)

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
        return _looked_up(self.source_probs, x)

    def is_noise(self, x: Tensor) -> Tensor:
        """Where a token can be noise, (B, *shape): elsewhere the source never puts it, so it must be data.

        With the mask as source these are the masked positions.
        """
        return _looked_up(self._can_be_noise, x)

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
        noise = self._source(len(x1), rng).to(x1.device) if x0 is None else x0
        is_data = bernoulli(expand(self.schedule.kappa(t), x1), x1, rng=rng)
        return torch.where(is_data, x1, noise)


class MixtureRates(Rates):
    """At rate w a token that can be noise is redrawn from its posterior; each token of noise jumps once."""

    def __init__(self, path: Mixture) -> None:
        self.path = path
        self.redrawing = path.schedule

    @property
    def tight(self) -> bool:
        """Only where noise is one certain state, such as the mask: there is nothing to renew then."""
        return bool((self.path.source_probs == 1).any(-1).all())

    def generator(self, logits: Tensor, x: Tensor, t: Tensor) -> Jump:
        return Jump(expand(self.path.schedule.rate(t), x) * self.path.is_noise(x), TokenLaw(logits))

    def kl_rate(self, x1: Tensor, logits: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """w times -log pi(x1_j) - pi(x_j) where x_j is not x1_j, and 1 - pi(x_j) where it is, over the tokens that can be noise.

        Source: "Discrete Flow Matching" (Gat et al., 2024).
        """
        noise = self.path.is_noise(x)
        state, token, log_probs = x[noise], x1[noise], logits[noise].log_softmax(-1)
        cost = -log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1).double()
        nats = torch.where(state == token, 1.0, cost) - _probability_of(log_probs, state)
        return self.path.schedule.rate(t) * scatter(noise, nats).flatten(1).sum(-1)

    def transition(self, logits: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The exact jump: first which tokens are redrawn, then new ones there, so that no rare token competes with the mask."""
        probability = expand(self.path.schedule.jump_probability(t, s), x)
        jumps = bernoulli(probability, x, rng=rng) & self.path.is_noise(x)
        return x.masked_scatter(jumps, draw_where(logits, jumps, uniforms(x, rng=rng)))

    def bound(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The larger rate of the two ends: w is monotone for every schedule."""
        rate = self.path.schedule.rate
        return expand(torch.maximum(rate(t), rate(s)), x) * self.path.is_noise(x)


class ReversalRates(Rates):
    """The time reversal of the noising chain: tokens also jump among noise, infinitely often at t = 0."""

    tight = True

    def __init__(self, path: Mixture) -> None:
        self.path = path
        # Among masks there is nowhere to jump.
        self.redrawing = path.schedule if path.space.mask else None

    def generator(self, logits: Tensor, x: Tensor, t: Tensor) -> Jump:
        path, schedule = self.path, self.path.schedule
        source, kappa = path.source_prob(x), expand(schedule.kappa(t), x)
        prior = expand(schedule.sigma(t), x) * source
        share = (prior + kappa * (1 - _posterior_at(logits, x))) / (prior + kappa)
        w = expand(schedule.rate(t), x)
        # A token that is certain in the source would jump to itself; one that the source never puts does not jump.
        renewal = torch.where(source < 1, expand(schedule.backward_rate(t), x) * share, 0)
        intensity = torch.where(source > 0, w + renewal, 0)
        weight = torch.where((source > 0) & (renewal > 0), 1 / (1 + w / renewal), 0)
        states = path.source_probs.to(x.device).log().expand(*x.shape, -1)
        return Jump(intensity, EitherLaw(TokenLaw(logits), TokenLaw(states), weight))

    def transition(self, logits: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws z from the posterior and X_s from q(x_s | x_t, z), which keeps x_t, takes z, or draws from the source.

        With p_s(x_t | z) written out, x_t is kept whatever z is with probability 1 - (kappa_s - kappa_t) / (kappa_s (1 - kappa_t)).
        Only elsewhere is z needed: the token becomes z, or with probability 1 - kappa_s a draw from the source. If z is x_t
        itself, that second probability is smaller by the factor A / (A + kappa_t).
        """
        path, schedule = self.path, self.path.schedule
        touched = bernoulli(expand(schedule.jump_probability(t, s) / schedule.kappa(s), x), x, rng=rng) & path.is_noise(x)
        token = x.masked_scatter(touched, draw_where(logits, touched, uniforms(x, rng=rng)))
        prior = expand(schedule.sigma(t), x) * path.source_prob(x)
        renewal = expand(schedule.sigma(s), x) * torch.where(token == x, prior / (prior + expand(schedule.kappa(t), x)), 1)
        renewed = touched & bernoulli(renewal, x, rng=rng)
        return torch.where(renewed, path.source(len(x), rng=rng).to(x.device), token)


class CorrectorRates(Rates):
    """Forwards by the mixture rates and back into noise at rate b, in balance: p_t stays as it is.

    Source: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595, section 3.
    """

    t_min = EARLIEST
    stationary = True

    def __init__(self, path: Mixture) -> None:
        self.path = path
        self._forwards = MixtureRates(path)

    def generator(self, logits: Tensor, x: Tensor, t: Tensor) -> Jump:
        states = self.path.source_probs.to(x.device).log().expand(*x.shape, -1)
        back = Jump(expand(self.path.schedule.backward_rate(t), x).expand(x.shape), TokenLaw(states))
        return add_jumps(self._forwards.generator(logits, x, t), back)


def _posterior_at(logits: Tensor, x: Tensor) -> Tensor:
    """pi(x_j), the posterior probability of the present token, (B, *shape); zero for the mask."""
    return _probability_of(logits.log_softmax(-1), x)


def _probability_of(log_probs: Tensor, x: Tensor) -> Tensor:
    """The probability of each token of `x`, float64; zero for the mask."""
    is_token = x < log_probs.shape[-1]
    index = torch.where(is_token, x, 0).unsqueeze(-1)
    return torch.where(is_token, log_probs.gather(-1, index).squeeze(-1).exp(), 0).double()


def _looked_up(table: Tensor, x: Tensor) -> Tensor:
    """The entry for each token of `x`, (B, *shape), in a table over states, (S,) or (*shape, S)."""
    table = table.to(x.device)
    return table[x] if table.dim() == 1 else table.expand(len(x), *table.shape).gather(-1, x.unsqueeze(-1)).squeeze(-1)


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
        return integers(space.num_states, (n, *space.shape), device=rng.device if rng else None, rng=rng)

    def any_law(n: int, rng: torch.Generator | None) -> Tensor:
        rows = law.log().to(rng.device if rng else None).expand(n, *space.shape, space.num_states)
        everywhere = torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        return draw_at(rows.reshape(-1, space.num_states), everywhere, rng=rng).reshape(n, *space.shape)

    if law.dim() == 1 and bool((law == 1).any()):
        return certain
    if law.dim() == 1 and bool((law == law[0]).all()):
        return equal
    return any_law
