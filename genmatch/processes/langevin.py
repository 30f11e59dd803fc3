r"""Langevin dynamics at a fixed time: a corrector.

    dX = g^2 / 2 grad log p_t(X) dt + g dW

leaves $p_t$ as it is, so it generates nothing by itself; added to a process that does, it lets the states forget the errors of
the way. Any weight is allowed: `Superposition([flow, langevin], weights=[1, 0.5])`.

Source: "Score-Based Generative Modeling through SDEs" (Song et al., 2021), https://arxiv.org/abs/2011.13456, section 4.2.
"""

from __future__ import annotations

from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.generators import Brownian, Drift, Generator
from genmatch.paths.base import Path
from genmatch.paths.gaussian import Gaussian
from genmatch.processes.velocity import VelocityProcess
from genmatch.tensors import expand


class Langevin(VelocityProcess):
    """A corrector on a Gaussian path, whose noise fades with sigma.

    Args:
        path: a Gaussian path.
        noise: g / sqrt(sigma_t), a non-negative number: g^2 fades with sigma, as the way to the data gets narrow.
        prediction: what the network returns: "velocity", "data", "noise" or "score".

    Raises:
        GenmatchError: if the path is not Gaussian, the noise is negative, or the prediction is unknown.

    Example:
        >>> import genmatch as gm
        >>> path = gm.paths.Gaussian((2,))
        >>> both = gm.Superposition([gm.Flow(path, "data"), Langevin(path)], weights=[1.0, 0.5], heads="shared")
        >>> sorted(both.kinds)
        ['brownian', 'drift']
    """

    kinds = frozenset({"drift", "brownian"})
    stationary = True

    def __init__(self, path: Path, noise: float = 1.0, prediction: str = "data") -> None:
        if not isinstance(path, Gaussian):
            raise GenmatchError(f"Langevin needs a Gaussian path, got {path!r}; pass `gm.paths.Gaussian(shape)`.")
        path.require_independent("a corrector")
        super().__init__(path, prediction)
        self.schedule = path.schedule
        self.noise = number_in("[0, inf)", noise, "noise", "0 corrects nothing")

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        variance = expand(self.noise**2 * self.schedule.sigma(t), x)
        return Drift(variance / 2 * self.predict(output, x, t, "score")) + Brownian(variance)

    def supports(self, ability: str) -> bool:
        """Not what leads to data: a corrector stays at p_t."""
        return ability not in ("bridge", "renoise", "gain") and super().supports(ability)
