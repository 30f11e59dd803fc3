r"""Flow matching: the deterministic process $dX = u_t(X)\,dt$ along a Gaussian path.

The marginal velocity is $u_t(x) = \dot\alpha\,E[x_1 | x] + \dot\sigma\,E[x_0 | x]$.

Source: "Flow Matching for Generative Modeling" (Lipman et al., 2023), https://arxiv.org/abs/2210.02747.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.generators import Drift, Generator
from genmatch.paths.base import Path
from genmatch.processes.gaussian import GaussianProcess
from genmatch.tensors import expand


class Flow(GaussianProcess):
    """An ordinary differential equation that carries noise to data.

    Args:
        path: a Gaussian path.
        prediction: what the network returns: "velocity", "data", "noise" or "score".

    Raises:
        GenmatchError: if the path is not Gaussian or the prediction is unknown.

    Example:
        >>> from genmatch.paths import Gaussian
        >>> Flow(Gaussian((2,)))
        Flow(Gaussian((2,), schedule=CondOT()), prediction='velocity')
    """

    kinds = frozenset({"drift"})

    def __init__(self, path: Path, prediction: str = "velocity") -> None:
        super().__init__(path, prediction)

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return Drift(self.predict(output, x, t, "velocity"))

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """DDIM: exact for a constant prediction of the data, X_s = r X_t + (alpha_s - r alpha_t) x1 with r = sigma_s / sigma_t."""
        schedule = self.path.schedule
        ratio = schedule.sigma(s) / schedule.sigma(t)
        x1 = self.predict(output, x, t, "data")
        return expand(ratio, x) * x + expand(schedule.alpha(s) - ratio * schedule.alpha(t), x) * x1
