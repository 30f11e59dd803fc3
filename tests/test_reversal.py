"""Reversal rates on the mixture path: the noising chain run back, for every source."""

import itertools

import pytest
import torch

import genmatch as gm
from tests.test_ctmc import coefficients, marginal_matrix, schedules, sources
from tests.toys import (
    SOURCES,
    TOKEN_SCHEDULES,
    L,
    V,
    chi_square,
    full,
    kron,
    seeded,
    token_data,
    token_law,
    token_marginal,
    token_marginal_rate,
    total_variation,
)

F64 = torch.float64


def reversal(source, schedule=gm.schedules.CondOT(), positions=L, rates="reversal"):  # noqa: B008 (immutable)
    law = SOURCES[source][:positions] if source == "positions" else SOURCES[source]
    return gm.CTMC(gm.paths.Mixture((positions,), V, source=law, schedule=schedule), rates=rates)


def rows(path):
    """p_0 of each position, (positions, S)."""
    law = path.source_probs
    return law.expand(path.space.size, -1)


def conditional(law, kappa, v, z):
    """p_t(v | z) of one token, written out."""
    return (1 - kappa) * law[v] + kappa * float(v == z)


def averaged_step(pi, x, law, kappa_t, kappa_s):
    """sum_z pi(z) q(x_s | x_t, z) of one token by Bayes' rule, (S,)."""
    out = torch.zeros_like(law)
    for z, v in itertools.product(range(len(pi)), range(len(law))):
        below = float(conditional(law, kappa_t, x, z))
        if below > 0 and pi[z] > 0:
            back = (1 - kappa_t / kappa_s) * law[x] + kappa_t / kappa_s * float(v == x)
            out[v] += pi[z] * back * conditional(law, kappa_s, v, z) / below
    return out


@sources
@schedules
@pytest.mark.parametrize("time", [0.05, 0.3, 0.6, 0.95])
def test_reversal_rates_solve_the_forward_equation(source, schedule, time):
    law, (kappa, d_kappa) = token_law("strong"), coefficients(schedule, time)
    p, slope = token_marginal(source, kappa, law), token_marginal_rate(source, kappa, d_kappa, law)
    q, mixture = (marginal_matrix(reversal(source, schedule, rates=rates), law, time) for rates in ("reversal", "mixture"))
    assert float((q @ p - slope).abs().max()) < 1e-9
    assert bool((q - q.diag().diag() >= 0).all())
    gap = float(((q - mixture) * (p > 0)).abs().max())
    assert gap < 1e-12 if source == "mask" else gap > 1e-3
    if time == 0.05 and source != "mask":
        assert gap > 1, "two chains follow one path"


@sources
def test_the_rates_are_the_sum_over_the_data_written_out(source):
    """sum_z pi(z) b p_0(x) p_t(v | z) / p_t(x | z), for any posterior."""
    process, time = reversal(source), 0.35
    x = torch.tensor([[0, 2, V if source == "mask" else 3]])
    output = torch.randn(1, L, V, dtype=F64, generator=seeded(2))
    pi = output.softmax(-1)
    found = process.generator(output, x, full(time, 1)).rates(x, process.space.num_states)[0]
    for j, v in itertools.product(range(L), range(process.space.num_states)):
        law, here = rows(process.path)[j], int(x[0, j])
        if v == here or law[here] == 0:
            continue
        direct = sum(pi[0, j, z] / time * law[here] * conditional(law, time, v, z) / conditional(law, time, here, z) for z in range(V))
        assert float(found[j, v]) == pytest.approx(float(direct), rel=1e-13)


@sources
@schedules
@pytest.mark.parametrize(("t", "s"), [(0.0, 0.3), (0.3, 0.6), (0.6, 1.0), (0.0, 1.0)])
def test_one_token_steps_exactly_and_a_plug_in_does_not(source, schedule, t, s):
    law = torch.tensor([0.05, 0.6, 0.25, 0.1], dtype=F64)
    process, data = reversal(source, schedule, positions=1), torch.arange(V).unsqueeze(-1)
    states, (kappa_t, kappa_s) = process.space.enumerate(), (coefficients(schedule, time)[0] for time in (t, s))
    pi = process.mean(gm.oracle(process, data, law)(states, full(t, len(states))))
    source_law = rows(process.path)[0]
    step = torch.stack([averaged_step(pi[i, 0], int(states[i]), source_law, kappa_t, kappa_s) for i in range(len(states))], -1)
    there = step @ token_marginal(source, kappa_t, law, positions=1)
    exact = token_marginal(source, kappa_s, law, positions=1)
    assert float((there - exact).abs().max()) < 1e-14
    if source == "uniform" and schedule == gm.schedules.CondOT() and (t, s) == (0.3, 0.6):
        plugged = torch.stack([plug_in(pi[i, 0], int(states[i]), source_law, kappa_t, kappa_s) for i in range(len(states))], -1)
        assert total_variation(plugged @ token_marginal(source, kappa_t, law, positions=1), exact) > 0.005


def plug_in(pi, x, law, kappa_t, kappa_s):
    """The posterior put in the place of z, as if it were the cavity: q(x_t | x_s) p_s(x_s | pi) / p_t(x_t | pi)."""

    def given(kappa, v):
        return (1 - kappa) * law[v] + kappa * pi[v]

    back = torch.tensor([(1 - kappa_t / kappa_s) * law[x] + kappa_t / kappa_s * float(v == x) for v in range(len(law))], dtype=F64)
    return back * torch.stack([given(kappa_s, v) for v in range(len(law))]) / given(kappa_t, x)


@sources
@pytest.mark.parametrize(("t", "s"), [(0.0, 0.4), (0.2, 0.6), (0.2, 1.0)])
def test_transition_draws_the_averaged_bayes_step(source, t, s):
    process, n = reversal(source), 30_000
    x = torch.tensor([[0, 2, V if source == "mask" else 3]])
    x = torch.full_like(x, V) if source == "mask" and t == 0 else x
    output = torch.randn(1, L, V, dtype=F64, generator=seeded(4))
    tokens = []
    for j in range(L):
        law, here = rows(process.path)[j], int(x[0, j])
        keep = torch.nn.functional.one_hot(torch.tensor(here), process.space.num_states).double()
        tokens.append(averaged_step(output.softmax(-1)[0, j], here, law, t, s) if law[here] > 0 else keep)
    column = kron(tokens)
    assert float(column.sum()) == pytest.approx(1, abs=1e-12)
    there = process.transition(output.expand(n, L, V), x.expand(n, L), full(t, n), full(s, n), rng=seeded(1))
    assert chi_square(process.space.index(there).bincount(minlength=process.space.cardinality), column) > 1e-4


@pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=str)
@pytest.mark.parametrize("solver", ["exact", "euler", "algorithm7", "tau-leaping"])
def test_a_simulation_starts_at_zero_where_the_rates_are_infinite(solver, schedule):
    process, n = reversal("tokens", schedule, positions=1), 20_000
    law, data = torch.tensor([0.05, 0.6, 0.25, 0.1], dtype=F64), torch.arange(V).unsqueeze(-1)
    x = process.path.source(n, rng=seeded(0))
    jump = process.generator(torch.zeros(n, 1, V), x, full(0.0, n))
    assert bool(jump.intensity.isinf().all())
    run = gm.simulate(process, gm.oracle(process, data, law), x, torch.linspace(0, 1, 9), solver=solver, rng=seeded(1))
    exact = [token_marginal("tokens", coefficients(schedule, float(t))[0], law, positions=1) for t in run.times]
    gaps = [total_variation(x.flatten().bincount(minlength=V) / n, p) for x, p in zip(run.states, exact, strict=True)]
    assert gaps[-1] < (0.012 if solver == "exact" else 0.2), gaps
    assert max(gaps) < (0.012 if solver == "exact" else 0.25), gaps


def kernel(process, law, t, s):
    """One exact step of all three tokens, columns the present states."""
    states = process.space.enumerate()
    pi = process.mean(gm.oracle(process, token_data(), law)(states, full(t, len(states))))
    source = rows(process.path)
    return torch.stack([kron([averaged_step(pi[i, j], int(states[i, j]), source[j], t, s) for j in range(L)]) for i in range(len(states))], -1)


@pytest.mark.slow
def test_the_exact_step_is_of_order_one():
    process, law = reversal("uniform"), token_law("strong")

    def error(steps):
        p = token_marginal("uniform", 0.0, law)
        grid = torch.linspace(0, 1, steps + 1, dtype=F64).tolist()
        for t, s in itertools.pairwise(grid):
            p = kernel(process, law, t, s) @ p
        return total_variation(p, law)

    coarse, fine = error(8), error(16)
    assert 1.7 < coarse / fine < 2.4, (coarse, fine)
