"""What processes that follow the velocity of a path share: the path says what the network's prediction means."""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.calculus import gradient
from genmatch.errors import GenmatchError
from genmatch.paths.base import Path
from genmatch.processes.base import LogWeight, MarkovProcess
from genmatch.tensors import expand


class VelocityProcess(MarkovProcess):
    """A process on a path with a velocity, whose network predicts a statistic that determines it.

    Args:
        path: a path that defines `prediction`.
        prediction: the name of the statistic.
    """

    def __init__(self, path: Path, prediction: str) -> None:
        if not isinstance(path, Path) or not path.has_velocity:
            raise GenmatchError(
                f"{type(self).__name__} needs a path with a velocity, got {path!r}; pass `gm.paths.Gaussian(shape)` or `gm.paths.Geodesic(space)`."
            )
        self.path = path
        self.prediction = prediction
        self.meaning = path.prediction(prediction)
        self.t_min = self.meaning.t_min

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}, prediction={self.prediction!r})"

    def predict(self, output: Tensor, x: Tensor, t: Tensor, kind: str) -> Tensor:
        """The network's `output` at states `x` and times `t`, (B,), as another `kind` of prediction.

        Args:
            output: what the network returned, (B, *shape).
            x: states, (B, *shape).
            t: times in [t_min, 1), (B,).
            kind: "velocity", or on a Gaussian path "data", "noise" or "score" too.
        """
        return self.meaning.predict(output, x, t, kind)

    def target(self, x: Tensor, t: Tensor, x1: Tensor, *, x0: Tensor | None = None) -> Tensor:
        r"""The prediction, of one data point: the velocity, which is $\dot\alpha x_1 + \dot\sigma x_0$ on a Gaussian path; the data $x_1$, the noise $x_0$ or the score $-x_0 / \sigma$."""
        return self.meaning.target(x, t, x1, x0)

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Squared error of the prediction, (B,), weighted by what keeps it finite."""
        return self.meaning.divergence(target, output, x, t)

    def bridge(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, memory: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_s on the way from `x` at `t` to the predicted data point, renewing part of the noise. Gaussian paths only.

        Args:
            output: what the network returned, (B, *shape).
            x: states, (B, *shape).
            t: times in [t_min, 1), (B,).
            s: later times, up to 1, (B,).
            memory: how much of the noise in `x` is kept, in [0, 1], (B,).
            rng: source of randomness.
        """
        return self.meaning.bridge(output, x, t, s, memory, rng=rng)

    def steered(self, output: Tensor, push: Tensor, t: Tensor) -> Tensor:
        """The network's output if the score were larger by `push`. Gaussian paths only.

        Args:
            output: what the network returned, (B, *shape).
            push: what is added to the score, (B, *shape).
            t: times in (0, 1), (B,).
        """
        return self.meaning.steered(output, push, t)

    def tilted(self, output: Tensor, x: Tensor, t: Tensor, log_weight: LogWeight) -> Tensor:
        """The score of a law times a weight is larger by the gradient of its logarithm; where the weight is zero nothing changes. Gaussian paths only.

        Raises:
            GenmatchError: if the gradient is not finite.
        """
        rows, excluded = torch.arange(len(x), device=x.device), torch.zeros(len(x), dtype=torch.bool, device=x.device)

        def weigh(x: Tensor) -> Tensor:
            value = log_weight(x, rows)
            excluded.copy_(value.isneginf())
            return value

        # A likelihood differentiates what is returned here once more.
        push = gradient(weigh, x, create_graph=x.requires_grad)
        push = torch.where(expand(excluded, x).bool(), 0, push)
        if not bool(push.isfinite().all()):
            raise GenmatchError("the gradient of a log weight is not finite where the weight is; sum probabilities in logarithms, as by `logsumexp`.")
        return self.steered(output, push.to(output.dtype), t)

    @property
    def tilt_misfit(self) -> str | None:
        return None if self.supports("steered") else f"{self.path} has no score; a Gaussian path without a coupling has one"

    def gain(self, t: Tensor, s: Tensor) -> Tensor:
        """How far X_s moves with the data that are predicted at `t`, in a `transition` from `t` to `s`, float64, (B,). Gaussian paths only."""
        return self.meaning.gain(t, s)

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Draws X_t given X_s = x for an earlier time `t`, whatever the data. Gaussian paths with independent noise only."""
        return self.meaning.renoise(x, s, t, rng=rng)

    def supports(self, ability: str) -> bool:
        return super().supports(ability) and self.meaning.supports(ability)
