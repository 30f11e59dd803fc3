r"""Continuous-time Markov chains on tokens: discrete flow matching, masked, uniform and metric diffusion.

The network predicts the posterior $\pi^j(v | x) = p(x_1^j = v | X_t = x)$ of each token, or what determines it. A path of tokens
owns conditional rates $Q_t^z(v | x_j)$ that lead to a data token $z$; the chain follows their average

    Q^j(v | x) = sum_z pi^j(z | x) Q_t^z(v | x_j) :

on the mixture path, at rate $w_t$ a token is redrawn from its posterior. With the posterior frozen, mixture and reversal rates
have an exact draw of any later state. A token that the source never puts is data already and stays: with the mask as source,
every token that is not the mask.

Sources: "Discrete Flow Matching" (Gat et al., 2024), https://arxiv.org/abs/2407.15595, theorem 3; "Generative Flows on
Discrete State-Spaces" (Campbell et al., 2024), https://arxiv.org/abs/2402.04997, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, unknown
from genmatch.generators import Generator
from genmatch.logits import draw_where
from genmatch.paths.base import Path
from genmatch.paths.couplings import Coupling
from genmatch.paths.mixture import Mixture
from genmatch.paths.tokens import TokenPath
from genmatch.paths.visits import EARLIEST
from genmatch.processes.base import LogWeight
from genmatch.processes.posterior import PosteriorProcess
from genmatch.processes.tokens import PREDICTIONS, convert, present, tilted_cavity, with_score
from genmatch.schedules import Schedule
from genmatch.tensors import expand, scatter, uniforms


class CTMC(PosteriorProcess):
    """Tokens that jump from noise to data.

    Args:
        path: a path of tokens: `Mixture`, `Metric`, `Noising` or `Discrete`.
        prediction: what the network returns, (B, *shape, V): "posterior", logits of p(x1_j given x); "cavity", logits of p(x1_j
            given the other tokens); "score", log ratios p_t(x with x_j = v) / p_t(x), on a mixture path.
        rates: how the path is followed, by default in its usual way: "mixture" or "reversal" on a mixture path, "kinetic" on a
            metric or discrete one, "reversal" on a noising one; "corrector", on a mixture path, to stay at p_t.

    Raises:
        GenmatchError: if the path has no tokens, a name is unknown, or a score is asked for off a mixture path.

    Example:
        >>> from genmatch.paths import Mixture
        >>> process = CTMC(Mixture((3,), vocab_size=5, source="uniform"), rates="reversal")
        >>> process.output_shape
        (3, 5)
    """

    path: TokenPath
    kinds = frozenset({"jump"})

    def __init__(self, path: Path, prediction: str = "posterior", rates: str | None = None) -> None:
        if not isinstance(path, TokenPath):
            raise GenmatchError(f"CTMC needs a path of tokens, got {path!r}; pass e.g. `gm.paths.Mixture(shape, vocab_size)`.")
        if prediction not in PREDICTIONS:
            raise unknown("prediction", str(prediction), PREDICTIONS)
        if prediction == "score":
            with_score(path)
        if prediction != "posterior":
            path.require_independent(f"a prediction of the {prediction}")
        self.path = path
        self.prediction = prediction
        self.rates = next(iter(path.rates)) if rates is None else rates
        if self.rates not in path.rates:
            raise unknown("kind of rates", str(rates), list(path.rates))
        self._rates = path.rates[self.rates]
        # Anything but the posterior itself is converted, as a whole.
        self.sparse = prediction == "posterior"
        # Where kappa = 0 a score is that of the noise, whatever the data.
        self.t_min = max(EARLIEST if prediction == "score" else 0.0, self._rates.t_min)
        self.stationary = self._rates.stationary

    def __repr__(self) -> str:
        return f"CTMC({self.path}, prediction={self.prediction!r}, rates={self.rates!r})"

    def coupled(self, coupling: Coupling) -> CTMC:
        if self.rates != "mixture":
            raise GenmatchError(f"the {self.rates} rates renew noise from the source, whatever its data; a coupling needs rates='mixture'.")
        return CTMC(self.path.coupled(coupling), self.prediction, self.rates)

    def predict(self, output: Tensor, x: Tensor, t: Tensor, kind: str) -> Tensor:
        """Converts a network's output.

        Args:
            output: what the network returned, (B, *shape, V).
            x: states, (B, *shape).
            t: times in [t_min, 1), (B,).
            kind: "posterior", "cavity" or "score".
        """
        if kind != self.prediction:
            self.path.require_independent(f"the {kind}")
        return convert(output, x, t, self.path, self.prediction, kind)

    def posterior(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Logits of p(x1_j = v given x), (B, *shape, V)."""
        return self.predict(output, x, t, "posterior")

    def cavity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Logits of p(x1_j = v given the other tokens of x), (B, *shape, V), from an output at `x`; for masks, where x is the mask only."""
        return self.predict(output, x, t, "cavity")

    def is_noise(self, x: Tensor) -> Tensor:
        """Where a token can be noise, (B, *shape); elsewhere it is data, and stays."""
        return self.path.is_noise(x)

    def masked(self, x: Tensor) -> Tensor:
        """Where a token is the mask, (B, *shape): noise that no token of the data is taken for."""
        return x == self.path.space.mask_id

    def turns(self, x: Tensor) -> Tensor:
        """Masks of a chain may be revealed in any order: all positions have one turn, (*shape)."""
        return torch.zeros_like(x[0])

    def hidden(self, x: Tensor, where: Tensor) -> Tensor:
        """The states without what they say at `where`, (B, *shape): masked there, if there is a mask."""
        space = self.path.space
        return x.masked_fill(where, space.mask_id) if space.mask else x

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_t given X_s = x for an earlier time `t`, with no network, on a mixture path."""
        return self.path.renoise(x, s, t, rng=rng)  # type: ignore[attr-defined]

    @property
    def redrawing(self) -> Schedule:
        """The schedule by which tokens that can be noise are redrawn from their posterior, where the rates do no more than that.

        Raises:
            GenmatchError: if the rates do more than that.
        """
        if self._rates.redrawing is None:
            raise GenmatchError(
                f"the {self.rates} rates of {self.path} do more than redraw tokens from their posterior; use rates='mixture' on a mixture path."
            )
        return self._rates.redrawing

    def natural(self, target: Tensor) -> Tensor:
        self._needs_no_state("natural")
        return super().natural(target)

    def mean(self, output: Tensor) -> Tensor:
        self._needs_no_state("mean")
        return super().mean(output)

    def natural_at(self, target: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return convert(super().natural(target), x, t, self.path, "posterior", self.prediction)

    def mean_at(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return super().mean(self.predict(output, x, t, "posterior"))

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the predicted tokens, nats, (B,), over the tokens that can be noise.

        For tokens as targets this is the cross-entropy of Algorithm 8 of the lecture notes on discrete diffusion. For a score it
        is the score entropy, sum over v of s log(s / s') - s + s', times (1 - kappa) p_0(x_j), which keeps it finite.
        """
        if self.prediction == "score":
            nats = self._score_entropy(self.natural_at(target, x, t), output, x, t)
            return torch.where(self.path.is_noise(x), nats, torch.zeros_like(nats)).flatten(1).sum(-1)
        return self._nats_of_noise(target, self.posterior(output, x, t), x).flatten(1).sum(-1)

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return self._rates.generator(self.predict(output, x, t, "posterior"), x, t)

    @property
    def bound_is_tight(self) -> bool:
        return self._rates.tight

    def kl_rate(self, output: Tensor, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        return self._rates.kl_rate(x1, self.predict(output, x, t, "posterior"), x, t)

    def finish_nats(self, output: Tensor, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """The cross-entropy of the tokens that `finish` draws."""
        return self._nats_of_noise(x1, self.posterior(output, x, t), x).double().flatten(1).sum(-1)

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        if not self._rates.has_transition:
            return super().transition(output, x, t, s, rng=rng)
        return self._rates.transition(self.predict(output, x, t, "posterior"), x, t, s, rng=rng)

    def finish(self, output: Tensor, x: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Every token that can be noise becomes a draw from its posterior."""
        where = self.path.is_noise(x)
        return x.masked_scatter(where, draw_where(self.posterior(output, x, t), where, uniforms(x, rng=rng)))

    def tilted(self, output: Tensor, x: Tensor, t: Tensor, log_weight: LogWeight) -> Tensor:
        """Ratios p_t(x with x_j = v) / p_t(x) are multiplied by those of the weights. Mixture paths only, of any source and with any rates."""
        cavity = tilted_cavity(self.cavity(output, x, t), x, t, with_score(self.path), log_weight)
        changed = convert(cavity, x, t, self.path, "cavity", self.prediction).to(output.dtype)
        return torch.where(self.is_noise(x).unsqueeze(-1), changed, output)

    @property
    def tilt_misfit(self) -> str | None:
        known = isinstance(self.path, Mixture) and self.path.is_independent
        return None if known else f"the ratios of the law of {self.path} do not give its posterior; those of a mixture path without a coupling do"

    def intensity_bound(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self._rates.bound(x, t, s)

    def supports(self, ability: str) -> bool:
        known = {
            "transition": self._rates.has_transition,
            "intensity_bound": self._rates.has_bound,
            "redrawing": self._rates.redrawing is not None,
            "masked": self.path.space.mask,
            "renoise": hasattr(self.path, "renoise") and self.path.is_independent,
            "cavity": self.path.is_independent,
        }
        return known[ability] if ability in known else super().supports(ability)

    def _nats_of_noise(self, target: Tensor, logits: Tensor, x: Tensor) -> Tensor:
        """The divergence of each token that can be noise, zero elsewhere, (B, *shape): only there logits are read."""
        where = self.path.is_noise(x)
        return scatter(where, self.nats(target[where], logits[where]))

    def _score_entropy(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Of the true and the predicted log scores, each coordinate, (B, *shape)."""
        mixture = with_score(self.path)
        weight = expand(mixture.schedule.sigma(t), x) * mixture.source_prob(x)
        s = target.exp()
        log_ratio = torch.where(s > 0, target, 0) - torch.where(s > 0, output, 0)
        terms = s * log_ratio - s + output.double().exp()
        return weight * torch.where(present(x, output), 0, terms).sum(-1)

    def _needs_no_state(self, name: str) -> None:
        if self.prediction != "posterior":
            raise GenmatchError(f"`{name}` of a {self.prediction} depends on the state and the time; use `{name}_at(..., x, t)`.")
