"""The chain on three tokens of four values, where every law is a vector and every generator a matrix."""

import math

import pytest
import torch

import genmatch as gm
from tests.toys import (
    SOURCES,
    TOKEN_SCHEDULES,
    L,
    V,
    chain,
    chi_square,
    full,
    name_of,
    redraw,
    seeded,
    token_data,
    token_law,
    token_marginal,
    token_marginal_rate,
)

F64 = torch.float64
sources = pytest.mark.parametrize("source", SOURCES)
schedules = pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=name_of)


def coefficients(schedule, time):
    t = full(time, 1)
    return schedule.kappa(t).item(), schedule.d_kappa(t).item()


def marginal_matrix(process, law, time, data=None):
    states = process.space.enumerate()
    return gm.marginal_generator(process, token_data() if data is None else data, states, full(time, len(states)), weights=law).dense(process.space)


@sources
@schedules
@pytest.mark.parametrize("time", [0.05, 0.3, 0.6, 0.95])
def test_mixture_rates_solve_the_forward_equation(source, schedule, time):
    law, (kappa, d_kappa) = token_law("strong"), coefficients(schedule, time)
    q = marginal_matrix(chain(source, schedule), law, time)
    p, slope = token_marginal(source, kappa, law), token_marginal_rate(source, kappa, d_kappa, law)
    assert float((q @ p - slope).abs().max()) < 1e-9
    assert float((1.1 * q @ p - slope).abs().max()) > 1e-4, "faster rates are another law"
    assert float(q.sum(0).abs().max()) < 1e-10
    assert bool((q - q.diag().diag() >= 0).all())


@sources
@schedules
def test_conditional_rates_solve_the_forward_equation(source, schedule):
    process, time = chain(source, schedule), 0.4
    states, (kappa, d_kappa) = process.space.enumerate(), coefficients(schedule, time)
    x1 = torch.tensor([[1, 3, 0]])
    one = (token_data() == x1).all(-1).double()
    p, slope = token_marginal(source, kappa, one), token_marginal_rate(source, kappa, d_kappa, one)
    q = gm.conditional_generator(process, states, full(time, len(states)), x1.expand(len(states), L)).dense(process.space)
    visited = p > 0
    assert torch.allclose((q[:, visited] @ p[visited]), slope, rtol=0, atol=1e-12)


@sources
def test_the_oracle_is_bayes(source):
    process, law = chain(source), token_law("strong")
    states, data = process.space.enumerate(), token_data()
    t = full(0.4, len(states))
    likelihood = torch.stack([process.path.log_prob(states, t, z.expand(len(states), L)).exp() for z in data], -1)
    joint = likelihood * law
    posterior = joint / joint.sum(-1, keepdim=True)
    tokens = torch.nn.functional.one_hot(data, V).double()
    expected = torch.einsum("xz,zjv->xjv", posterior, tokens)
    output = gm.oracle(process, data, law)(states, t)
    assert torch.allclose(process.mean(output), expected, rtol=1e-12, atol=1e-15)
    assert torch.allclose(joint.sum(-1), token_marginal(source, 0.4, law), rtol=1e-12)


def test_the_mask_posterior_does_not_depend_on_time():
    process, law = chain("mask"), token_law("strong")
    states, model = process.space.enumerate(), gm.oracle(process, token_data(), law)
    early, late = (process.mean(model(states, full(time, len(states)))) for time in (0.2, 0.9))
    assert float((early - late).abs().max()) < 1e-12
    known = states < V
    assert torch.equal(early[known].argmax(-1), states[known])
    assert torch.allclose(early[known].amax(-1), torch.ones(int(known.sum()), dtype=F64))
    other = chain("uniform")
    uniform = gm.oracle(other, token_data(), law)
    gap = other.mean(uniform(token_data(), full(0.2, 64))) - other.mean(uniform(token_data(), full(0.9, 64)))
    assert float(gap.abs().max()) > 0.1


@sources
@schedules
def test_one_token_jumps_exactly_in_one_big_step(source, schedule):
    law = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=F64)
    process, data = chain(source, schedule, positions=1), torch.arange(V).unsqueeze(-1)
    states = process.space.enumerate()
    t, s = full(0.3, len(states)), full(0.8, len(states))
    pi = process.mean(gm.oracle(process, data, law)(states, t))
    pi = torch.nn.functional.pad(pi, (0, process.space.num_states - V))
    kappa_t, kappa_s = coefficients(schedule, 0.3)[0], coefficients(schedule, 0.8)[0]
    q = (kappa_s - kappa_t) / (1 - kappa_t) * process.path.is_noise(states).double()
    assert torch.allclose(process.path.schedule.jump_probability(t, s), full((kappa_s - kappa_t) / (1 - kappa_t), len(t)), rtol=1e-14)
    there = redraw(pi, states, q) @ token_marginal(source, kappa_t, law, positions=1)
    assert torch.allclose(there, token_marginal(source, kappa_s, law, positions=1), rtol=0, atol=1e-14)


@sources
@pytest.mark.parametrize("s", [0.6, 1.0])
def test_transition_draws_its_kernel(source, s):
    process, n = chain(source), 30_000
    x = torch.tensor([[0, 2, V if source == "mask" else 3]])
    output = torch.randn(1, L, V, dtype=F64, generator=seeded(4))
    pi = torch.nn.functional.pad(output.softmax(-1), (0, process.space.num_states - V))
    q = (s - 0.2) / 0.8 * process.path.is_noise(x).double()
    column = redraw(pi, x, q)[:, 0]
    there = process.transition(output.expand(n, L, V), x.expand(n, L), full(0.2, n), full(s, n), rng=seeded(1))
    counts = process.space.index(there).bincount(minlength=process.space.cardinality)
    assert chi_square(counts, column) > 1e-4
    assert chi_square(counts, redraw(pi, x, 0.7 * q)[:, 0]) < 1e-6, "the test tells kernels apart"


def test_known_tokens_never_change():
    process, x = chain("mask"), torch.tensor([[0, V, 2]]).expand(50, L)
    output = torch.randn(50, L, V, generator=seeded())
    there = process.transition(output, x, full(0.2, 50), full(1.0, 50), rng=seeded())
    assert torch.equal(there[:, [0, 2]], x[:, [0, 2]])
    assert int(there.max()) < V
    rates = process.generator(output, x, full(0.2, 50)).rates(x, V + 1)
    assert float(rates[:, [0, 2]].abs().max()) == 0.0


@sources
def test_the_divergence_is_smallest_at_the_posterior(source):
    """E[D(m, F) | x] - E[D(m, pi) | x] = KL(pi, F), over the positions that can be noise."""
    process, law = chain(source), token_law("strong")
    states, data = process.space.enumerate(), token_data()
    t, model = full(0.4, len(states)), gm.oracle(process, data, law)
    posterior, best = model.posterior(states, t), model(states, t)
    guess = torch.randn(*best.shape, dtype=F64, generator=seeded())

    def expected(output):
        pairs = [process.divergence(z.expand(len(states), L), output, states, t) for z in data]
        return (posterior * torch.nan_to_num(torch.stack(pairs, -1), posinf=0.0)).sum(-1)

    pi = process.mean(best)
    gap = torch.where(pi > 0, pi * (pi.log() - guess.log_softmax(-1)), 0).sum(-1)
    direct = (gap * process.path.is_noise(states)).sum(-1)
    assert torch.allclose(expected(guess) - expected(best), direct, rtol=1e-10, atol=1e-12)
    assert torch.allclose(process.divergence(pi, guess, states, t), direct, rtol=1e-10, atol=1e-12)
    assert float(direct.max()) > 0.1


def test_natural_and_mean_are_inverse():
    process = chain("uniform")
    probabilities = torch.rand(5, L, V, dtype=F64, generator=seeded())
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    assert torch.allclose(process.mean(process.natural(probabilities)), probabilities, rtol=1e-14)
    tokens = torch.tensor([[0, 3, 2]])
    assert torch.equal(process.mean(process.natural(tokens)).argmax(-1), tokens)
    average = process.average(torch.tensor([[[0, 3, 2], [0, 1, 2]]]), torch.tensor([[0.25, 0.75]], dtype=F64))
    assert average[0].tolist() == [[1, 0, 0, 0], [0, 0.75, 0, 0.25], [0, 0, 1, 0]]


def test_the_loss_of_certain_tokens_is_the_cross_entropy():
    process = chain("mask")
    output, x1 = torch.randn(2, L, V, dtype=F64, generator=seeded()), torch.tensor([[0, 1, 2], [3, 3, 3]])
    x = torch.tensor([[V, 1, V], [V, V, V]])
    nats = torch.nn.functional.cross_entropy(output.movedim(-1, 1), x1, reduction="none")
    assert torch.allclose(process.divergence(x1, output, x, full(0.5, 2)), (nats * (x == V)).sum(-1), rtol=1e-13)


def test_gradients_are_finite_where_probabilities_vanish():
    process = chain("uniform")
    output = torch.tensor([[[0.0, -200.0, 300.0, 5.0]] * L], requires_grad=True)
    target = torch.tensor([[[0.0, 0.5, 0.5, 0.0]] * L])
    process.divergence(target, output, torch.zeros(1, L, dtype=torch.int64), full(0.5, 1)).sum().backward()
    assert bool(output.grad.isfinite().all())


def test_rare_tokens_are_drawn_as_often_as_they_should():
    """float32 Gumbels give a token of probability 1e-4 against a sure mask a share far below it; a coin does not."""
    process = gm.CTMC(gm.paths.Mixture((4096,), 3))
    n, step = 200, 1e-4
    x = torch.full((n, 4096), 3)
    there = process.transition(torch.zeros(1, 1, 3).expand(n, 4096, 3), x, full(0.0, n), full(step, n), rng=seeded())
    share, trials = float((there < 3).double().mean()), n * 4096
    assert abs(share - step) < 4 * math.sqrt(step / trials)


BAD = [
    (lambda: gm.CTMC(gm.paths.Gaussian((2,))), "CTMC needs a path of tokens, got Gaussian.*pass e.g. `gm.paths.Mixture"),
    (lambda: gm.CTMC(gm.paths.Mixture((2,), 3), prediction="posteriors"), "unknown prediction `posteriors`; did you mean `posterior`"),
    (lambda: gm.CTMC(gm.paths.Mixture((2,), 3), rates="mixtures"), "unknown kind of rates `mixtures`; did you mean `mixture`"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_impossible_chains_are_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()
