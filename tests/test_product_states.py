"""States that are dictionaries go through the same loop, oracle, sampler and solver as tensors.

The process is defined here, as a user would: two modalities that are independent given the data point.
"""

import re

import pytest
import torch

import genmatch as gm
from genmatch.generators import KroneckerSum
from genmatch.paths import Path
from genmatch.spaces import ProductSpace
from genmatch.tensors import tree_map


class Pair(Path):
    def __init__(self, **paths):
        self.paths = paths
        self.space = ProductSpace(**{k: p.space for k, p in paths.items()})

    @property
    def data_space(self):
        return ProductSpace(**{k: p.data_space for k, p in self.paths.items()})

    def _source(self, n, rng):
        return {k: p.source(n, rng=rng) for k, p in self.paths.items()}

    def _sample(self, x1, t, x0, rng):
        return {k: p.sample(x1[k], t, x0=None if x0 is None else x0[k], rng=rng) for k, p in self.paths.items()}

    def _log_prob(self, x, t, x1):
        return sum(p.log_prob(x[k], t, x1[k]) for k, p in self.paths.items())


class Joint(gm.MarkovProcess):
    def __init__(self, **processes):
        self.processes = processes
        self.path = Pair(**{k: p.path for k, p in processes.items()})
        self.kinds = frozenset().union(*(p.kinds for p in processes.values()))

    @property
    def output_shape(self):
        return {k: p.output_shape for k, p in self.processes.items()}

    def target(self, x, t, x1, *, x0=None):
        return {k: p.target(x[k], t, x1[k], x0=None if x0 is None else x0[k]) for k, p in self.processes.items()}

    def natural(self, target):
        return {k: p.natural(target[k]) for k, p in self.processes.items()}

    def mean(self, output):
        return {k: p.mean(output[k]) for k, p in self.processes.items()}

    def average(self, targets, weights):
        return {k: p.average(targets[k], weights) for k, p in self.processes.items()}

    def divergence(self, target, output, x, t):
        return sum(p.divergence(target[k], output[k], x[k], t) for k, p in self.processes.items())

    def generator(self, output, x, t):
        return KroneckerSum(**{k: p.generator(output[k], x[k], t) for k, p in self.processes.items()})

    def transition(self, output, x, t, s, *, rng=None):
        return {k: p.transition(output[k], x[k], t, s, rng=rng) for k, p in self.processes.items()}


JOINT = Joint(place=gm.Flow(gm.paths.Gaussian((2,))), word=gm.CTMC(gm.paths.Mixture((3,), vocab_size=3)))
DATA = {"place": torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), "word": torch.tensor([[0, 1, 2], [2, 2, 1]])}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 11)

    def forward(self, x, t):
        out = self.layer(torch.cat([x["place"], x["word"].float(), t.unsqueeze(-1)], -1))
        return {"place": out[:, :2], "word": out[:, 2:].reshape(-1, 3, 3)}


def test_samples_agree_between_modalities_under_every_solver():
    assert gm.solvers.available(JOINT) == ["exact", "euler"]
    for solver in gm.solvers.available(JOINT):
        x = gm.sample(JOINT, gm.oracle(JOINT, DATA), 200, solver=solver, steps=64, seed=0)
        right = x["place"][:, 0] > 0
        words = DATA["word"][right.long()]
        assert float((x["word"] == words).all(-1).double().mean()) > 0.9
        assert 60 < int(right.sum()) < 140


def test_the_same_loop_trains_it():
    result = gm.train(JOINT, Net(), tree_map(lambda v: v.repeat(50, *[1] * (v.dim() - 1)), DATA), steps=200, lr=1e-2, seed=0)
    assert sum(result.losses[-20:]) < 0.7 * sum(result.losses[:20])


def test_a_wrong_part_is_named():
    class Wrong(Net):
        def forward(self, x, t):
            return {**super().forward(x, t), "word": torch.zeros(len(t), 3, 4)}

    with pytest.raises(gm.GenmatchError, match=re.escape("output['word'] must have shape (1, 3, 3)")):
        gm.sample(JOINT, Wrong(), 2, steps=2)
