"""What a network predicts on a Gaussian path: the velocity, the data, the noise or the score, which convert into each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genmatch.errors import unknown
from genmatch.generators import Drift
from genmatch.paths.conversion import PREDICTIONS, coefficients, convert
from genmatch.paths.prediction import Prediction
from genmatch.paths.visits import EARLIEST
from genmatch.rows import normal
from genmatch.tensors import expand

if TYPE_CHECKING:
    from genmatch.paths.gaussian import Gaussian


class GaussianPrediction(Prediction):
    """One of the four statistics of a Gaussian path, by name."""

    def __init__(self, path: Gaussian, prediction: str) -> None:
        if prediction not in PREDICTIONS:
            raise unknown("prediction", str(prediction), PREDICTIONS)
        if prediction == "score":
            path.require_independent("a prediction of the score")
        self.path = path
        self.prediction = prediction
        # Noise and score say nothing of the data where alpha = 0, nor does the velocity where Delta = 0.
        determined = all(bool(c.isfinite().all()) for c in self._coefficients(0.0))
        self.t_min = 0.0 if determined else EARLIEST

    def __repr__(self) -> str:
        return f"GaussianPrediction({self.path}, {self.prediction!r})"

    def _coefficients(self, t: float) -> tuple[Tensor, Tensor]:
        time = torch.tensor([t], dtype=torch.float64)
        if self.prediction == "data":
            return torch.zeros_like(time), torch.ones_like(time)
        return coefficients(self.path.schedule, time, self.prediction, "data")

    def predict(self, output: Tensor, x: Tensor, t: Tensor, kind: str) -> Tensor:
        """The network's `output` at states `x` and times `t`, (B,), as another `kind` of prediction.

        Args:
            output: what the network returned, (B, *shape).
            x: states, (B, *shape).
            t: times in [t_min, 1), (B,).
            kind: "velocity", "data", "noise" or "score".

        Raises:
            GenmatchError: for a score on a path with a coupling, where -E[x0 | x] / sigma is none.
        """
        if kind == "score":
            self.path.require_independent("the score")
        return convert(output, x, t, self.path.schedule, self.prediction, kind)

    def target(self, x: Tensor, t: Tensor, x1: Tensor, x0: Tensor | None) -> Tensor:
        if self.prediction == "data":
            return x1
        noise, schedule = self.path.noise(x, t, x1, x0), self.path.schedule
        if self.prediction == "noise":
            return noise
        if self.prediction == "score":
            return -noise / expand(schedule.sigma(t), x)
        return expand(schedule.d_alpha(t), x) * x1 + expand(schedule.d_sigma(t), x) * noise

    def drift(self, output: Tensor, x: Tensor, t: Tensor) -> Drift:
        return Drift(self.predict(output, x, t, "velocity"))

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """DDIM: exact for a constant prediction of the data, X_s = r X_t + (alpha_s - r alpha_t) x1 with r = sigma_s / sigma_t."""
        kept, gain = self._carried(t, s)
        # x1 is affine in the output too: both coefficients are combined before they meet the states.
        a, b = (0.0, 1.0) if self.prediction == "data" else coefficients(self.path.schedule, t, self.prediction, "data")
        return expand(kept + gain * a, x) * x + expand(gain * b, x) * output

    def gain(self, t: Tensor, s: Tensor, memory: Tensor | float = 1.0) -> Tensor:
        """alpha_s - memory (sigma_s / sigma_t) alpha_t: how far X_s moves with the data predicted at `t`, float64, (B,)."""
        return self._carried(t, s, memory)[1]

    def _carried(self, t: Tensor, s: Tensor, memory: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """How much of X_t is in X_s, and of the data predicted at `t`, float64, (B,) each."""
        schedule = self.path.schedule
        kept = memory * schedule.sigma(s) / schedule.sigma(t)
        return kept, schedule.alpha(s) - kept * schedule.alpha(t)

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_t given X_s = x for an earlier time `t`: (alpha_t / alpha_s) x, and noise up to sigma_t.

        Raises:
            GenmatchError: on a path with a coupling, whose noise given the data is not normal.
        """
        self.path.require_independent("renewing noise")
        schedule = self.path.schedule
        alpha_s = schedule.alpha(s)
        ratio = torch.where(alpha_s > 0, schedule.alpha(t) / alpha_s, 1.0)
        missing = (schedule.sigma(t) ** 2 - (ratio * schedule.sigma(s)) ** 2).clamp(min=0).sqrt()
        return expand(ratio, x) * x + expand(missing, x) * normal(x.shape, dtype=x.dtype, device=x.device, rng=rng)

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Squared error, (B,); for a score times sigma^2, which makes it the error of the noise and keeps it finite."""
        error = ((target - output) ** 2).flatten(1).sum(-1)
        return error * self.path.schedule.sigma(t).to(error.dtype) ** 2 if self.prediction == "score" else error

    def bridge(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, memory: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_s on the way from `x` at `t` to the predicted data point, renewing part of the noise.

        Args:
            output: what the network returned, (B, *shape).
            x: states, (B, *shape).
            t: times in [t_min, 1), (B,).
            s: later times, up to 1, (B,).
            memory: how much of the noise in `x` is kept, in [0, 1], (B,).
            rng: source of randomness.

        Raises:
            GenmatchError: on a path with a coupling, whose noise given the data is not normal.
        """
        self.path.require_independent("renewing noise")
        kept, gain = self._carried(t, s, memory)
        renewed = self.path.schedule.sigma(s) * torch.sqrt(1 - memory**2)
        fresh = normal(x.shape, dtype=x.dtype, device=x.device, rng=rng)
        return expand(kept, x) * x + expand(gain, x) * self.predict(output, x, t, "data") + expand(renewed, x) * fresh

    def steered(self, output: Tensor, push: Tensor, t: Tensor) -> Tensor:
        """The network's output if the score were larger by `push`, as that of a law times a function is; both (B, *shape).

        Raises:
            GenmatchError: on a path with a coupling, which has no score.
        """
        self.path.require_independent("a push of the score")
        if self.prediction == "score":
            return output + push
        return output + expand(coefficients(self.path.schedule, t, "score", self.prediction)[1], push) * push

    def supports(self, ability: str) -> bool:
        return super().supports(ability) and (ability not in ("bridge", "steered", "renoise") or self.path.is_independent)
