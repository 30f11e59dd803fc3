r"""The flat torus $T^n$: n angles, each wrapped to $[-\pi, \pi)$.

exp_x(v) = wrap(x + v),   log_x(y) = wrap(y - x),   |d exp(v)| = 1,   wrap(a) = (a + pi) mod 2 pi - pi
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import positive_integer
from genmatch.rows import uniform
from genmatch.spaces.base import TestFunction
from genmatch.spaces.manifold import Manifold
from genmatch.spaces.validation import check_dtype


@dataclass(frozen=True)
class Torus(Manifold):
    """Angles in [-pi, pi), with the measure of their differences. Cut locus: half a turn, which `log` takes to be -pi.

    Args:
        n: how many angles.
        dtype: of uniform draws and prepared data.

    Example:
        >>> torus = Torus(1)
        >>> torus.dist(torch.tensor([[-3.0]]), torch.tensor([[3.0]]))
        tensor([0.2832])
    """

    n: int
    dtype: torch.dtype = torch.float32
    channels = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive_integer(self.n, "n"))
        check_dtype(self.dtype, "a torus")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.n,)

    @property
    def coordinatewise(self) -> bool:
        return True

    @property
    def dim(self) -> int:
        return self.n

    @property
    def log_volume(self) -> float:
        return self.n * math.log(2 * math.pi)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return wrap(x + v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def project(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def nearest(self, x: Tensor) -> Tensor:
        return wrap(x)

    def log_stretch(self, v: Tensor) -> Tensor:
        inside = (v.double().abs() <= math.pi).all(-1)
        return torch.where(inside, 0.0, -torch.inf).double()

    def random(self, n: int, *, rng: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
        u = uniform((n, *self.shape), dtype=dtype or self.dtype, device=rng.device if rng else None, rng=rng)
        return wrap(2 * math.pi * u - math.pi)

    def embed(self, x: Tensor) -> Tensor:
        """Cosine and sine of each angle, (B, 2, n): angles jump at the seam, these do not."""
        return torch.stack([x.cos(), x.sin()], 1)

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Cosines of sums of angles with small whole multiples: functions without a seam."""
        multiples = torch.randint(-2, 3, (n, self.n), generator=rng).double()
        multiples[multiples.abs().sum(-1) == 0] = 1.0
        phase = 2 * math.pi * torch.rand(n, dtype=torch.float64, generator=rng)
        return [_angle_wave(k, b) for k, b in zip(multiples, phase, strict=True)]

    def _mend(self, name: str) -> str:
        return f"`gm.spaces.Torus({self.n}).nearest({name})`, which takes any angles in radians"


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi); one that is there already is not touched.

    Example:
        >>> wrap(torch.tensor([0.5, 4.0, -7.0]))
        tensor([ 0.5000, -2.2832, -0.7168])
    """
    # In this order, as pi rounds up in float32.
    pi = torch.tensor(math.pi, dtype=angle.dtype, device=angle.device)
    wrapped = torch.remainder(angle + pi, 2 * pi) - pi
    wrapped = torch.where(wrapped < pi, wrapped, -pi)
    return torch.where((angle >= -pi) & (angle < pi), angle, wrapped)


def _angle_wave(multiples: Tensor, phase: Tensor) -> TestFunction:
    def f(x: Tensor) -> Tensor:
        return torch.cos(x @ multiples.to(x.dtype) + phase.to(x.dtype))

    return f
