r"""Solvers that remember what the network said before: more order for one call a step.

On a Gaussian path, with $\lambda = \log(\alpha / \sigma)$ and the data predictions $\hat x_1$ at the present time t and $\hat x_1'$ at the time r before it,
*2M* takes the step of the process towards an extrapolated data point,

    (1 + c) \hat x_1 - c \hat x_1',   c = (lambda_s - lambda_t) / (2 (lambda_t - lambda_r)).

*Adams* moves on a circle, where Gaussian data of standard deviation $\varsigma$ stand still:

    y = x / rho,   rho^2 = varsigma^2 alpha^2 + sigma^2,   tan(theta) = varsigma alpha / sigma,
    dy/dtheta = cos(theta) E[x1 | x] / varsigma - sin(theta) E[x0 | x].

The angle runs from 0 to pi / 2 and the slope is finite at both ends for every schedule. A step of order two predicts; the call
at its end, which the next step needs anyway, corrects it to order three.

Sources: "DPM-Solver++" (Lu et al., 2022), https://arxiv.org/abs/2211.01095, algorithm 2 (2M); "Simplifying, Stabilizing and
Scaling Continuous-Time Consistency Models" (Lu & Song, 2024), https://arxiv.org/abs/2410.11081 (the circle); "UniPC" (Zhao et
al., 2023), https://arxiv.org/abs/2302.04867 (the correction that costs no call); "Solving Ordinary Differential Equations I"
(Hairer, Norsett & Wanner, 1993), section III.5 (Adams methods with variable steps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.processes.base import MarkovProcess
from genmatch.schedules import Schedule
from genmatch.solvers.base import Predict, Solver
from genmatch.solvers.denoising import Denoising, denoising_of
from genmatch.tensors import expand

_DRIFT = frozenset({"drift"})


class Multistep(Solver):
    """DPM-Solver++(2M): towards a data prediction extrapolated in log-SNR; order 2, one call a step.

    The first step has nothing to extrapolate from, and the last one, into sigma = 0, lasts infinitely long in log-SNR: both are of first order.

    Example:
        >>> import genmatch as gm
        >>> flow = gm.Flow(gm.paths.Gaussian((1,)))
        >>> model = gm.oracle(flow, torch.tensor([[-1.0], [1.0]]))
        >>> gm.sample(flow, model, 3, solver="2m", steps=8, seed=0).abs()
        tensor([[1.],
                [1.],
                [1.]])
    """

    order = 2
    calls = 1
    kinds = _DRIFT
    needs = ("transition", "gain")

    def __init__(self) -> None:
        self._last: _Prediction | None = None

    def start(self) -> Multistep:
        return Multistep()

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        denoising, output = denoising_of(process), predict(x, t)
        log_snr = denoising.path.schedule.log_snr
        if bool(log_snr(s).isposinf().any()):
            raise GenmatchError("2M cannot step into sigma = 0, where log-SNR is infinite; end the grid before 1, or let `gm.simulate` take the last step.")
        data = denoising.predict(output, x, t, "data")
        last, self._last = self._last, _Prediction(t, s, data)
        y = process.transition(output, x, t, s, rng=rng)
        if last is None or not last.leads_to(x, t):
            return y
        c = (log_snr(s) - log_snr(t)) / (2 * (log_snr(t) - log_snr(last.t)))
        return y + expand(c * denoising.gain(t, s), x) * (data - last.data)


@dataclass(frozen=True)
class _Prediction:
    """What was predicted at `t`, at the start of a step to `s`."""

    t: Tensor
    s: Tensor
    data: Tensor

    def leads_to(self, x: Tensor, t: Tensor) -> bool:
        """Whether states `x` at `t` are where that step ended."""
        return self.data.shape == x.shape and bool((self.s == t).all())


class Adams(Solver):
    """Predictor and corrector on a circle; order 3, one call a step, best on the grid "angle".

    Args:
        scale: standard deviation of the data about which the circle is drawn. It changes the size of the error and not the law;
            between that of all the data and that of a part of them is good.
    """

    order = 3
    calls = 1
    kinds = _DRIFT
    needs = ("gain",)
    finishes = True

    def __init__(self, scale: float = 0.5) -> None:
        if not (isinstance(scale, int | float) and 0 < scale < math.inf):
            raise GenmatchError(f"`scale` must be positive and finite, got {scale!r}; 0.5 suits data in [-1, 1].")
        self.scale = float(scale)
        self._last: _Stride | None = None

    def start(self) -> Adams:
        return Adams(self.scale)

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        denoising = denoising_of(process)
        theta, rho = _polar(denoising.path.schedule, t, self.scale)
        later, rho_s = _polar(denoising.path.schedule, s, self.scale)
        slope = self._slope(denoising, predict(x, t), x, t, theta)
        y, h, last = x / expand(rho, x), later - theta, self._last
        if last is None or not last.leads_to(x, t):
            move = expand(h, x) * slope
            self._last = _Stride(s, theta, h, slope, move, None)
        else:
            y = y + last.correction(slope)
            move = expand(h, x) * slope + expand(h**2 / (2 * last.h), x) * (slope - last.slope)
            self._last = _Stride(s, theta, h, slope, move, (last.h, last.slope))
        return expand(rho_s, x) * (y + move)

    def _slope(self, denoising: Denoising, output: Tensor, x: Tensor, t: Tensor, theta: Tensor) -> Tensor:
        """dy / dtheta, (B, *shape)."""
        data, noise = (denoising.predict(output, x, t, kind) for kind in ("data", "noise"))
        return expand(theta.cos() / self.scale, x) * data - expand(theta.sin(), x) * noise


@dataclass(frozen=True)
class _Stride:
    """A predicted step to the time `s`: from the angle `theta` by `h`, with the `slope` at its start, the `move` made, and the step before."""

    s: Tensor
    theta: Tensor
    h: Tensor
    slope: Tensor
    move: Tensor
    before: tuple[Tensor, Tensor] | None

    def leads_to(self, x: Tensor, t: Tensor) -> bool:
        """Whether states `x` at `t` are where that step ended."""
        return self.slope.shape == x.shape and bool((self.s == t).all())

    def correction(self, slope: Tensor) -> Tensor:
        """What the step should have moved more, now that the slope at its end is known: the integral of the parabola through three slopes."""
        h = expand(self.h, slope)
        if self.before is None:
            return h / 2 * (self.slope + slope) - self.move
        g, earlier = expand(self.before[0], slope), self.before[1]
        now = h * (2 * h + 3 * g) / (6 * (h + g))
        then = h * (h + 3 * g) / (6 * g)
        return now * slope + then * self.slope - h**3 / (6 * g * (h + g)) * earlier - self.move


def _polar(schedule: Schedule, t: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The angle theta and the radius rho of a time, float64, (B,)."""
    alpha, sigma = scale * schedule.alpha(t), schedule.sigma(t)
    return torch.atan2(alpha, sigma), torch.hypot(alpha, sigma)
