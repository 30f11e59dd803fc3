"""Writing from left to right: a Markov process whose bound is its likelihood, and a network that looks only back."""

import functools
import math
from dataclasses import replace

import pytest
import torch

import genmatch as gm
import genmatch.data
from genmatch.compare.runner import fitting_families
from genmatch.models import Predictor
from genmatch.paths.sequential import Sequential
from genmatch.runs import build_network, fit_view
from genmatch.settings import RunSettings
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


def test_a_network_that_looks_ahead_has_no_likelihood():
    process = gm.processes.Autoregressive(Sequential(3, vocab_size=4))
    data = torch.tensor([[0, 1, 2], [3, 2, 1]])
    with pytest.raises(gm.GenmatchError, match="looks ahead: its output changes with the last token"):
        gm.elbo(process, gm.oracle(process, data), data, draws=2, seed=0)


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


def test_one_token_a_call_samples_the_law_exactly():
    process, law, n = gm.processes.Autoregressive(Sequential(L, V)), token_law("strong"), 4000
    samples = gm.sample(process, conditionals(law), n, steps=L, seed=0)
    counts = process.path.data_space.index(samples).bincount(minlength=V**L) / n
    assert float((counts - law).abs().sum() / 2) < 1.6 * math.sqrt(V**L / (2 * math.pi * n))


def test_only_solvers_that_go_from_left_to_right_fit():
    names = gm.solvers.available(gm.processes.Autoregressive(Sequential(L, V)))
    assert names[:2] == ["left-to-right", "exact"]
    assert not {"first-hitting", "confidence", "random-order", "remdm", "gibbs", "threshold"} & set(names)


def causal_network(process, width=16, depth=2):
    torch.manual_seed(0)
    net = gm.nn.Transformer(process.space, process.output_shape, width=width, depth=depth, heads=2, causal=True).double()
    torch.nn.init.normal_(net.head.weight)
    return net.requires_grad_(False)


def test_a_network_that_goes_on_says_what_it_says_of_the_whole():
    process = gm.processes.Autoregressive(Sequential(9, 5))
    net, x, t = causal_network(process), torch.randint(5, (3, 9), generator=seeded()), full(0.3, 3)
    whole, memory = net.features(x, t), {}
    for start, stop in ((0, 1), (1, 4), (4, 5), (5, 9), (2, 9)):
        torch.testing.assert_close(net.resume(x, t, memory, start, stop), whole[:, start:stop], rtol=0, atol=1e-12)
    with pytest.raises(gm.GenmatchError, match="only a causal network"):
        gm.nn.Transformer(process.space, process.output_shape, width=8, depth=1, heads=2).resume(x, t, {}, 0, 1)


@pytest.mark.parametrize(("solver", "steps", "clamp"), [("left-to-right", 9, None), ("left-to-right", 3, None), ("exact", 5, None), ("exact", 4, {0: 1, 1: 2})])
def test_what_is_remembered_changes_no_sample(solver, steps, clamp):
    process = gm.processes.Autoregressive(Sequential(9, 5))
    net = causal_network(process)
    found = [gm.sample(process, model, 20, solver=solver, steps=steps, clamp=clamp, seed=0) for model in (net, lambda x, t: net(x, t))]
    assert torch.equal(*found)


def test_each_position_is_computed_once():
    process = gm.processes.Autoregressive(Sequential(9, 5))
    net, asked = causal_network(process), []
    resume = net.resume
    net.resume = lambda x, t, memory, start, stop: asked.append((start, stop)) or resume(x, t, memory, start, stop)
    run = gm.simulate(process, net, process.path.source(4), torch.linspace(0, 1, 10, dtype=F64), rng=seeded())
    assert asked == [(j, j + 1) for j in range(9)]
    assert run.calls.tolist() == [9] * 4


def test_a_prefix_that_changes_is_computed_again():
    process = gm.processes.Autoregressive(Sequential(4, 5))
    net, x = causal_network(process), torch.randint(5, (2, 4), generator=seeded())
    predict, every, t = Predictor(process, net), torch.ones(2, 4, dtype=torch.bool), full(0.5, 2)
    predict.where_read(x, t)[every]
    x = x.clone()
    x[1, 1] = (x[1, 1] + 1) % 5
    torch.testing.assert_close(predict.where_read(x, t)[every], net(x, t)[every], rtol=0, atol=1e-12)


def test_the_family_asks_for_a_causal_network():
    settings = RunSettings("autoregressive", data="text", network="transformer", width=16, depth=1)
    process, _ = fit_view("autoregressive", gm.data.get("text"))
    assert build_network(settings, process).causal
    with pytest.raises(gm.GenmatchError, match="causal=True, which `mlp` does not offer"):
        build_network(replace(settings, network="mlp"), process)
    names = {network: fitting_families(gm.data.get("text"), network) for network in ("mlp", "transformer")}
    assert set(names["transformer"]) - set(names["mlp"]) == {"autoregressive", "block"}
    with pytest.raises(gm.GenmatchError, match="sequences of tokens"):
        gm.processes.families.autoregressive(gm.spaces.Categorical((2, 3), 5))


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
