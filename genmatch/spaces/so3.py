r"""Rotations of space, $SO(3)$: orthogonal 3 x 3 matrices with determinant 1.

A tangent vector at X is X K with K antisymmetric, the body velocity: K = hat(w) turns about the axis w at the rate |w|.

    exp_X(X K) = X (I + sin|w| / |w| K + (1 - cos|w|) / |w|^2 K^2)
    log_X(Y)   = X hat(theta a), with the axis a and the angle theta of X^T Y
    |d exp(w)| = 2 (1 - cos|w|) / |w|^2

Axis and angle come from the quaternion of X^T Y, which is as exact near a half turn as near the identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genmatch.rows import normal
from genmatch.spaces.manifold import Manifold
from genmatch.spaces.validation import check_dtype

_ORTHOGONAL_STEPS = 3


@dataclass(frozen=True)
class SO3(Manifold):
    """Rotation matrices, with the Haar probability. Distances are angles. Cut locus: half turns, where `log` picks a sense.

    Args:
        dtype: of uniform draws and prepared data.

    Example:
        >>> space = SO3()
        >>> quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
        >>> space.dist(torch.eye(3).unsqueeze(0), quarter)
        tensor([1.5708])
    """

    dtype: torch.dtype = torch.float32
    shape: ClassVar[tuple[int, ...]] = (3, 3)  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_dtype(self.dtype, "rotations")

    @property
    def dim(self) -> int:
        return 3

    @property
    def log_volume(self) -> float:
        return 0.0

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        k = _antisymmetric(x, v)
        theta = self.norm(v).reshape(-1, 1, 1)
        turned = x + torch.sinc(theta / math.pi) * (x @ k) + 0.5 * torch.sinc(theta / (2 * math.pi)) ** 2 * (x @ k @ k)
        return torch.where(theta > 0, _orthogonal_step(turned), x)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        real, *axis = _quaternion(x.mT @ y)
        sine = sum(part**2 for part in axis).sqrt()
        angle = 2 * torch.atan2(sine, real)
        return x @ _hat(angle * torch.stack(axis) / sine.clamp_min(torch.finfo(x.dtype).tiny))

    def project(self, x: Tensor, v: Tensor) -> Tensor:
        return x @ _antisymmetric(x, v)

    def nearest(self, x: Tensor) -> Tensor:
        for _ in range(_ORTHOGONAL_STEPS):
            x = _orthogonal_step(x)
        # A reflection has no rotation near it.
        first, second, third = x.unbind(-1)
        determinant = (torch.linalg.cross(first, second) * third).sum(-1)
        return torch.where((determinant > 0).reshape(-1, 1, 1), x, torch.nan)

    def norm(self, v: Tensor) -> Tensor:
        """The rate of turning |w|: the Frobenius norm over sqrt(2), (B,)."""
        return torch.linalg.vector_norm(v.flatten(1), dim=1) / math.sqrt(2)

    def log_stretch(self, v: Tensor) -> Tensor:
        angle = self.norm(v.double())
        inside = angle <= math.pi
        stretch = 2 * torch.log(torch.sinc(torch.where(inside, angle, 0.0) / (2 * math.pi)))
        return torch.where(inside, stretch, -torch.inf)

    def random(self, n: int, *, rng: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Haar: a uniform unit quaternion."""
        q = normal((n, 4), dtype=dtype or self.dtype, device=rng.device if rng else None, rng=rng)
        return _rotation(q / torch.linalg.vector_norm(q, dim=-1, keepdim=True))

    def _mend(self, name: str) -> str:
        return f"the U V^T of `U, _, V = torch.linalg.svd({name})`, whose determinant must be 1"


def _antisymmetric(x: Tensor, v: Tensor) -> Tensor:
    """The body velocity of `v` at `x`: the antisymmetric part of X^T V."""
    k = x.mT @ v
    return (k - k.mT) / 2


def _orthogonal_step(x: Tensor) -> Tensor:
    """A Newton step to the nearest orthogonal matrix, X (3 - X^T X) / 2: the error is squared."""
    return torch.baddbmm(x, x, x.mT @ x, beta=1.5, alpha=-0.5)


def _hat(w: Tensor) -> Tensor:
    """The antisymmetric matrix of the cross product with w, (3, B) to (B, 3, 3)."""
    a, b, c = w
    zero = torch.zeros_like(a)
    return torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], -1).unflatten(-1, (3, 3))


def _quaternion(r: Tensor) -> Tensor:
    """Unit quaternions (4, B) of rotations, with real part >= 0.

    The rows of 4 q q^T are multiples of q; the longest, with the largest diagonal entry, loses no digits.
    """
    (a, b, c), (d, e, f), (g, h, i) = r.permute(1, 2, 0).contiguous()
    rows = [
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    ]
    longest, q = rows[0][0], torch.stack(rows[0])
    for k in (1, 2, 3):
        longer = rows[k][k] > longest
        longest, q = torch.where(longer, rows[k][k], longest), torch.where(longer, torch.stack(rows[k]), q)
    return q * torch.where(q[0] < 0, -1, 1) / (q**2).sum(0).sqrt()


def _rotation(q: Tensor) -> Tensor:
    """Rotation matrices (B, 3, 3) of unit quaternions."""
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
