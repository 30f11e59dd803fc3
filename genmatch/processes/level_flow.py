r"""Flow matching by classification: the velocity of a Gaussian path from a posterior over levels.

    u_t(x) = (sigma' / sigma) x + (Delta / sigma) sum_b pi(b | x) z_b

The data prediction is the mean of the levels under the posterior. The network is that of a `JumpProcess` on the same levels,
so the two superpose with one head, and one trained network serves both.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Generator
from genmatch.paths.base import Path
from genmatch.paths.gaussian import Gaussian
from genmatch.processes.levels import LevelProcess


class LevelFlow(LevelProcess):
    """An ordinary differential equation whose network predicts the levels of the data.

    Args:
        path: a Gaussian path.
        bins: the levels of the data, increasing, (K,); or a number of them, spread evenly over [-2, 2].

    Raises:
        GenmatchError: if the path is not Gaussian, or no levels are given.

    Example:
        >>> import genmatch as gm
        >>> path, levels = Gaussian((2,)), torch.tensor([-1.0, 0.0, 1.0])
        >>> gm.Superposition([LevelFlow(path, levels), gm.JumpProcess(path, levels)], weights=[0.5, 0.5], heads="shared").output_shape
        (2, 3)
    """

    kinds = frozenset({"drift"})

    def __init__(self, path: Path, bins: int | Tensor) -> None:
        if not isinstance(path, Gaussian):
            raise GenmatchError(f"LevelFlow needs a Gaussian path, got {path!r}; pass `gm.paths.Gaussian(shape)`.")
        super().__init__(path, bins)
        self._meaning = path.prediction("data")

    @property
    def caveats(self) -> Mapping[str, str]:
        return {**super().caveats, "finish-mean": "the last step leads to the mean of the levels, which need not be one of them"}

    def generator(self, output: Tensor, x: Tensor, t: Tensor) -> Generator:
        return self._meaning.drift(self._data(output, x), x, t)

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The step with the prediction frozen: DDIM."""
        return self._meaning.transition(self._data(output, x), x, t, s)

    def predict(self, output: Tensor, x: Tensor, t: Tensor, kind: str) -> Tensor:
        """The network's `output` as a prediction of the "data", "noise" or "velocity", (B, *shape)."""
        return self._meaning.predict(self._data(output, x), x, t, kind)

    def gain(self, t: Tensor, s: Tensor) -> Tensor:
        """How far X_s moves with the data that are predicted at `t`, float64, (B,)."""
        return self._meaning.gain(t, s)

    def _data(self, output: Tensor, x: Tensor) -> Tensor:
        """The posterior mean of the data, (B, *shape)."""
        return self.mean(output.to(x.dtype)) @ self.grid.levels.to(x)
