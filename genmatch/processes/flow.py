r"""Flow matching: the deterministic process that follows the marginal velocity of a path.

On a Gaussian path $dX = u_t(X)\,dt$ with $u_t(x) = \dot\alpha\,E[x_1 | x] + \dot\sigma\,E[x_0 | x]$; on a manifold
$u_t(x) = w_t\,E[\log_x(x_1) | x]$, a mean of tangent vectors at $x$.

Sources: "Flow Matching for Generative Modeling" (Lipman et al., 2023), https://arxiv.org/abs/2210.02747; "Flow Matching on
General Geometries" (Chen & Lipman, 2024), https://arxiv.org/abs/2302.03660.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.generators import Generator
from genmatch.paths.base import Path
from genmatch.paths.couplings import Coupling
from genmatch.processes.base import MarkovProcess
from genmatch.processes.diffusion import Diffusion
from genmatch.processes.velocity import VelocityProcess


class Flow(VelocityProcess):
    """An ordinary differential equation that carries noise to data.

    Args:
        path: a path with a velocity: `Gaussian`, `Geodesic`, or any that defines `prediction`.
        prediction: what the network returns: "velocity"; on a Gaussian path also "data", "noise" or "score".

    Raises:
        GenmatchError: if the path has no velocity, or the prediction is not one of the path's.

    Example:
        >>> from genmatch.paths import Gaussian, Geodesic
        >>> Flow(Gaussian((2,)))
        Flow(Gaussian((2,), schedule=CondOT()), prediction='velocity')
        >>> from genmatch.spaces import Sphere
        >>> sorted(Flow(Geodesic(Sphere(2))).kinds)
        ['geodesic drift']
    """

    def __init__(self, path: Path, prediction: str = "velocity") -> None:
        super().__init__(path, prediction)
        self.kinds = self.meaning.kinds

    def coupled(self, coupling: Coupling) -> Flow:
        return Flow(self.path.coupled(coupling), self.prediction)

    def bounded(self) -> MarkovProcess:
        """A diffusion: one network serves every level of noise. On a Gaussian path."""
        return Diffusion(self.path, prediction=self.prediction)

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return self.meaning.drift(output, x, t)

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The step with the prediction frozen: DDIM on a Gaussian path, a geodesic on a manifold."""
        return self.meaning.transition(output, x, t, s)
