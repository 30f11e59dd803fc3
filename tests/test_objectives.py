"""Objectives: conditional and marginal losses have one gradient, and the loss of "elbo" is the likelihood bound."""

import pytest
import torch

import genmatch as gm
from genmatch.models import Predictor
from genmatch.settings import OBJECTIVES as NAMES
from genmatch.training import loss_on
from genmatch.training.objectives import OBJECTIVES, divergence, elbo
from tests.toys import SOURCES, L, TinyTokens, TinyVector, V, full, line, seeded, token_data, token_law

F64 = torch.float64
CHAINS = [(source, rates) for source in SOURCES for rates in ("mixture", "reversal")]


def chain(source, rates):
    return gm.CTMC(gm.paths.Mixture((L,), V, source=SOURCES[source]), rates=rates)


def reachable(process, t, law):
    """The states, and p_t(x | x1) p(x1) for each data point and state, (N, S)."""
    states, data = process.space.enumerate(), token_data()
    chance = process.path.log_prob(states.repeat(len(data), 1), full(t, len(data) * len(states)), data.repeat_interleave(len(states), 0)).exp()
    return states, law.unsqueeze(-1) * chance.reshape(len(data), -1)


@pytest.mark.parametrize(("source", "rates"), CHAINS)
@pytest.mark.parametrize("time", [0.05, 0.6, 0.95])
def test_rates_to_the_data_and_rates_to_their_mean_have_one_gradient(source, rates, time):
    process, law, data = chain(source, rates), token_law("strong"), token_data()
    states, joint = reachable(process, time, law)
    t, marginal = full(time, len(states)), joint.sum(0)
    possible = marginal > 0
    states, joint, t, marginal = states[possible], joint[:, possible], t[possible], marginal[possible]
    output = torch.randn(len(states), L, V, dtype=F64, generator=seeded()).requires_grad_()
    rows = joint > 0
    which, where = rows.nonzero(as_tuple=True)
    conditional = (joint[rows] * process.kl_rate(output[where], states[where], t[where], data[which])).sum()
    target = gm.marginal_generator(process, data, states, t, weights=law)
    average = (marginal * target.kl(process.generator(output, states, t), states)).sum()
    one, two = (torch.autograd.grad(loss, output, retain_graph=True)[0] for loss in (conditional, average))
    assert float((one - two).abs().max()) < 1e-12 * max(1, float(two.abs().max()))
    assert float(two.abs().max()) > 1e-3
    assert float(conditional.detach() - average.detach()) > 1e-3 or time > 0.9


def test_the_mask_bound_has_the_gradient_of_the_cross_entropy_with_its_weight():
    process, data = chain("mask", "mixture"), token_data()
    t = torch.rand(len(data), dtype=F64, generator=seeded())
    x = process.path.sample(data, t, rng=seeded(1))
    output = torch.randn(len(data), L, V, dtype=F64, generator=seeded(2)).requires_grad_()
    weighted = process.path.schedule.rate(t) * process.divergence(data, output, x, t)
    one, two = (torch.autograd.grad(loss.sum(), output)[0] for loss in (weighted, process.kl_rate(output, x, t, data)))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_the_loss_is_the_bound_a_coordinate():
    process, data = chain("mask", "mixture"), token_data().repeat(100, 1)
    model = TinyTokens(process)
    with torch.no_grad():
        losses = torch.stack([loss_on(process, model, data, {}, rng=seeded(seed), objective=elbo) for seed in range(20)])
    bound = gm.elbo(process, model, token_data(), draws=1000, seed=0)
    assert abs(float(losses.mean()) - bound.mean / L) < 4 * (float(losses.var() / 20) + (bound.mean_error / L) ** 2) ** 0.5
    assert float(losses.std()) < 0.05


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("process", [chain("mask", "mixture"), chain("uniform", "reversal"), gm.Diffusion(gm.paths.Gaussian((1,)))], ids=str)
def test_both_train_every_process_with_noise(process, name):
    data = token_data()[:4] if process.kinds == {"jump"} else torch.tensor([[-1.0], [1.0]])
    model = TinyTokens(process) if process.kinds == {"jump"} else TinyVector()
    before = gm.elbo(process, model, data, draws=64, seed=0).mean
    result = gm.train(process, model, data, steps=60, lr=1e-2, warmup=5, batch_size=64, objective=name, validation=data, seed=0)
    assert gm.elbo(process, result.model, data, draws=64, seed=0).mean < before
    assert result.settings["objective"] == name


def test_names_are_those_of_the_settings():
    assert tuple(OBJECTIVES) == NAMES


def test_what_has_no_bound_is_refused_before_training():
    process = gm.Flow(line())
    with pytest.raises(gm.GenmatchError, match="no likelihood bound to train on"):
        gm.train(process, TinyVector().double(), torch.zeros(4, 1, dtype=F64), steps=1, objective="elbo")
    with pytest.raises(gm.GenmatchError, match="did you mean `elbo`"):
        gm.train(process, TinyVector(), torch.zeros(4, 1), steps=1, objective="elb")
    assert divergence(process, Predictor(process, lambda x, t: x), torch.zeros(4, 1, dtype=F64), seeded()).shape == (4,)
