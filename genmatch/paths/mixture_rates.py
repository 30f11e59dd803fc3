r"""The ways to follow a mixture path by jumps of single tokens.

With $w = \dot\kappa / (1 - \kappa)$, $b = \dot\kappa / \kappa$ and $\pi$ the posterior of $x_1^j$, for $v \ne x_j$:

    mixture rates     Q(v | x) = w pi(v)
    reversal rates    R(v | x) = w pi(v) + b p_0(v) (A + kappa (1 - pi(x_j))) / (A + kappa),   A = (1 - kappa) p_0(x_j)

The second is the time reversal of the noising chain, which redraws a token from $p_0$ at rate $b$: the sum over $z$ of
$\pi(z)\, b\, p_0(x_j)\, p_t(v | z) / p_t(x_j | z)$, written out. They agree for the mask, and for no other source. The
likelihood bound of the reversal rates is tight. A third, the corrector, runs forwards and back at once and stays where it is.

Sources: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595, eq. 10; "Score-based Continuous-time
Discrete Diffusion Models" (Sun et al., 2023), https://arxiv.org/abs/2211.16750, proposition 3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genmatch.generators import Categorical as TokenLaw
from genmatch.generators import Jump
from genmatch.generators import Mixture as EitherLaw
from genmatch.generators.algebra import add_jumps
from genmatch.logits import draw_where
from genmatch.paths.rates import Rates
from genmatch.paths.visits import EARLIEST
from genmatch.tensors import bernoulli, expand, scatter, uniforms

if TYPE_CHECKING:
    from genmatch.paths import mixture


class MixtureRates(Rates):
    """At rate w a token that can be noise is redrawn from its posterior; each token of noise jumps once."""

    def __init__(self, path: mixture.Mixture) -> None:
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

        Source: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595.
        """
        where = self.path.is_noise(x)
        state, token, log_probs = x[where], x1[where], logits[where].log_softmax(-1)
        cost = -log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1).double()
        nats = torch.where(state == token, 1.0, cost) - _probability_of(log_probs, state)
        return self.path.schedule.rate(t) * scatter(where, nats).flatten(1).sum(-1)

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

    def __init__(self, path: mixture.Mixture) -> None:
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

    def __init__(self, path: mixture.Mixture) -> None:
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
