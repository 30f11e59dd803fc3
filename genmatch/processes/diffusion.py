r"""Diffusion: $dX = (u_t + \tfrac12 g_t^2\, s_t)\,dt + g_t\,dW$, with the law of the flow at every time and for any $g_t \ge 0$.

$u_t$ is the marginal velocity and $s_t$ the score. With the prediction of the data frozen the equation is linear: the noise
$Y = (X - \alpha x_1) / \sigma$ obeys $dY = -\tfrac12 (g/\sigma)^2 Y\,dt + (g/\sigma)\,dW$, so

    X_s = alpha_s x1 + sigma_s (r Y_t + sqrt(1 - r^2) xi),   r = exp(-1/2 int_t^s (g / sigma)^2).

Sources: "Score-Based Generative Modeling through SDEs" (Song et al., 2021), https://arxiv.org/abs/2011.13456; "Stochastic
Interpolants" (Albergo et al., 2023), https://arxiv.org/abs/2303.08797, section 2.4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.destinations import gauss_legendre
from genmatch.errors import GenmatchError, number_in
from genmatch.generators import Brownian, Drift, Generator
from genmatch.paths.base import Path
from genmatch.paths.gaussian import Gaussian
from genmatch.processes.velocity import VelocityProcess
from genmatch.tensors import expand

_SHARES, _WEIGHTS = gauss_legendre(32, torch.empty(0, dtype=torch.float64))


class Diffusion(VelocityProcess):
    """A stochastic differential equation with the same marginals as the flow.

    Near t = 1 noise that does not fade with sigma is renewed many times a step, and a step with the prediction frozen is
    then of order 1/2 only. Noise with g^2 in proportion to sigma, such as `lambda t: torch.sqrt(2 * (1 - t))`, keeps order 1.

    Args:
        path: a Gaussian path.
        noise: g, a non-negative number, or a function of times (B,) that returns g of shape (B,).
        prediction: what the network returns: "velocity", "data", "noise" or "score".

    Raises:
        GenmatchError: if the path is not Gaussian or has a coupling, the noise is negative, or the prediction is unknown.
    """

    path: Gaussian
    kinds = frozenset({"drift", "brownian"})

    def __init__(self, path: Path, noise: float | Callable[[Tensor], Tensor] = 1.0, prediction: str = "data") -> None:
        if not isinstance(path, Gaussian):
            raise GenmatchError(f"Diffusion needs a Gaussian path, got {path!r}; pass `gm.paths.Gaussian(shape)`.")
        path.require_independent("a diffusion")
        super().__init__(path, prediction)
        if not callable(noise):
            number_in("[0, inf)", noise, "noise", "a function of t will do too")
        self.noise = noise

    def __repr__(self) -> str:
        noise = getattr(self.noise, "__qualname__", self.noise)
        return f"Diffusion({self.path}, noise={noise}, prediction={self.prediction!r})"

    def g(self, t: Tensor) -> Tensor:
        """The diffusion coefficient at times `t`, float64, (B,).

        Raises:
            GenmatchError: if the user's function returns another shape, or a negative or non-finite value.
        """
        if not callable(self.noise):
            return torch.full_like(t, float(self.noise), dtype=torch.float64)
        value = self.noise(t)
        if not isinstance(value, Tensor):
            raise GenmatchError(f"`noise(t)` must return a tensor of shape {tuple(t.shape)}, got {value!r}.")
        g = value.double()
        if g.shape != t.shape or not bool((g >= 0).all()) or not bool(g.isfinite().all()):
            raise GenmatchError(f"`noise(t)` must return finite values of at least 0 with shape {tuple(t.shape)}, got shape {tuple(g.shape)}: {g}.")
        return g

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        variance = expand(self.g(t) ** 2, x)
        velocity = self.predict(output, x, t, "velocity") + variance / 2 * self.predict(output, x, t, "score")
        return Drift(velocity) + Brownian(variance)

    @property
    def bound(self) -> str:
        return f"Diffusion({self.path}, noise=memoryless, prediction={self.prediction!r})"

    @property
    def bound_is_tight(self) -> bool:
        return True

    def kl_rate(self, output: Tensor, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """The variational bound of diffusion, |x1 - x1'|^2 dSNR/dt / 2 with SNR = alpha^2 / sigma^2: memoryless noise, whatever g.

        A network serves every noise level, and |u - u'|^2 / (2 g^2) is least at g^2 = 2 sigma Delta / alpha, where the process is the
        time reversal of classical noising; for noise that does not fade with sigma it has no finite integral.

        Source: "Variational Diffusion Models" (Kingma et al., 2021), https://arxiv.org/abs/2107.00630.
        """
        schedule = self.path.schedule
        slope = 2 * schedule.alpha(t) * schedule.delta(t) / schedule.sigma(t) ** 3
        gap = (x1 - self.predict(output, x, t, "data")).double()
        return slope / 2 * gap.square().flatten(1).sum(-1)

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return self.bridge(output, x, t, s, self._memory(t, s), rng=rng)

    def gain(self, t: Tensor, s: Tensor) -> Tensor:
        return self.meaning.gain(t, s, self._memory(t, s))

    def _memory(self, t: Tensor, s: Tensor) -> Tensor:
        """exp(-1/2 of the integral of (g / sigma)^2 from `t` to `s`), by Gauss-Legendre in y = -log(1 - time), where it is smooth."""
        early, late = torch.log1p(1e-12 - torch.stack([t, s], -1)).split(1, -1)
        left = torch.lerp(early, late, _SHARES.to(t.device)).exp()
        time = (1 - left).clamp(0, 1 - 1e-12).flatten()
        density = (self.g(time) / self.path.schedule.sigma(time)).square().view_as(left)
        return torch.exp(((late - early) / 2 * _WEIGHTS.to(t.device) * left * density).sum(-1))
