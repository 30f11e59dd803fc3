"""Block diffusion: exact against the two ends that it lies between, tight, and cached without a trace."""

import math
from dataclasses import replace

import pytest
import torch

import genmatch as gm
from genmatch.compare.runner import fitting_families
from genmatch.models import Predictor
from genmatch.paths.blocks import Blocks
from genmatch.paths.sequential import Sequential
from genmatch.processes import Autoregressive, BlockDiffusion, families
from genmatch.runs import build_network
from genmatch.settings import RunSettings
from genmatch.training.objectives import streams
from tests.test_likelihood import entropy, exact_bound, nodes
from tests.toys import TOKEN_SCHEDULES, L, V, full, seeded, token_data, token_law

F64 = torch.float64


def blocks(block=2, length=L, vocab=V, **options):
    return BlockDiffusion(Blocks(length, vocab, block, **options))


def both_ends(schedule):
    mask = gm.CTMC(gm.paths.Mixture((L,), V, schedule=schedule))
    return [(blocks(L, schedule=schedule), mask), (blocks(1, schedule=schedule), Autoregressive(Sequential(L, V, schedule=schedule)))]


@pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=str)
def test_one_block_is_the_masked_chain_and_blocks_of_one_write_from_left_to_right(schedule):
    data, logits = token_data()[::7], torch.randn((V + 1) ** L, L, V, dtype=F64, generator=seeded())
    for process, other in both_ends(schedule):
        states = process.space.enumerate()
        x, x1 = states.repeat(len(data), 1), data.repeat_interleave(len(states), 0)
        for t in (0.1, 0.5, 0.9):
            law = process.path.log_prob(x, full(t, len(x)), x1)
            torch.testing.assert_close(law, other.path.log_prob(x, full(t, len(x)), x1), rtol=1e-12, atol=1e-12)
            on_path = (law.view(len(data), -1) > -torch.inf).any(0)
            here, time = states[on_path], full(t, int(on_path.sum()))
            one, two = (p.generator(logits[on_path], here, time) for p in (process, other))
            torch.testing.assert_close(one.intensity, two.intensity, rtol=1e-12, atol=1e-12)


def test_one_block_visits_the_states_of_the_masked_chain():
    (one, mask), _ = both_ends(gm.schedules.Cosine())
    u = torch.linspace(0.01, 0.99, len(token_data()), dtype=F64)
    a, b = (process.visit(token_data(), u, 0.0, 1.0, rng=seeded()) for process in (one, mask))
    for name in ("x", "t", "weight"):
        assert torch.equal(getattr(a, name), getattr(b, name))


def counted(process, model, data):
    """The bound in its form of counts, over all states that a visit may choose: the mean of L / m sum_open -log pi, (N,)."""
    states = process.space.enumerate()
    count, opened = process.masked(states).sum(-1), process.path.open(states)
    nats = -model(states, full(0.5, len(states))).log_softmax(-1)
    total = torch.zeros(len(data), dtype=F64)
    for x, m, here, cost in zip(states, count.tolist(), opened, nats, strict=True):
        if m == 0:
            continue
        chance = (process.path.log_prob(x.expand(len(data), -1), full(0.5, len(data)), data).exp()) / (math.comb(L, m) * 0.5**L)
        loss = L / int(here.sum()) * cost[here].gather(-1, data[:, here].T.unsqueeze(1).flatten(1)).sum(0)
        total += torch.where(chance > 0, chance * loss, 0) / L
    return total


@pytest.mark.parametrize("block", [1, 2, L])
@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_the_bound_is_the_entropy_for_the_exact_posterior(block, kind):
    process, law, data = blocks(block), token_law(kind), token_data()
    model = gm.oracle(process, data, law)
    integral = exact_bound(process, model, data, *nodes(24))
    assert float(torch.special.xlogy(law, law).sum() + torch.where(law > 0, law * integral, 0).sum()) == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(counted(process, model, data), integral, rtol=1e-9, atol=1e-9)
    worse = exact_bound(process, gm.sharpen(model, temperature=1.5), data, *nodes(24))
    assert float((law * worse).sum()) > entropy(law) + 1e-3
    assert process.bound_is_tight


def test_estimates_are_of_that_bound():
    process, law, data = blocks(), token_law("weak"), token_data()
    found = gm.elbo(process, gm.oracle(process, data, law), data, draws=200, seed=0)
    gap = float(law @ found.nats) - entropy(law)
    assert abs(gap) < 4 * float((law**2 @ found.standard_error**2).sqrt())
    assert float(found.standard_error.max()) < 0.2


def test_both_streams_say_the_bound_at_once():
    """Weights of the masked positions of all blocks: n / m over m uniform; exact by the mean over many shifts."""
    path, n = Blocks(7, 5, 3), 4000
    x1 = torch.randint(5, (n, 7), generator=seeded())
    visit = path.streams(x1, torch.arange(n, dtype=F64) / n + 1e-9, rng=seeded(1))
    noised, clean = visit.x[:, :7], visit.x[:, 7:]
    masked = noised == 5
    assert torch.equal(clean, x1)
    assert torch.equal(noised[~masked], x1[~masked])
    assert torch.equal(visit.weight > 0, masked)
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        count, size = masked[:, start:stop].sum(-1), stop - start
        assert (count.bincount(minlength=size + 1)[1:] - n / size).abs().max() <= 2, "each number of masks is as frequent"
        assert torch.allclose(visit.weight[:, start:stop].sum(-1), torch.tensor(float(size), dtype=F64))
        assert float((visit.weight[:, start:stop].mean(0) - 1).abs().max()) < 5 / math.sqrt(n)


def test_frozen_predictions_fill_the_open_block_first():
    process, n = blocks(3, length=6, vocab=3), 20_000
    x = torch.tensor([[0, 3, 3, 3, 3, 3]]).expand(n, -1)
    later = process.transition(torch.zeros(n, 6, 3), x, full(0.2, n), full(0.6, n), rng=seeded())
    masked = later == 3
    count = (~masked).sum(-1)
    assert torch.equal(later[:, 0], x[:, 0])
    assert not bool((masked[:, :3].any(-1) & (~masked[:, 3:]).any(-1)).any())
    shares = count.bincount(minlength=7)[1:].double() / n
    exact = torch.tensor([math.comb(5, k) * 0.5**5 for k in range(6)], dtype=F64)
    assert float((shares - exact).abs().max()) < 4 * 0.5 / math.sqrt(n)
    one = later[count == 2]
    assert float(((one[:, 1] == 3).double().mean() - 0.5).abs()) < 4 * 0.5 / math.sqrt(len(one)), "either of the two masks"


SOLVERS = [
    "random-order",
    "first-hitting",
    "confidence",
    "margin",
    "entropy",
    "left-to-right",
    "exact",
    "euler",
    "tau-leaping",
    "algorithm7",
    "threshold",
    "entropy-bounded",
]


def test_solvers_that_fit_fill_blocks_in_order():
    process = blocks(2, length=5, vocab=3)
    names = gm.solvers.available(process)
    assert names[0] == "random-order"
    assert set(SOLVERS) <= set(names)
    assert not {"remdm", "psi", "gibbs", "forward-backward", "argmax-final"} & set(names)
    data = torch.randint(3, (4, 5), generator=seeded())
    for name in names:
        run = gm.simulate(process, gm.oracle(process, data), process.path.source(40), torch.linspace(0, 1, 4, dtype=F64), solver=name, rng=seeded())
        for x, t in zip(run.states, run.times, strict=True):
            assert float(process.path.log_prob(x, full(0.5, 40), run.states[-1]).min()) > -torch.inf, (name, t)


@pytest.mark.parametrize("solver", ["random-order", "first-hitting", "confidence"])
def test_one_token_a_call_samples_the_law(solver):
    process, law, n = blocks(), token_law("strong"), 4000
    samples = gm.sample(process, gm.oracle(process, token_data(), law), n, steps=L, solver=solver, seed=0)
    counts = process.path.data_space.index(samples).bincount(minlength=V**L) / n
    assert float((counts - law).abs().sum() / 2) < 1.6 * math.sqrt(V**L / (2 * math.pi * n))


def test_first_hitting_keeps_the_law_at_every_time():
    process, law, n = blocks(), token_law("weak"), 6000
    times = torch.tensor([0, 0.4, 0.7], dtype=F64)
    run = gm.simulate(process, gm.oracle(process, token_data(), law), process.path.source(n), times, solver="first-hitting", rng=seeded())
    states = process.space.enumerate()
    for x, t in zip(run.states[1:], times[1:].tolist(), strict=True):
        pairs, data = states.repeat_interleave(64, 0), token_data().repeat(len(states), 1)
        exact = process.path.log_prob(pairs, full(t, len(pairs)), data).exp().view(len(states), 64) @ law
        counts = process.space.index(x).bincount(minlength=len(states)) / n
        assert float((counts - exact).abs().sum() / 2) < 1.6 * math.sqrt(len(states) / (2 * math.pi * n))


def block_network(process, width=16, depth=2):
    torch.manual_seed(0)
    net = gm.nn.Transformer(process.space, process.output_shape, width=width, depth=depth, heads=2, **process.network).double()
    torch.nn.init.normal_(net.head.weight)
    return net.requires_grad_(False)


@pytest.mark.parametrize("block", [1, 3, 4, 10])
def test_two_streams_say_of_each_block_what_the_state_says_that_ends_in_it(block):
    process = blocks(block, length=10, vocab=5)
    net, x1 = block_network(process), torch.randint(5, (3, 10), generator=seeded())
    x = process.path.streams(x1, torch.tensor([0.1, 0.5, 0.8], dtype=F64), rng=seeded(1)).x
    both = net(x, full(0.5, 3))
    for start in range(0, 10, block):
        state = torch.cat([x1[:, :start], x[:, start : start + block], torch.full_like(x1, 5)[:, start + block :]], -1)[:, :10]
        alone = net(state, full(0.5, 3))[:, start : start + block]
        torch.testing.assert_close(both[:, start : start + block], alone, rtol=0, atol=1e-12)
    changed = x.clone()
    changed[:, 10] = (changed[:, 10] + 1) % 5
    gap = (net(changed, full(0.5, 3)) - both).abs().amax((0, 2))
    assert float(gap[:block].max()) == 0, "a block sees its own data"
    assert block == 10 or float(gap[block:].min()) > 1e-6


def test_a_network_that_goes_on_says_what_it_says_of_the_whole():
    process = blocks(4, length=10, vocab=5)
    net, x, t = block_network(process), torch.randint(5, (3, 10), generator=seeded()), full(0.3, 3)
    whole, memory = net.features(x, t), {}
    for start, stop in ((0, 4), (4, 10), (4, 8), (8, 10)):
        torch.testing.assert_close(net.resume(x, t, memory, start, stop), whole[:, start:stop], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("solver", "steps", "clamp"), [("random-order", 10, None), ("confidence", 5, {0: 1, 1: 2}), ("exact", 6, None), ("first-hitting", 1, None)]
)
def test_what_is_remembered_changes_no_sample(solver, steps, clamp):
    process = blocks(4, length=10, vocab=5)
    net = block_network(process)
    found = [gm.sample(process, model, 20, solver=solver, steps=steps, clamp=clamp, seed=0) for model in (net, lambda x, t: net(x, t))]
    assert torch.equal(*found)


def test_finished_blocks_are_not_computed_again():
    process = blocks(4, length=10, vocab=5)
    net, asked = block_network(process), []
    resume = net.resume
    net.resume = lambda x, t, memory, start, stop: asked.append((start, stop)) or resume(x, t, memory, start, stop)
    run = gm.simulate(process, net, process.path.source(4), torch.linspace(0, 1, 11, dtype=F64), rng=seeded())
    assert [span for span in asked if span[1] - span[0] > 4] == [(0, 8), (4, 10)], "the first call of a block ends the one before"
    assert len(asked) == 10
    assert run.calls.tolist() == [10] * 4


def test_the_same_loop_trains_it_to_the_entropy():
    process, law = blocks(), token_law("strong")
    data = token_data()[torch.multinomial(law, 4000, replacement=True, generator=seeded())]
    torch.manual_seed(0)
    net = gm.nn.Transformer(process.space, process.output_shape, width=16, depth=1, **process.network)
    result = gm.train(process, net, data, steps=150, lr=2e-2, warmup=10, batch_size=64, objective="streams", ema=0.9, seed=0)
    bound = gm.elbo(process, result.model, token_data(), draws=200, seed=0)
    assert entropy(law) - 0.05 < float(law @ bound.nats) < entropy(law) + 0.35


def test_the_loss_of_two_streams_is_the_bound():
    process = blocks(4, length=10, vocab=5)
    net, x1 = block_network(process), torch.randint(5, (2, 10), generator=seeded())
    predict = Predictor(process, net).for_loss
    at_once = streams(process, predict, x1.repeat(1000, 1), seeded())
    bound = gm.elbo(process, net, x1, draws=3000, seed=0)
    gap = at_once.view(1000, 2).mean(0) - bound.nats
    error = (at_once.view(1000, 2).var(0) / 1000 + bound.standard_error**2).sqrt()
    assert float((gap / error).abs().max()) < 4


def test_the_family_asks_for_a_block_causal_network():
    settings = RunSettings("block", data="text", network="transformer", width=16, depth=1)
    process = families.block(gm.data.get("text").views[0].space)
    assert build_network(settings, process).block == process.path.block == 8
    with pytest.raises(gm.GenmatchError, match="block=8, which `mlp` does not offer"):
        build_network(replace(settings, network="mlp"), process)
    assert "block" in fitting_families(gm.data.get("text"), "transformer")
    with pytest.raises(gm.GenmatchError, match="sequences of tokens"):
        families.block(gm.spaces.Categorical((2, 3), 5))


def test_what_does_not_fit_is_refused():
    with pytest.raises(gm.GenmatchError, match="a path of blocks"):
        BlockDiffusion(gm.paths.Mixture((3,), 4))
    with pytest.raises(gm.GenmatchError, match="`block` must be a positive integer"):
        Blocks(3, 4, 0)
    with pytest.raises(gm.GenmatchError, match="not causal, and knows no time"):
        gm.nn.Transformer(blocks().space, (L, V), width=8, depth=1, heads=2, block=2, causal=True)
    with pytest.raises(gm.GenmatchError, match=r"noise and data side by side, \(64, 6\) for data \(64, 3\).*\*\*process.network.*objective='elbo'"):
        gm.train(blocks(), gm.nn.Transformer(blocks().space, (L, V), width=8, depth=1, heads=2), token_data(), steps=1, batch_size=64, objective="streams")
    process = blocks(2, length=6, vocab=4)
    model = gm.oracle(process, torch.randint(4, (5, 6), generator=seeded()))
    with pytest.raises(gm.GenmatchError, match="whole blocks at the beginning and a part of the next"):
        gm.sample(process, model, 2, clamp={0: 1, 3: 2})
    assert gm.sample(process, lambda x, t: torch.zeros(*x.shape, 4), 2, clamp={0: 1, 1: 3, 3: 2}, seed=0)[:, [0, 1, 3]].tolist() == [[1, 3, 2]] * 2
