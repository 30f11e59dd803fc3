"""Posterior, cavity and score of tokens: exact conversions against enumeration, and what goes wrong without them."""

import itertools

import pytest
import torch

import genmatch as gm
from tests.test_ctmc import marginal_matrix, schedules, sources
from tests.toys import SOURCES, L, TinyTokens, V, full, seeded, token_data, token_law, token_marginal

F64 = torch.float64
PREDICTIONS = ("posterior", "cavity", "score")


def chain(source, schedule=gm.schedules.CondOT(), **options):  # noqa: B008 (immutable)
    return gm.CTMC(gm.paths.Mixture((L,), V, source=SOURCES[source], schedule=schedule), **options)


def cavities(process, law, time):
    """p(x1_j = v | x without x_j) at every state, by summing joint probabilities over x_j, (S^L, L, V)."""
    states, path = process.space.enumerate(), process.path
    n, data = len(states), token_data()
    t = full(time, n)
    out = torch.zeros(n, L, V, dtype=F64)
    factors = torch.stack([path.token_prob(states, t, z.expand(n, L)) for z in data], 1)
    for j in range(L):
        others = [k for k in range(L) if k != j]
        joint = factors[:, :, others].prod(-1) * law
        out[:, j] = torch.stack([joint[:, data[:, j] == v].sum(-1) for v in range(V)], -1)
    return out / out.sum(-1, keepdim=True)


def neighbours(process, law, time):
    """p_t(x with x_j = v) / p_t(x) at every state, (S^L, L, V)."""
    states = process.space.enumerate()
    p = token_marginal(process_source(process), float(process.path.schedule.kappa(full(time, 1))), law)
    ratios = torch.zeros(len(states), L, V, dtype=F64)
    for j, v in itertools.product(range(L), range(V)):
        there = states.clone()
        there[:, j] = v
        ratios[:, j, v] = p[process.space.index(there)] / p
    return ratios, p


def process_source(process):
    return next(name for name, source in SOURCES.items() if chain(name).path.source_probs.equal(process.path.source_probs))


@sources
@schedules
@pytest.mark.parametrize("time", [0.2, 0.7])
def test_conversions_are_exact(source, schedule, time):
    process, law = chain(source, schedule), token_law("strong")
    states = process.space.enumerate()
    t = full(time, len(states))
    output = gm.oracle(process, token_data(), law)(states, t)
    ratios, p = neighbours(process, law, time)
    # A mask that is revealed tells its token, so its cavity and score are not determined by the posterior.
    seen = ((p > 0).unsqueeze(-1) & process.path.is_noise(states)).unsqueeze(-1)
    cavity = process.predict(output, states, t, "cavity").exp()
    score = process.predict(output, states, t, "score").exp()
    direct = cavities(process, law, time)
    assert torch.allclose(cavity.where(seen, 0), direct.where(seen, 0), rtol=1e-11, atol=1e-14)
    assert torch.allclose(score.where(seen, 0), ratios.where(seen, 0), rtol=1e-11, atol=1e-14)
    for prediction, value in (("cavity", direct.log()), ("score", ratios.log())):
        other = chain(source, schedule, prediction=prediction)
        back = other.mean_at(value, states, t)
        assert torch.allclose(back.where(seen, 0), process.mean(output).where(seen, 0), rtol=1e-9, atol=1e-12)
        gap = (value.exp().softmax(-1) if prediction == "score" else value.exp()) - process.mean(output)
        if source != "mask" and time == 0.7:
            assert float(gap.where(seen, 0).abs().max()) > 0.1, "the predictions differ"


@sources
@pytest.mark.parametrize("rates", ["mixture", "reversal"])
def test_every_prediction_drives_the_same_chain(source, rates):
    law = token_law("strong")
    matrices = {name: marginal_matrix(chain(source, prediction=name, rates=rates), law, 0.4) for name in PREDICTIONS}
    visited = token_marginal(source, 0.4, law) > 0
    for name in PREDICTIONS[1:]:
        gap = (matrices[name] - matrices["posterior"]).abs() * visited
        assert float(gap.max()) < 1e-10


def test_the_oracle_returns_what_the_process_predicts():
    law, process = token_law("strong"), chain("uniform")
    states = process.space.enumerate()
    t = full(0.4, len(states))
    output = gm.oracle(process, token_data(), law)(states, t)
    for name in PREDICTIONS[1:]:
        found = gm.oracle(chain("uniform", prediction=name), token_data(), law)(states, t)
        assert torch.allclose(found, process.predict(output, states, t, name), rtol=1e-12)


def test_a_posterior_used_as_cavity_is_wrong():
    """The closed form of uniform diffusion, V kappa c_v + 1 - kappa over the same at x_j, is the score of the cavity only."""
    process, law, kappa = chain("uniform"), token_law("strong"), 0.4
    states = process.space.enumerate()
    t = full(kappa, len(states))
    output = gm.oracle(process, token_data(), law)(states, t)
    ratios, _ = neighbours(process, law, kappa)

    def closed(c):
        own = c.gather(-1, states.unsqueeze(-1))
        return (V * kappa * c + 1 - kappa) / (V * kappa * own + 1 - kappa)

    right = (closed(process.predict(output, states, t, "cavity").exp()) / ratios - 1).abs().max()
    wrong = (closed(process.mean(output)) / ratios - 1).abs().max()
    assert float(right) < 1e-12
    assert float(wrong) > 0.1


@sources
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_each_loss_is_smallest_at_its_own_prediction(prediction, source):
    process, law = chain(source, prediction=prediction), token_law("strong")
    states, data = process.space.enumerate(), token_data()
    p = token_marginal(source, 0.4, law)
    states = states[p > 0]
    t, model = full(0.4, len(states)), gm.oracle(process, data, law)
    posterior, best = model.posterior(states, t), model(states, t)

    def expected(output):
        pairs = [process.divergence(z.expand(len(states), L), output, states, t) for z in data]
        return (posterior * torch.nan_to_num(torch.stack(pairs, -1), posinf=0.0)).sum(-1)

    for seed in range(3):
        guess = best.clamp(min=-30) + 0.3 * torch.randn(*best.shape, dtype=F64, generator=seeded(seed))
        assert bool((expected(guess) >= expected(best) - 1e-12).all())
    assert float((expected(guess) - expected(best)).max()) > 1e-3


def test_predictions_are_named_and_refused():
    with pytest.raises(gm.GenmatchError, match="unknown prediction `cavities`; did you mean `cavity`"):
        chain("uniform", prediction="cavities")
    with pytest.raises(gm.GenmatchError, match="a score determines the data on a mixture path only, got Metric"):
        gm.CTMC(gm.paths.Metric((2,), vocab_size=3), prediction="score")
    process = chain("uniform", prediction="cavity")
    with pytest.raises(gm.GenmatchError, match=r"`natural` of a cavity depends on the state.*use `natural_at\(\.\.\., x, t\)`"):
        process.natural(torch.tensor([[0, 1, 2]]))
    with pytest.raises(gm.GenmatchError, match="`mean` of a cavity"):
        process.mean(torch.zeros(1, L, V))
    assert chain("uniform", prediction="score").t_min > 0


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("rates", ["mixture", "reversal"])
def test_every_prediction_is_sampled_by_the_same_call(prediction, rates):
    process = chain("uniform", prediction=prediction, rates=rates)
    data = torch.tensor([[0, 1, 2], [3, 3, 0]])
    x = gm.sample(process, gm.oracle(process, data), 200, steps=16, seed=0)
    arrived = (x.unsqueeze(1) == data).all(-1).any(-1).double().mean()
    assert float(arrived) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_is_learned_by_the_same_loop(prediction):
    process, law = chain("uniform", prediction=prediction), token_law("weak")
    torch.manual_seed(0)
    data = token_data()[torch.multinomial(law, 4000, replacement=True, generator=seeded(1))]
    model = gm.train(process, TinyTokens(process, width=64), data, steps=1500, batch_size=256, lr=3e-3, seed=0).model
    states = process.space.enumerate()
    t = full(0.5, len(states))
    exact = process.mean_at(gm.oracle(process, token_data(), law)(states, t), states, t)
    learned = process.mean_at(model(states, t.float()).detach(), states, t)
    gap = float((exact - learned).abs().sum(-1).mean()) / 2
    print(f"{prediction}: total variation to the exact posterior {gap:.3f}")
    assert gap < 0.04
