"""Writing from left to right: a Markov process whose bound is its likelihood, and a network that looks only back."""

import functools
import math

import pytest
import torch

import genmatch as gm
from genmatch.models import Predictor
from genmatch.paths.sequential import Sequential
from tests.test_likelihood import entropy, exact_bound, nodes
from tests.toys import TOKEN_SCHEDULES, L, V, full, seeded, token_data, token_law

F64 = torch.float64


def conditionals(law):
    """The exact causal network: log p(x_j | x_<j) from the table of all sequences."""
    table = law.reshape([V] * L)

    @functools.cache
    def row(x):
        out = torch.zeros(L, V, dtype=F64)
        for j in range(L):
            if V not in x[:j]:
                part = table[x[:j]]
                out[j] = (part.sum(tuple(range(1, L - j))) if L - j > 1 else part).log().log_softmax(-1)
        return out

    return lambda x, t: torch.stack([row(tuple(tokens)) for tokens in x.tolist()])


@pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=str)
def test_the_bound_is_the_likelihood_by_the_integral_and_by_one_call(schedule):
    process, law, data = gm.processes.Autoregressive(Sequential(L, V, schedule=schedule)), token_law("weak"), token_data()
    integral = exact_bound(process, conditionals(law), data, *nodes(24))
    torch.testing.assert_close(integral, -law.log(), rtol=0, atol=1e-10)
    found = gm.elbo(process, conditionals(law), data, draws=2, seed=0)
    torch.testing.assert_close(found.nats, -law.log(), rtol=0, atol=1e-12)
    assert float(found.standard_error.max()) == 0
    assert found.tight
    assert float(law @ found.nats) == pytest.approx(entropy(law), abs=1e-12)


def test_frozen_predictions_reveal_the_right_number_in_order():
    process, n = gm.processes.Autoregressive(Sequential(5, 3)), 20_000
    x = torch.tensor([[0, 2, 3, 3, 3]]).expand(n, -1)
    later = process.transition(torch.zeros(n, 5, 3), x, full(0.2, n), full(0.6, n), rng=seeded())
    count = process.path.revealed(later)
    assert torch.equal(later[:, :2], x[:, :2])
    assert bool(((later == 3).int().diff(dim=-1) >= 0).all())
    shares = count.bincount(minlength=6)[2:].double() / n
    exact = torch.tensor([math.comb(3, k) * 0.5**3 for k in range(4)], dtype=F64)
    assert float((shares - exact).abs().max()) < 4 * 0.5 / math.sqrt(n)
    assert bool((process.finish(torch.zeros(n, 5, 3), x, full(0.2, n), rng=seeded()) < 3).all())


def test_many_steps_sample_the_law():
    process, law = gm.processes.Autoregressive(Sequential(L, V)), token_law("strong")
    samples = gm.sample(process, gm.oracle(process, token_data(), law), 1500, steps=24, seed=0)
    counts = process.path.data_space.index(samples).bincount(minlength=V**L) / len(samples)
    assert float((counts - law).abs().sum() / 2) < 0.1
    once = gm.sample(process, gm.oracle(process, token_data(), law), 1500, steps=1, seed=0)
    assert float((process.path.data_space.index(once).bincount(minlength=V**L) / len(once) - law).abs().sum() / 2) > 0.2


def test_a_causal_network_looks_only_back_and_at_no_time():
    process = gm.processes.Autoregressive(Sequential(6, 4))
    net = gm.nn.Transformer(process.space, process.output_shape, width=16, depth=2, heads=2, causal=True).double()
    torch.nn.init.normal_(net.head.weight)
    for block in net.blocks:
        for modulation in (block.before_attention, block.before_layers):
            torch.nn.init.normal_(modulation.project.weight, std=0.2)
    net.requires_grad_(False)
    x, t = torch.randint(4, (3, 6), generator=seeded()), full(0.3, 3)
    out = net(x, t)
    assert torch.equal(out, net(x, full(0.9, 3)))
    for j in range(6):
        other = x.clone()
        other[:, j] = (x[:, j] + 1) % 4
        gap = (net(other, t) - out).abs().amax((0, 2))
        assert float(gap[: j + 1].max()) < 1e-12, "a position sees itself or what follows"
        assert j == 5 or float(gap[j + 1 :].min()) > 1e-6


def test_the_same_loop_trains_it_to_the_entropy():
    process, law = gm.processes.Autoregressive(Sequential(L, V)), token_law("strong")
    data = token_data()[torch.multinomial(law, 4000, replacement=True, generator=seeded())]
    torch.manual_seed(0)
    net = gm.nn.Transformer(process.space, process.output_shape, width=16, depth=1, causal=True)
    result = gm.train(process, net, data, steps=150, lr=2e-2, warmup=10, batch_size=64, objective="elbo", ema=0.9, seed=0)
    bound = gm.elbo(process, result.model, token_data(), draws=2, seed=0)
    assert entropy(law) - 1e-6 < float(law @ bound.nats) < entropy(law) + 0.35


def test_one_call_is_the_whole_likelihood():
    process = gm.processes.Autoregressive(Sequential(L, V))
    predict = Predictor(process, conditionals(token_law("weak")))
    process.path_nats(predict, token_data(), full(0.5, 64), 0.0, 1.0)
    assert predict.calls == 1


def test_other_paths_are_refused():
    with pytest.raises(gm.GenmatchError, match="from left to right"):
        gm.processes.Autoregressive(gm.paths.Mixture((3,), 4))
