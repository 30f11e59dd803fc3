r"""Riemannian manifolds that are embedded in R^d: states are points of R^d, velocities are tangent vectors in it.

    exp_x(v)      where the geodesic from x with velocity v is after a unit of time
    log_x(y)      the shortest v with exp_x(v) = y
    |d exp_x(v)|  how the map stretches volumes: what turns a law of tangent vectors into a law of points

These three are all that a geodesic path needs, so a new manifold is one file.

Source: "Flow Matching on General Geometries" (Chen & Lipman, 2024), https://arxiv.org/abs/2302.03660, section 3.2.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.spaces.base import Space, TestFunction
from genmatch.spaces.euclidean import waves
from genmatch.spaces.reference import Reference, uniform
from genmatch.spaces.validation import as_tensor, check_vectors

TOLERANCE = 1e-5
"""How far from the manifold a state may be: room for the rounding of float32, not for wrong data."""


class Manifold(Space):
    """A manifold on which every point looks the same, with its uniform law.

    Subclasses have `shape`, `dtype` and `dim`, and define the maps below. On the cut locus, where several shortest geodesics
    arrive, `log` picks one of them: its length is right and it is never NaN.
    """

    shape: tuple[int, ...]
    """Shape of one state, as a point of the surrounding space."""
    dtype: torch.dtype
    channels: int = 1
    """How many numbers `embed` makes of each coordinate."""

    @property
    def coordinatewise(self) -> bool:
        return False

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension of the manifold, not of the space around it."""

    @property
    @abstractmethod
    def log_volume(self) -> float:
        """Logarithm of the total mass of the measure that densities refer to."""

    @abstractmethod
    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """The end of the geodesic from `x` with tangent vector `v`, both (B, *shape); `x` itself, bit for bit, where v = 0."""

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The shortest tangent vector at `x` that leads to `y`, (B, *shape)."""

    @abstractmethod
    def project(self, x: Tensor, v: Tensor) -> Tensor:
        """The tangent vector at `x` that is nearest to the vector `v` of the surrounding space, (B, *shape)."""

    @abstractmethod
    def nearest(self, x: Tensor) -> Tensor:
        """The point of the manifold nearest to `x`, which must be close to it, (B, *shape)."""

    @abstractmethod
    def log_stretch(self, v: Tensor) -> Tensor:
        """log |d exp(v)|, float64, (B,): how a tangent vector's volume element is stretched; -inf beyond the cut locus."""

    @abstractmethod
    def random(self, n: int, *, rng: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """`n` draws from the uniform law, in the dtype of the space or in `dtype`."""

    @abstractmethod
    def _mend(self, name: str) -> str:
        """The expression that brings `name` onto the manifold."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def norm(self, v: Tensor) -> Tensor:
        """Riemannian length of tangent vectors, (B,)."""
        return torch.linalg.vector_norm(v.flatten(1), dim=1)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Length of the shortest geodesic from `x` to `y`, (B,)."""
        return self.norm(self.log(x, y))

    def squared_distances(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = x.double().repeat_interleave(len(y), 0), y.double().repeat(len(x), *[1] * (y.dim() - 1))
        return self.dist(*pairs).view(len(x), len(y)) ** 2

    def reference(self, x: Tensor) -> Reference:
        return uniform(lambda n, rng: self.random(n, rng=rng, dtype=torch.float64), self.log_volume)

    def embed(self, x: Tensor) -> Tensor:
        """Smooth coordinates, for networks, (B, channels, *shape): the point itself, unless its coordinates have a seam."""
        return x.unsqueeze(1)

    def validate(self, x: Any, name: str = "x") -> Tensor:
        check_vectors(x, self.shape, name, self)
        # What has no nearest point, such as the centre of a sphere, is NaN.
        off = (x - self.nearest(x)).double().abs().nan_to_num(nan=math.inf).flatten(1).amax(1)
        allowed = max(TOLERANCE, 8 * torch.finfo(x.dtype).eps)
        if bool((off > allowed).any()):
            worst = int(off.argmax())
            raise GenmatchError(
                f"`{name}` must lie on {self} to {allowed:.0e}, got a point that is {float(off[worst]):.3g} off, at row {worst}; pass {self._mend(name)}."
            )
        return x

    def settle(self, x: Tensor) -> Tensor:
        return self.nearest(x)

    def prepare(self, data: Any, name: str = "data") -> Tensor:
        """Valid states in the dtype of this space, rounding errors removed. Points that are farther off are refused."""
        return self.nearest(self.validate(as_tensor(data, name), name).to(self.dtype))

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Cosines along random directions of the surrounding space."""
        return waves(n, self.size, (1.0, 2.5), (self.size / (self.dim + 1)) ** 0.5, rng=rng)
