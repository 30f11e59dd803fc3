"""A space, a path and a data set of one's own: states in the unit box, carried from uniform noise to data along straight lines.

    X_t = t x1 + (1 - t) x0,   x0 ~ uniform on [0, 1]^d,   so X_t | x1 is uniform on t x1 + (1 - t) [0, 1]^d

The state never leaves the box, which Gaussian noise would.
"""

import torch

import genmatch as gm
from genmatch.errors import GenmatchError
from genmatch.generators import Drift
from genmatch.tensors import expand


class Box(gm.spaces.Space):
    """Vectors with all coordinates in [0, 1]."""

    def __init__(self, shape, dtype=torch.float32):
        self.shape, self.dtype = gm.spaces.check_shape(shape), dtype

    def __repr__(self):
        return f"Box({self.shape})"

    @property
    def size(self):
        return torch.Size(self.shape).numel()

    def validate(self, x, name="x"):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.shape[1:] != self.shape:
            raise GenmatchError(f"`{name}` must be a float tensor of shape (B, {', '.join(map(str, self.shape))}), got {x!r}.")
        if not bool(((x >= -1e-5) & (x <= 1 + 1e-5)).all()):
            raise GenmatchError(f"`{name}` must lie in [0, 1], got values from {x.min():.3g} to {x.max():.3g}; rescale it.")
        return x

    def prepare(self, data, name="data"):
        return self.validate(torch.as_tensor(data, dtype=self.dtype), name)

    def random(self, n, *, rng=None):
        return torch.rand(n, *self.shape, generator=rng, dtype=self.dtype)

    def test_functions(self, n, *, rng=None):
        waves = [(6 * torch.randn(self.size, generator=rng), 6 * torch.rand(1, generator=rng)) for _ in range(n)]
        return [lambda x, k=k, b=b: torch.cos(x.flatten(1) @ k.to(x) + b.to(x)) for k, b in waves]


class Shrinking(gm.paths.Path):
    """A box of noise that shrinks to the data point."""

    def __init__(self, space):
        self.space = space

    def prediction(self, name):
        if name != "velocity":
            raise GenmatchError(f"{self} knows the velocity only, got prediction={name!r}.")
        return StraightVelocity()

    def _source(self, n, rng):
        return self.space.random(n, rng=rng)

    def _sample(self, x1, t, x0, rng):
        x0 = torch.rand(x1.shape, generator=rng, dtype=x1.dtype) if x0 is None else x0
        return expand(t, x1) * x1 + expand(1 - t, x1) * x0

    def _log_prob(self, x, t, x1):
        t = expand(t, x).clamp(max=1 - 1e-12)
        x0 = (x.double() - t * x1) / (1 - t)
        inside = ((x0 >= -1e-9) & (x0 <= 1 + 1e-9)).flatten(1).all(-1)
        return torch.where(inside, -torch.log1p(-t).flatten() * self.space.size, -torch.inf)


class StraightVelocity(gm.paths.Prediction):
    """What a network predicts on this path, (x1 - x) / (1 - t), and what it says of the motion."""

    def target(self, x, t, x1, x0):
        return (x1 - x) / expand(1 - t, x)

    def predict(self, output, x, t, kind):
        return output

    def drift(self, output, x, t):
        return Drift(output)

    def transition(self, output, x, t, s):
        return (x + expand(s - t, x) * output).clamp(0, 1)

    def divergence(self, target, output, x, t):
        return ((target - output) ** 2).flatten(1).sum(-1)


def corners():
    """Points near two corners of the unit square: a data set for `genmatch compare --data box:corners`."""
    rng = torch.Generator().manual_seed(0)
    points = (0.1 * torch.randn(1000, 2, generator=rng)).abs().clamp(max=1)
    points = torch.where(torch.rand(1000, 1, generator=rng) < 0.5, points, 1 - points)
    view = gm.data.View("vectors", gm.spaces.Euclidean((2,)), points[:800], points[800:], decode=lambda x: x)
    return gm.data.DataSet("corners", (view,), draw=lambda axes, x: axes.scatter(*x.T, s=4))
