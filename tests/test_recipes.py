"""Fewer steps: pairs that train unchanged, straightness in closed form, exact laws before and after, and what is refused."""

import math

import few_step_laws
import pytest
import torch
from few_step_laws import Paired, code_laws, coded, conditional_correlation, generated, variation

import genmatch as gm
from genmatch.paths import Gaussian, Geodesic, Mixture
from genmatch.paths.couplings import Pairs
from genmatch.recipes.distillation import _cut
from tests.toys import TinyVector, V, chain, chi_square, full, grid, line, seeded, token_law

F64 = torch.float64
TWO = (V, V)
START = torch.full((V**2,), 1 / V**2, dtype=F64)


def two_tokens():
    """A law of two tokens that depend strongly, and its points."""
    return token_law("strong").reshape(V**2, V).sum(-1), torch.cartesian_prod(torch.arange(V), torch.arange(V))


# Pairs


def test_noise_is_found_beside_its_data_in_any_order():
    x0, x1 = torch.randn(2, 50, 3, 2, generator=seeded())
    path = Gaussian((3, 2), coupling=Pairs(x0, x1))
    order = torch.randperm(50, generator=seeded(1))
    assert path.start(x1[order]).equal(x0[order])
    assert path.start(x1[order[:7]]).equal(x0[order[:7]])


def test_equal_data_points_share_their_noises():
    x1, x0 = torch.tensor([[0], [0], [0], [1]]), torch.tensor([[3], [4], [4], [5]])
    pairs = Pairs(x0, x1)
    drawn = pairs.pair(x0, torch.zeros(3000, 1).long(), None, {}, rng=seeded()).flatten()
    assert chi_square(drawn.bincount(minlength=6), torch.tensor([0, 0, 0, 1, 2, 0]) / 3) > 1e-3
    label = torch.tensor([0, 1, 1, 0])
    told = Pairs(x0, x1, {"label": label})
    found = told.pair(x0, x1, None, {"label": label}, rng=seeded())
    assert found.flatten().tolist() == [3, 4, 4, 5]


def test_pairs_refuse_what_is_in_none():
    x0, x1 = torch.randn(2, 4, 2, generator=seeded())
    pairs = Pairs(x0, x1)
    for change, reason in (
        (lambda: pairs.pair(x0, x1 + 1e-6, None, {}), "4 of 4 data points are in none of the 4 pairs"),
        (lambda: pairs.pair(x0, x1.double(), None, {}), "pairs are of torch.float32"),
        (lambda: pairs.pair(x0, x1, None, {"label": torch.zeros(4)}), r"under the conditions \[\]"),
        (lambda: Pairs(x0, x1[:2]), "of one shape and type"),
        (lambda: Pairs(x0[:0], x1[:0]), "at least one pair"),
        (lambda: Pairs(x0, [1]), "got list"),
        (lambda: gm.Diffusion(Gaussian((2,), coupling=pairs)), "needs noise that is independent"),
        (lambda: gm.Flow(Gaussian((2,), coupling=pairs), "score"), "needs noise that is independent"),
        (lambda: gm.oracle(gm.Flow(Gaussian((2,), coupling=pairs)), x1), "needs noise that is independent"),
    ):
        with pytest.raises(gm.GenmatchError, match=reason):
            change()


# Reflow


def normal(mean, std):
    """The exact velocity of straight lines to N(mean, std^2)."""

    def model(x, t):
        t = t.unsqueeze(-1)
        spread = (t * std) ** 2 + (1 - t) ** 2
        return mean + (t * std**2 - (1 - t)) / spread * (x - t * mean)

    return model


def test_pairs_are_the_ends_of_trajectories_and_the_straight_flow_is_exact_in_one_step():
    flow, mean, std = gm.Flow(line()), 1.5, 0.3
    straight, x1 = gm.recipes.reflow(flow, normal(mean, std), 40, solver="rk4", steps=40, seed=0, batch_size=16)
    x0 = straight.path.start(x1)
    torch.testing.assert_close(x1, mean + std * x0, atol=1e-6, rtol=0)
    t = full(0.3, 40)
    x = straight.path.sample(x1, t, x0=x0)
    torch.testing.assert_close(straight.target(x, t, x1, x0=x0), x1 - x0)

    def learned(x, t):
        t = t.unsqueeze(-1)
        return mean + (std - 1) * (x - t * mean) / (1 - t + t * std)

    torch.testing.assert_close(learned(x, t), x1 - x0, atol=1e-6, rtol=0)
    for model, wanted in ((learned, True), (normal(mean, std), False)):
        run = gm.simulate(straight, model, x0, torch.tensor([0.0, 1.0]), solver="euler")
        assert torch.allclose(run.states[-1], x1, atol=1e-5) == wanted


def test_straightness_in_closed_form():
    """X_t = t m + s_t X_0 with s_t^2 = (t s)^2 + (1 - t)^2, so S = int (s - 1 - ds_t/dt)^2 dt over (s - 1)^2 + m^2, for X_0^2 of mean 1."""
    mean, std, n = 0.7, 0.2, 1000
    t = (torch.arange(100_000, dtype=F64) + 0.5) / 100_000
    slope = (t * std**2 - (1 - t)) / ((t * std) ** 2 + (1 - t) ** 2).sqrt()
    wanted = float(((std - 1 - slope) ** 2).mean()) / ((std - 1) ** 2 + mean**2)
    x0 = torch.tensor([[-1.0], [1.0]], dtype=F64)
    run = gm.simulate(gm.Flow(line()), normal(mean, std), x0, grid(0, 1, n), solver="rk4")
    assert gm.recipes.straightness(run) == pytest.approx(wanted, rel=1e-3)
    assert wanted > 0.05


def test_the_loop_learns_from_pairs_what_one_step_needs():
    """On the line, pairs of a flow are in order and do not cross: the straight flow is exact in one step, which the first is not."""
    flow = gm.Flow(Gaussian((1,)))
    data = torch.tensor([[-1.0], [1.0]])
    first = gm.oracle(flow, data)
    straight, pairs = gm.recipes.reflow(flow, first, 2000, seed=0)
    torch.manual_seed(0)
    student = gm.train(straight, TinyVector(), pairs, steps=400, batch_size=128, lr=1e-2, ema=0.97, seed=0, validation=pairs[:100]).model
    away = [(gm.sample(flow, model, 500, steps=1, seed=1).abs() - 1).abs().mean() for model in (first, student)]
    assert float(away[0]) > 0.9
    assert float(away[1]) < 0.25


def test_conditions_go_along():
    label = torch.arange(6) % 2

    def model(x, t, label):
        return (4.0 * label - 2).unsqueeze(-1) - x * 0

    straight, (x1, told) = gm.recipes.reflow(gm.Flow(Gaussian((1,))), model, 6, condition={"label": label}, seed=0)
    assert told["label"].equal(label)
    torch.testing.assert_close(x1 - straight.path.start(x1, told), (4.0 * label - 2).unsqueeze(-1))


def test_a_flow_on_a_manifold():
    space = gm.spaces.Torus(1)
    straight, x1 = gm.recipes.reflow(gm.Flow(Geodesic(space)), lambda x, t: torch.ones_like(x), 8, steps=4, seed=0)
    torch.testing.assert_close(space.exp(straight.path.start(x1), torch.ones(8, 1)), x1, atol=1e-5, rtol=0)


def test_rounds_on_a_chain_lower_the_conditional_correlation_and_the_error_of_few_steps():
    law, _ = two_tokens()
    process = chain("uniform", positions=2)
    pairs, correlations, errors = START.unsqueeze(-1) * law, [], []
    for _ in range(3):
        model = Paired(process, pairs)
        correlations.append(conditional_correlation(pairs, TWO))
        errors.append([variation(generated(process, model, grid(0, 1, k).tolist()) @ START, law) for k in (1, 2, 4)])
        pairs = (generated(process, model, grid(0, 1, 128).tolist()) * START).T
        assert variation(pairs.sum(0), law) < 0.02, "the data's law stays"
    assert correlations[0] > 1.05 * correlations[1] > 1.1 * correlations[2]
    for worse, better in ((errors[0], errors[1]), (errors[1], errors[2])):
        assert all(b < 0.97 * a for a, b in zip(worse, better, strict=True))


def test_a_paired_chain_has_the_law_of_its_pairs_at_every_time():
    """The error of the law falls with the step: mixture rates are right given both ends."""
    law, _ = two_tokens()
    process = chain("uniform", positions=2)
    pairs = (generated(process, Paired(process, START.unsqueeze(-1) * law), grid(0, 1, 64).tolist()) * START).T
    data = pairs.sum(0)
    model = Paired(process, pairs)
    errors = [variation(generated(process, model, grid(0, 1, k).tolist()) @ START, data) for k in (64, 128)]
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)
    independent = Paired(process, START.unsqueeze(-1) * data)
    assert float((model(process.space.enumerate(), full(0.4, V**2)) - independent(process.space.enumerate(), full(0.4, V**2))).abs().max()) > 0.1


def test_a_chain_that_is_paired_samples_and_trains():
    law, points = two_tokens()
    process = chain("uniform", positions=2)
    paired, x1 = gm.recipes.reflow(process, gm.oracle(process, points, law), 64, steps=8, seed=0)
    assert "coupling=Pairs(64)" in repr(paired)
    network = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1)
    assert math.isfinite(gm.train(paired, network, x1, steps=3, seed=0).losses[-1])
    assert gm.sample(paired, network, 5, steps=2, seed=0).shape == (5, 2)


def test_reflow_says_what_cannot_be_paired():
    vector, tokens = torch.nn.Identity(), chain("uniform", positions=2)
    mixture = Mixture((2,), V, source="uniform")
    for process, reason in (
        (gm.Diffusion(Gaussian((1,))), "noise that is independent of them"),
        (gm.Product(a=gm.Flow(Gaussian((1,)))), "noise that is independent of them"),
        (chain("mask"), "all noise of .* is the same"),
        (gm.CTMC(mixture, rates="reversal"), "reversal rates renew noise"),
        (gm.CTMC(mixture, prediction="cavity"), "a prediction of the cavity needs noise"),
        (gm.Flow(Gaussian((1,)), "score"), "a prediction of the score needs noise"),
    ):
        with pytest.raises(gm.GenmatchError, match=reason):
            gm.recipes.reflow(process, vector, 4)
    coupled = tokens.coupled(Pairs(torch.zeros(1, 2).long(), torch.zeros(1, 2).long()))
    assert not coupled.supports("renoise")
    assert not coupled.supports("cavity")
    x = torch.zeros(1, 2).long()
    for ask, reason in (
        (lambda: gm.elbo(coupled, lambda x, t: torch.zeros(*x.shape, V), x), "pairs noise and data"),
        (lambda: coupled.cavity(torch.zeros(1, 2, V), x, full(0.5, 1)), "the cavity needs noise"),
        (lambda: coupled.renoise(x, full(0.5, 1), full(0.2, 1)), "renewing noise needs noise"),
    ):
        with pytest.raises(gm.GenmatchError, match=reason):
            ask()


def test_straightness_says_what_it_needs():
    tokens = chain("mask", positions=2)
    law, points = two_tokens()
    run = gm.simulate(tokens, gm.oracle(tokens, points, law), tokens.path.source(2), grid(0, 1, 2))
    with pytest.raises(gm.GenmatchError, match="trajectories of vectors"):
        gm.recipes.straightness(run)
    run = gm.simulate(gm.Flow(line()), normal(0, 1), torch.zeros(1, 1, dtype=F64), grid(0, 0.5, 2))
    with pytest.raises(gm.GenmatchError, match="from t = 0 to t = 1"):
        gm.recipes.straightness(run)


# Distillation


@pytest.mark.parametrize("codes", [1, 5, 40])
def test_codes_have_the_laws_of_their_intervals(codes):
    law, points = two_tokens()
    process, n = chain("mask", positions=2), 20_000
    x1, told = gm.recipes.distill(process, gm.oracle(process, points, law), n, codes, seed=0, batch_size=7000)
    assert chi_square(told["code"].bincount(minlength=codes), full(1 / codes, codes)) > 1e-3
    joint = code_laws(law, codes) / codes
    assert variation(joint.sum(0), law) < 1e-12
    counts = (told["code"] * V**2 + x1[:, 0] * V + x1[:, 1]).bincount(minlength=codes * V**2)
    assert chi_square(counts, joint.flatten()) > 1e-3
    if codes > 1:
        assert chi_square(counts, (law / codes).repeat(codes)) < 1e-6


def test_an_interval_is_cut_as_its_number_says():
    probs = torch.tensor([[0.5, 0.0, 0.25, 0.25]], dtype=F64).expand(3, -1)
    low, high = torch.tensor([0.4, 0.6, 0.0], dtype=F64), torch.tensor([0.6, 0.7, 1.0], dtype=F64)
    token, low, high = _cut(probs, low, high, torch.tensor([0.2, 0.5, 1 - 2**-53], dtype=F64))
    assert token.tolist() == [0, 2, 3]
    torch.testing.assert_close(low, torch.tensor([0.8, 0.4, 0.0], dtype=F64))
    torch.testing.assert_close(high, torch.tensor([1.0, 0.8, 1.0], dtype=F64))


def test_more_codes_need_fewer_steps():
    law, points = two_tokens()
    process = chain("mask", positions=2)
    errors = {codes: [variation(coded(process, points, code_laws(law, codes), steps), law) for steps in (1, 2)] for codes in (1, 8, 64)}
    teacher = few_step_laws.Chain(process, gm.oracle(process, points, law)).law("exact", [0.0, 1.0])[-1]
    assert errors[1][0] == pytest.approx(variation(teacher[process.space.index(points)], law), abs=1e-12)
    for i in range(2):
        assert errors[8][i] < 0.6 * errors[1][i]
        assert errors[64][i] < 0.2 * errors[1][i]


def test_what_an_exact_teacher_says_later_says_no_more_on_average():
    """E[p(x1_j given X_s) given X_t = x] = p(x1_j given x): without a code there is nothing to distill."""
    law, points = two_tokens()
    process = chain("mask", positions=2)
    exact = few_step_laws.Chain(process, gm.oracle(process, points, law))
    masked = process.space.index(process.path.source(1)[:1])
    # The law that a teacher of many small steps tends to.
    kernel = exact.law("exact", grid(0, 0.6, 600).tolist())[-1]
    late, early = exact.posterior(0.6)[:, 0], exact.posterior(0.3)[masked, 0].squeeze(0)
    assert float(((kernel.unsqueeze(-1) * late).sum(0) - early).abs().max()) < 1e-3
    assert float((late - early).abs().max()) > 0.2


def test_distill_says_what_it_needs():
    law, points = two_tokens()
    mask = chain("mask", positions=2)
    model = gm.oracle(mask, points, law)
    for ask, reason in (
        (lambda: gm.recipes.distill(chain("uniform"), model, 4, 2), "has no `masked`"),
        (lambda: gm.recipes.distill(gm.Flow(line()), model, 4, 2), "has no `posterior`"),
        (lambda: gm.recipes.distill(mask, model, 4, 0), "`codes`"),
        (lambda: gm.recipes.distill(mask, model, 2, 2, condition={"code": torch.zeros(2)}), "given already"),
    ):
        with pytest.raises(gm.GenmatchError, match=reason):
            ask()
