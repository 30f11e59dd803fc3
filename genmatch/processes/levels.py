r"""What processes on R^d share if their network predicts a posterior over the levels that each coordinate of the data can have.

The statistic is the one-hot vector of the level, $\pi^j(b | x) = p(x_1^j = z_b | X_t = x)$ its posterior mean. Data are moved to the
nearest level, in training and in the oracle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.paths.base import Path
from genmatch.processes.posterior import PosteriorProcess
from genmatch.spaces import Categorical, Euclidean, Grid


class LevelProcess(PosteriorProcess):
    """A process on R^d whose network returns logits of the level of each coordinate, (B, *shape, K).

    Args:
        path: a path on R^d.
        bins: the levels, increasing, (K,); or a number of them, spread evenly over [-2, 2]; or None where the path knows its grid.

    Raises:
        GenmatchError: if the path is not on R^d, or no levels are given.
    """

    def __init__(self, path: Path, bins: int | Tensor | None) -> None:
        if not isinstance(path, Path) or not isinstance(path.space, Euclidean):
            raise GenmatchError(f"{type(self).__name__} needs a path on R^d, got {path!r}; pass e.g. `gm.paths.Gaussian(shape)`.")
        self.path = path
        self.grid = _grid(path, bins)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}, bins={self.grid.num_levels})"

    @property
    def data_space(self) -> Grid:
        return self.grid

    @property
    def vocabulary(self) -> Categorical:
        return Categorical(self.grid.shape, self.grid.num_levels)

    def target(self, x: Tensor, t: Tensor, x1: Tensor, *, x0: Tensor | None = None) -> Tensor:
        """The number of the level of each coordinate, int64, (B, *shape)."""
        return self.grid.nearest(x1)

    @property
    def tilt_misfit(self) -> str | None:
        return (
            f"the posterior over levels of {self} would take the weights of all real values that a coordinate can have; "
            "it takes those of the levels alone for jumps on a RealMixture path"
        )

    def natural_at(self, target: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.natural(target).to(x.dtype)

    def finish_nats(self, output: Tensor, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """The cross-entropy of the levels: data on a grid have probabilities, not densities."""
        return self.divergence(self.target(x, t, x1), output, x, t).double()


def _grid(path: Path, bins: int | Tensor | None) -> Grid:
    space = path.data_space
    if bins is None and isinstance(space, Grid):
        return space
    if bins is None:
        raise GenmatchError(f"`bins` must give the levels of the data on {path}; pass e.g. `torch.linspace(-1, 1, 17)`, or a number.")
    shape, dtype = path.space.shape, path.space.dtype  # type: ignore[attr-defined]
    levels = torch.linspace(-2, 2, positive_integer(bins, "bins"), dtype=torch.float64) if isinstance(bins, int) else bins
    return Grid(shape, levels, dtype)
