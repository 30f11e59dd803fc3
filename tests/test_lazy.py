"""Outputs that are computed where they are read: the same samples, fewer rows and positions."""

import pytest
import torch

import genmatch as gm
from genmatch.lazy import Reader
from genmatch.models import Predictor
from genmatch.nn import Transformer
from genmatch.training import loss_on
from genmatch.training.objectives import OBJECTIVES
from tests.toys import chain, grid, seeded

L, V = 3, 4
F32 = torch.float32


class Watched(torch.nn.Module):
    """A small network that notes how many samples its features and how many positions its head were asked for."""

    def __init__(self, process, split=True, timed=False):
        super().__init__()
        torch.manual_seed(0)
        self.net = Transformer(process.space, process.output_shape, width=16, depth=1, heads=2, timed=timed)
        torch.nn.init.normal_(self.net.head.weight, std=0.5)
        self.rows, self.positions, self.time_free = [], [], not timed
        if split:
            self.features = self._features
            self.head = self._head

    def _features(self, x, t, **condition):
        self.rows.append(len(x))
        return self.net.features(x, t, **condition)

    def _head(self, features):
        self.positions.append(features.shape[:-1].numel())
        return self.net.head(features)

    def forward(self, x, t, **condition):
        return self._head(self._features(x, t, **condition)).view(-1, *self.net.output_shape)


def run(process, model, solver, n=64, steps=4, lazily=True, seed=0):
    process.sparse = lazily
    return gm.simulate(process, model, process.path.source(n, rng=seeded(seed)), grid(0, 1, steps), solver=solver, rng=seeded(seed))


@pytest.mark.parametrize("split", [True, False], ids=["split", "whole"])
@pytest.mark.parametrize("timed", [True, False], ids=["timed", "time-free"])
@pytest.mark.parametrize(("source", "name"), [(s, n) for s in ("mask", "uniform") for n in gm.solvers.available(chain(s))])
def test_lazy_outputs_change_no_sample(source, name, timed, split):
    process = chain(source)
    lazy, whole = (run(process, Watched(process, split, timed), name, lazily=lazily) for lazily in (True, False))
    assert lazy.nfe == whole.nfe
    assert bool((lazy.calls <= whole.calls).all())
    assert all(torch.equal(x, y) for x, y in zip(lazy.states, whole.states, strict=True))


def test_only_what_jumps_is_computed():
    process, steps, n = chain("mask"), 64, 20
    model = Watched(process)
    found = run(process, model, "exact", n, steps)
    assert sum(model.positions) == n * L, "the head sees each position once"
    assert found.calls.sum() == sum(model.rows)
    moves = torch.stack([(x != y).any(-1) for x, y in zip(found.states[:-1], found.states[1:], strict=True)]).sum(0)
    assert torch.equal(found.calls, moves), "a sample is computed in the steps in which it moves"
    assert int(found.calls.max()) <= L
    assert found.nfe == steps


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_first_hitting_takes_one_call_a_position(steps):
    process = chain("mask")
    found = run(process, Watched(process), "first-hitting", 10, steps)
    assert found.calls.tolist() == [L] * 10
    assert run(process, Watched(process), "first-hitting", 10, 1).nfe == L


def test_a_time_free_network_is_not_asked_twice_about_a_state():
    """Thinned rates are looked at without a jump; the next look is at the same state."""
    process = chain("mask")
    calls = {}
    for timed in (True, False):
        model = Watched(process, timed=timed)
        model.time_free = not timed
        reader = Reader(model, {}, process.output_shape, F32)
        x, t = process.path.source(4, rng=seeded()), torch.full((4,), 0.5)
        first = reader.read(x, t)[x == V]
        y = x.clone()
        y[1, 0] = 2
        again = reader.read(y, t)
        other = again[torch.ones_like(y, dtype=torch.bool)].view(4, L, -1)
        assert torch.equal(other[[0, 2, 3]], first.view(4, L, -1)[[0, 2, 3]])
        assert torch.allclose(other, model.net(y, t), atol=1e-6)
        calls[timed] = (torch.zeros(4, dtype=torch.int64) + reader.calls).tolist()
    assert calls == {True: [2, 2, 2, 2], False: [1, 2, 1, 1]}


@torch.no_grad()
def test_what_is_read_twice_is_computed_once():
    process = chain("mask")
    model = Watched(process)
    x, t = process.path.source(4, rng=seeded()), torch.full((4,), 0.5)
    output = Predictor(process, model).where_read(x, t)
    here = torch.zeros_like(x, dtype=torch.bool)
    assert output[here].shape == (0, V)
    here[2, 1] = True
    one = output[here]
    rest = output[~here]
    output[here]
    assert model.rows == [1, 3]
    assert output.shape == (4, L, V)
    whole = model.net(x, t)
    assert torch.allclose(one, whole[here], atol=1e-6)
    assert torch.allclose(rest, whole[~here], atol=1e-6)


@pytest.mark.parametrize("source", ["mask", "uniform"])
@pytest.mark.parametrize("split", [True, False], ids=["split", "whole"])
@pytest.mark.parametrize("objective", ["divergence", "elbo"])
def test_lazy_outputs_change_no_loss_and_no_gradient(objective, split, source):
    process, x1 = chain(source), torch.randint(V, (20, L), generator=seeded())
    found = []
    for lazily in (True, False):
        process.sparse = lazily
        model = Watched(process, split).double()
        loss = loss_on(process, model, x1, {}, rng=seeded(), objective=OBJECTIVES[objective])
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("objective", ["divergence", "elbo"])
def test_the_head_is_trained_on_masked_positions_only(objective):
    process, x1 = chain("mask"), torch.randint(V, (20, L), generator=seeded())
    seen = []
    model = Watched(process)
    model.net.embed.register_forward_hook(lambda module, inputs, output: seen.append(int((inputs[0] == V).sum())))
    loss_on(process, model, x1, {}, rng=seeded(), objective=OBJECTIVES[objective])
    assert model.positions == seen
    assert 0 < sum(seen) < 20 * L


def test_a_batch_without_masks_has_a_gradient_of_zero():
    process = chain("mask")
    model = Watched(process)
    x, t = torch.zeros(3, L, dtype=torch.int64), torch.full((3,), 0.9)
    loss = process.divergence(x, Predictor(process, model).for_loss(x, t), x, t).sum()
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(model.net.head.weight.grad.abs().max()) == 0


def test_conditions_follow_the_samples_that_are_computed():
    process = chain("mask")
    seen = []

    def model(x, t, label):
        seen.append(label.tolist())
        return torch.nn.functional.one_hot(label, V).float().unsqueeze(1).expand(-1, L, -1) * 100

    labels = torch.arange(40) % V
    x = gm.sample(process, model, 40, condition={"label": labels}, steps=20, seed=0)
    assert torch.equal(x, labels.unsqueeze(-1).expand(-1, L))
    assert min(len(asked) for asked in seen[1:]) < 40


def test_a_cavity_is_converted_as_a_whole():
    process = gm.CTMC(gm.paths.Mixture((L,), V, source="uniform"), prediction="cavity")
    found = gm.simulate(process, lambda x, t: torch.zeros(len(x), L, V), process.path.source(4, rng=seeded()), grid(0, 1, 3), rng=seeded())
    assert found.calls.tolist() == [3] * 4


class WrongFeatures(torch.nn.Module):
    def features(self, x, t):
        return torch.zeros(len(x), 7)

    def head(self, features):
        return features


class WrongHead(torch.nn.Module):
    def features(self, x, t):
        return torch.zeros(len(x), L, 7)

    def head(self, features):
        return features


@pytest.mark.parametrize(
    ("model", "message"),
    [(WrongFeatures(), r"`features` of the model must have shape \(B, L, width\)"), (WrongHead(), "`head` must return"), (lambda x, t: x, "floating tensor")],
    ids=["features", "head", "integers"],
)
def test_wrong_parts_are_refused_before_work_starts(model, message):
    with pytest.raises(gm.GenmatchError, match=message):
        gm.sample(chain("mask"), model, 2, seed=0)


def test_sharpened_models_stay_split():
    process = chain("mask")
    model = Watched(process)
    sharp = gm.sharpen(model, temperature=0.5, top_p=0.9)
    x = gm.sample(process, sharp, 30, steps=16, seed=0)
    assert sum(model.positions) == 30 * L + 1, "one position to check the model with"
    whole = gm.sharpen(Watched(process, split=False), temperature=0.5, top_p=0.9)
    assert torch.equal(gm.sample(process, whole, 30, steps=16, seed=0), x)
    assert sharp.time_free
