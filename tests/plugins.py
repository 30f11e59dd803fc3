"""What another package might bring, given on the command line as tests.plugins:Name."""

import torch

import genmatch as gm
from genmatch.data import DataSet, View
from genmatch.spaces import Euclidean


def cosine_flow(space):
    """A flow on the cosine schedule."""
    if not isinstance(space, Euclidean):
        raise gm.GenmatchError(f"cosine_flow needs a Euclidean space, got {space}.")
    return gm.Flow(gm.paths.Gaussian(space.shape, schedule=gm.schedules.Cosine()), prediction="data")


def small_flow():
    """A flow in the plane, ready made."""
    return gm.Flow(gm.paths.Gaussian((2,)))


def not_a_process(space):
    """Makes something else."""
    return space


def blobs():
    """Two blobs in the plane."""
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)) * 0.2
    x[::2] += 1
    return DataSet("blobs", (View("vectors", Euclidean((2,)), x[:200], x[200:], lambda v: v),), _draw)


def _draw(axes, points):
    axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=2)


class Linear(torch.nn.Module):
    """A network of its own: one affine map of state and time."""

    def __init__(self, space, output_shape, *, width, depth, labels):
        super().__init__()
        self.affine = torch.nn.Linear(space.size + 1, space.size)

    def forward(self, x, t):
        return self.affine(torch.cat([x, t.unsqueeze(-1)], -1))


def no_network(space, output_shape, **options):
    """Takes what a network takes, and makes something else."""
    return 0


class TokensOnly(gm.processes.PosteriorProcess):
    """A process that is made on any space, and starts on tokens alone."""

    kinds = frozenset({"jump"})
    output_shape = (2, 3)
    generator = None

    def __init__(self, space):
        self.path = _Uniform(space)


class _Uniform(gm.paths.Path):
    _sample = None

    def __init__(self, space):
        self.space = space

    def _source(self, n, rng):
        return torch.randint(self.space.vocab_size, (n, *self.space.shape), generator=rng)
