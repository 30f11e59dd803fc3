r"""The sphere $S^n$: unit vectors of $R^{n+1}$.

    exp_x(v) = cos|v| x + sin|v| v / |v|
    log_x(y) = theta p / |p|,  p = y - (x . y) x,  theta = atan2(|p|, x . y)
    |d exp(v)| = (sin|v| / |v|)^(n-1)

The arc cosine would lose half the digits near 0 and pi; the arc tangent of two arguments loses none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import positive_integer
from genmatch.rows import normal
from genmatch.spaces.manifold import Manifold
from genmatch.spaces.validation import check_dtype


@dataclass(frozen=True)
class Sphere(Manifold):
    """Unit vectors of R^(n+1), with the surface measure. Cut locus: the antipode, where `log` picks a direction.

    Args:
        n: dimension of the sphere; 2 for directions in space.
        dtype: of uniform draws and prepared data.

    Example:
        >>> sphere = Sphere(2)
        >>> north, east = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
        >>> sphere.dist(north, east)
        tensor([1.5708])
    """

    n: int
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive_integer(self.n, "n"))
        check_dtype(self.dtype, "a sphere")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.n + 1,)

    @property
    def dim(self) -> int:
        return self.n

    @property
    def log_volume(self) -> float:
        half = (self.n + 1) / 2
        return math.log(2) + half * math.log(math.pi) - math.lgamma(half)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        theta = _norm(v)
        moved = self.nearest(torch.cos(theta) * x + torch.sinc(theta / math.pi) * v)
        return torch.where(theta > 0, moved, x)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        cosine = _dot(x, y)
        # y -+ x is exact where they nearly cancel, so p keeps its digits near both ends.
        tangent = self.project(x, torch.where(cosine < 0, y + x, y - x))
        sine = _norm(tangent)
        theta = torch.atan2(sine, cosine)
        direction = tangent / sine.clamp_min(torch.finfo(x.dtype).tiny)
        at_antipode = (sine == 0) & (cosine < 0)
        return theta * torch.where(at_antipode, self._some_direction(x), direction)

    def project(self, x: Tensor, v: Tensor) -> Tensor:
        return v - _dot(x, v) * x

    def nearest(self, x: Tensor) -> Tensor:
        return x / _norm(x)

    def log_stretch(self, v: Tensor) -> Tensor:
        theta = _norm(v.double()).squeeze(-1)
        inside = theta < math.pi
        stretch = (self.n - 1) * torch.log(torch.sinc(torch.where(inside, theta, 0.0) / math.pi))
        return torch.where(inside, stretch, -torch.inf)

    def random(self, n: int, *, rng: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
        return self.nearest(normal((n, *self.shape), dtype=dtype or self.dtype, device=rng.device if rng else None, rng=rng))

    def _some_direction(self, x: Tensor) -> Tensor:
        """A unit tangent vector at `x`: along the axis that `x` is most across to."""
        axis = torch.zeros_like(x).scatter(-1, x.abs().argmin(-1, keepdim=True), 1.0)
        return self.nearest(self.project(x, axis))

    def _mend(self, name: str) -> str:
        return f"`{name} / {name}.norm(dim=-1, keepdim=True)`"


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _norm(a: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a, dim=-1, keepdim=True)
