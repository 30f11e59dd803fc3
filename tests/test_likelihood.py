"""Likelihoods against entropies by enumeration and closed forms: what is tight is tight, and what is loose is loose by the right amount."""

import math

import numpy as np
import pytest
import torch

import genmatch as gm
from genmatch.likelihood import Likelihood
from genmatch.paths.base import Path
from genmatch.paths.visits import smooth_step
from tests.toys import PREDICTIONS, SCHEDULES, SOURCES, TOKEN_SCHEDULES, GaussianMixture, L, V, full, line, seeded, token_data, token_law

F64 = torch.float64
token_schedules = pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=str)
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def nodes(count):
    """Gauss-Legendre on [0, 1], graded towards both ends, where integrands have logarithms."""
    points, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(count))
    u, slope = smooth_step((1 + points) / 2)
    return u, weights / 2 * slope


def chain(source, rates="mixture", schedule=gm.schedules.CondOT(), prediction="posterior"):  # noqa: B008 (immutable)
    return gm.CTMC(gm.paths.Mixture((L,), V, source=SOURCES[source], schedule=schedule), prediction=prediction, rates=rates)


def exact_bound(process, model, data, u, weights, cost=None, end=1.0):
    """The bound of each data point: the integral over the nodes, the mean over all states of the path. (N,)."""
    states = process.space.enumerate()
    n, s = len(data), len(states)
    pairs, x = data.repeat_interleave(s, 0), states.repeat(n, 1)
    times, slopes = process.path.warp(u, 0.0, end)
    total = torch.zeros(n, dtype=F64)
    for t, slope, weight in zip(times.tolist(), slopes.tolist(), weights.tolist(), strict=True):
        output, time = model(states, full(t, s)).repeat(n, *[1] * (states.dim())), full(t, n * s)
        rate = process.kl_rate(output, x, time, pairs) if cost is None else cost(output, x, time, pairs)
        # Where the path never goes a rate need not exist.
        chance = process.path.log_prob(x, time, pairs).exp()
        total += weight * slope * torch.where(chance > 0, chance * rate, 0).reshape(n, s).sum(-1)
    return total


def entropy(law):
    return float(-torch.special.xlogy(law, law).sum())


def test_the_warp_is_a_change_of_variable():
    u = torch.tensor([1e-6, 0.01, 0.3, 0.5, 0.77, 0.99, 1 - 1e-6], dtype=F64)
    paths = [gm.paths.Mixture((1,), 3, schedule=s) for s in TOKEN_SCHEDULES] + [line(s) for s in SCHEDULES]
    for path in paths:
        start, end = 0.0, path.t_end
        t, slope = path.warp(u, start, end)
        assert bool((t.diff() > 0).all()), path
        assert bool(((t > start) & (t < end)).all())
        h = 1e-5
        inner = u[1:-1]
        numeric = (path.warp(inner + h, start, end)[0] - path.warp(inner - h, start, end)[0]) / (2 * h)
        torch.testing.assert_close(slope[1:-1], numeric, rtol=1e-5, atol=0)
        ends = path.warp(torch.tensor([0.0, 1.0], dtype=F64), start, end)[0]
        torch.testing.assert_close(ends, torch.tensor([start, end], dtype=F64), atol=1e-7, rtol=0)


@token_schedules
@pytest.mark.parametrize("rates", ["mixture", "reversal"])
def test_the_mask_bound_of_the_exact_network_is_the_entropy(schedule, rates):
    process, law = chain("mask", rates, schedule), token_law("strong")
    bound = exact_bound(process, gm.oracle(process, token_data(), law), token_data(), *nodes(24))
    assert float(law @ bound) == pytest.approx(entropy(law), abs=1e-10)
    assert process.bound_is_tight


def test_the_cross_entropy_without_its_weight_is_no_likelihood():
    process, law = chain("mask"), token_law("strong")
    loss = exact_bound(process, gm.oracle(process, token_data(), law), token_data(), *nodes(24), lambda o, x, t, x1: process.divergence(x1, o, x, t))
    assert float(law @ loss) < 0.8 * entropy(law)


@pytest.mark.parametrize("prediction", ["posterior", "cavity"])
@pytest.mark.parametrize("source", ["uniform", "tokens", "positions"])
def test_the_bound_of_reversal_rates_is_the_entropy_off_the_mask_too(source, prediction):
    process, law = chain(source, "reversal", prediction=prediction), token_law("strong")
    bound = exact_bound(process, gm.oracle(process, token_data(), law), token_data(), *nodes(24))
    assert float(law @ bound) == pytest.approx(entropy(law), abs=1e-6)
    assert process.bound_is_tight


@pytest.mark.parametrize("source", ["uniform", "tokens"])
def test_the_bound_of_mixture_rates_is_loose_off_the_mask(source):
    process, law = chain(source), token_law("strong")
    bound = float(law @ exact_bound(process, gm.oracle(process, token_data(), law), token_data(), *nodes(24)))
    assert bound > entropy(law) + 0.5
    assert not process.bound_is_tight


def test_tokens_of_equal_rates_have_the_entropy_whatever_the_path():
    """One token: a noising chain and the metric path, which is loose."""
    data, law = torch.arange(V).unsqueeze(-1), torch.tensor([0.05, 0.6, 0.25, 0.1], dtype=F64)
    noisy = torch.rand(V, V, dtype=F64, generator=seeded())
    noisy = noisy - noisy.diag().diag()
    noising = gm.CTMC(gm.paths.Noising((1,), noisy - noisy.sum(0).diag()))
    metric = gm.CTMC(gm.paths.Metric((1,), vocab_size=V))
    tight, loose = (float(law @ exact_bound(process, gm.oracle(process, data, law), data, *nodes(24))) for process in (noising, metric))
    assert tight == pytest.approx(entropy(law), abs=1e-6)
    assert loose > entropy(law) + 0.02
    assert (noising.bound_is_tight, metric.bound_is_tight) == (True, False)


@pytest.mark.parametrize("source", list(SOURCES))
def test_the_closed_form_of_mixture_rates_is_the_divergence_of_their_generators(source):
    process = chain(source)
    data = token_data()
    t = full(0.4, len(data))
    x = process.path.sample(data, t, rng=seeded())
    output = torch.randn(len(data), L, V, dtype=F64, generator=seeded(1))
    direct = super(type(process._rates), process._rates).kl_rate(data, output, x, t)
    torch.testing.assert_close(process.kl_rate(output, x, t, data), direct, rtol=1e-12, atol=1e-13)


def test_rates_have_finite_gradients():
    for source, rates in (("mask", "mixture"), ("mask", "reversal"), ("uniform", "mixture"), ("uniform", "reversal")):
        process, data = chain(source, rates), token_data()
        t = full(0.4, len(data))
        output = torch.randn(len(data), L, V, dtype=F64, generator=seeded(1)).requires_grad_()
        process.kl_rate(output, process.path.sample(data, t, rng=seeded()), t, data).sum().backward()
        assert bool(output.grad.isfinite().all()), (source, rates)
        assert float(output.grad.abs().max()) > 0


CASES = [("mask", "mixture", 1.0), ("uniform", "mixture", 0.9), ("uniform", "reversal", 0.9), ("tokens", "reversal", 0.9)]


def last_step(process, model, data, end):
    """E[-log p(x1 | X_end)] of each data point, over all states, (N,)."""
    states = process.space.enumerate()
    n, s = len(data), len(states)
    pairs, x, t = data.repeat_interleave(s, 0), states.repeat(n, 1), full(end, n * s)
    nats = process.finish_nats(model(x, t), x, t, pairs)
    return (process.path.log_prob(x, t, pairs).exp() * nats).reshape(n, s).sum(-1)


@pytest.mark.parametrize(("source", "rates", "end"), CASES)
def test_the_estimate_agrees_with_the_integral(source, rates, end):
    """With a network that is wrong, and depends on the time: the number of masked tokens must come with the right times."""
    process, data = chain(source, rates, gm.schedules.Cosine(), "cavity"), token_data()
    table = torch.randn(L, V, dtype=F64, generator=seeded(3))

    def model(x, t):
        return (1 - t.reshape(-1, 1, 1)) * (table + torch.nn.functional.one_hot(x, V + 1)[..., :V]).double()

    exact = exact_bound(process, model, data, *nodes(24), end=end)
    exact += last_step(process, model, data, end) if end < 1 else 0
    bound = gm.elbo(process, model, data, draws=64, t_end=end, seed=0)
    z = (bound.nats - exact) / bound.standard_error
    assert float(z.abs().max()) < 4.5, z
    assert abs(bound.mean - float(exact.mean())) < 4 * bound.mean_error
    assert bound.nats.shape == bound.standard_error.shape == (64,)
    # A wrong weight would be seen.
    assert abs(bound.mean - 1.15 * float(exact.mean())) > 4 * bound.mean_error
    again = gm.elbo(process, model, data, draws=64, t_end=end, seed=0)
    assert torch.equal(bound.nats, again.nats)


def test_the_last_step_is_the_networks_own():
    """Ended early, the bound has the cross-entropy of the last step instead of the rest of the integral: more, for an exact network."""
    process, law, end = chain("uniform", "reversal"), token_law("strong"), 0.8
    model, data = gm.oracle(process, token_data(), law), token_data()
    total = exact_bound(process, model, data, *nodes(24), end=end) + last_step(process, model, data, end)
    assert entropy(law) + 0.01 < float(law @ total) < entropy(law) + 0.3
    late = exact_bound(process, model, data, *nodes(24), end=0.999) + last_step(process, model, data, 0.999)
    assert entropy(law) < float(law @ late) < entropy(law) + 1e-3


def test_the_number_of_masked_tokens_is_the_better_variable():
    process, law = chain("mask"), token_law("strong")
    model, data = gm.oracle(process, token_data(), law), token_data()[torch.multinomial(law, 20_000, replacement=True, generator=seeded())]
    u = torch.rand(len(data), dtype=F64, generator=seeded(1))

    def costs(visit):
        return visit.weight * process.kl_rate(model(visit.x, visit.t), visit.x, visit.t, data)

    counted = costs(process.path.visit(data, u, 0.0, 1.0, rng=seeded(2)))
    timed = costs(Path.visit(process.path, data, u, 0.0, 1.0, rng=seeded(2)))
    for cost in (counted, timed):
        assert abs(float(cost.mean()) - entropy(law)) < 4 * float(cost.std()) / math.sqrt(len(cost))
    assert float(counted.std()) < 0.8 * float(timed.std()), (counted.std(), timed.std())


def test_the_standard_error_is_that_of_repeated_estimates():
    process, data = chain("uniform", "reversal"), token_data()[:16]
    model = gm.oracle(process, token_data(), token_law("weak"))
    runs = [gm.elbo(process, model, data, draws=8, seed=seed) for seed in range(40)]
    spread = torch.stack([run.nats for run in runs]).std(0)
    claimed = torch.stack([run.standard_error for run in runs]).square().mean(0).sqrt()
    assert 0.85 < float((claimed / spread).mean()) < 1.3


def test_the_bound_of_a_product_is_that_of_all_its_tokens():
    parts = {name: gm.CTMC(gm.paths.Mixture((size,), V)) for name, size in (("a", 1), ("b", 2))}
    process, law, data = gm.Product(**parts), token_law("strong"), token_data()
    model = gm.oracle(process, {"a": data[:, :1], "b": data[:, 1:]}, law)
    rows = torch.multinomial(law, 500, replacement=True, generator=seeded())
    bound = gm.elbo(process, model, {"a": data[rows, :1], "b": data[rows, 1:]}, draws=32, seed=0)
    exact = exact_bound(chain("mask"), gm.oracle(chain("mask"), data, law), data, *nodes(24))[rows]
    assert abs(bound.mean - float(exact.mean())) < 4 * bound.mean_error
    assert bound.tight
    assert bound.size == 3


def test_the_bound_of_vectors_and_tokens_together():
    """Two points on the line, each with a token of its own: knowing one the other is free."""
    process = gm.Product(place=gm.Diffusion(line()), name=gm.CTMC(gm.paths.Mixture((1,), 2)))
    data = {"place": torch.tensor([[-1.0], [1.0]], dtype=F64), "name": torch.tensor([[0], [1]])}
    bound = gm.elbo(process, gm.oracle(process, data), data, draws=4000, seed=0)
    # At t = 0.999 the points have the noise of the decoder, and no doubt is left which they are.
    exact = math.log(2) + math.log(0.001 / 0.999) + 0.5 * (1 + math.log(2 * math.pi))
    assert abs(bound.mean - exact) < 4 * bound.mean_error
    assert bound.mean_error < 0.2


def gaussian_bound(process, mean, std, x1, u, weights):
    """The bound of the exact network for data N(mean, std^2), for each of `x1`, by Gauss-Hermite over the noise."""
    path = process.path
    points, chances = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(40))
    times, slopes = path.warp(u, process.t_min, path.t_end)
    total = path.source_nats(x1, process.t_min) + path.data_nats(x1, full(path.t_end, len(x1)))
    for t, slope, weight in zip(times, slopes, weights, strict=True):
        alpha, sigma = path.schedule.alpha(t), path.schedule.sigma(t)
        x = (alpha * x1.unsqueeze(1) + sigma * points.reshape(1, -1, 1)).flatten(0, 1)
        data = mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
        rate = process.kl_rate(data, x, t.expand(len(x)), x1.repeat_interleave(len(points), 0)).reshape(len(x1), -1)
        total = total + weight * slope * (rate @ chances) / chances.sum()
    return total


@schedules
def test_the_diffusion_bound_of_gaussian_data_is_the_entropy_of_data_with_the_decoders_noise(schedule):
    process, mean, std = gm.Diffusion(line(schedule)), 0.3, 0.5
    points, chances = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(20))
    bound = gaussian_bound(process, mean, std, (mean + std * points).unsqueeze(-1), *nodes(24))
    alpha, sigma = (c(torch.tensor([0.0, process.path.t_end], dtype=F64)) for c in (schedule.alpha, schedule.sigma))
    exact = 0.5 * math.log(2 * math.pi * math.e * float(std**2 + (sigma[1] / alpha[1]) ** 2))
    # Where the path begins with a trace of the data the source is not its law, and the bound pays for that.
    s2, v = process.path.schedule.source_std**2, float(alpha[0] ** 2 * std**2 + sigma[0] ** 2)
    exact += 0.5 * ((v + float(alpha[0]) ** 2 * mean**2) / s2 - 1 - math.log(v / s2))
    assert float(bound @ chances / chances.sum()) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_diffusion_rate_is_the_divergence_of_generators_with_memoryless_noise(prediction):
    schedule = gm.schedules.Cosine()

    def memoryless(t):
        return (2 * schedule.sigma(t) * schedule.delta(t) / schedule.alpha(t)).sqrt()

    process = gm.Diffusion(line(schedule), noise=memoryless, prediction=prediction)
    rng = seeded()
    x1, t = torch.randn(50, 1, dtype=F64, generator=rng), 0.1 + 0.8 * torch.rand(50, dtype=F64, generator=rng)
    x, output = process.path.sample(x1, t, rng=rng), torch.randn(50, 1, dtype=F64, generator=rng)
    direct = gm.conditional_generator(process, x, t, x1).kl(process.generator(output, x, t), x)
    torch.testing.assert_close(process.kl_rate(output, x, t, x1), direct, rtol=1e-9, atol=0)
    other = gm.Diffusion(line(schedule), noise=lambda t: 1.5 * memoryless(t), prediction=prediction)
    looser = gm.conditional_generator(other, x, t, x1).kl(other.generator(output, x, t), x)
    assert bool((looser > direct).all())


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_the_estimated_diffusion_bound_of_a_mixture_is_its_entropy(prediction):
    """The entropy by quadrature; the bound of samples differs from it by how far their own mean of -log p does."""
    law = GaussianMixture(gm.schedules.CondOT())
    process = gm.Diffusion(line(), prediction=prediction)
    levels = (torch.arange(2000, dtype=F64) + 0.5) / 2000
    x1 = law.quantiles(levels, 1.0).unsqueeze(-1)
    bound = gm.elbo(process, law.model(prediction), x1, draws=16, seed=0)
    grid = torch.linspace(-3, 3, 6001, dtype=F64)
    density = law.log_prob(grid, full(1.0, len(grid))).exp()
    exact = -float(torch.trapezoid(torch.special.xlogy(density, density), grid))
    assert abs(bound.mean - exact) < 4 * bound.mean_error + 1e-3
    assert bound.mean_error < 0.06
    assert "memoryless" in bound.process


@schedules
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_the_log_likelihood_of_a_mixture_on_the_line(schedule, prediction):
    law, end = GaussianMixture(schedule), 0.999
    process = gm.Flow(line(schedule), prediction=prediction)
    if process.t_min > 0:
        pytest.skip("this statistic says nothing at t = 0")
    x1 = torch.linspace(-1.8, 1.5, 9, dtype=F64).unsqueeze(-1)
    found = gm.log_likelihood(process, law.model(prediction), x1, t_end=end, rtol=1e-10, atol=1e-10)
    exact = law.log_prob(x1, full(end, len(x1)))
    # VP and VE start from a source that is not quite the law of the path.
    tolerance = 1e-7 if not process.path.caveats else 0.05
    assert float((found.log_prob - exact).abs().max()) < tolerance
    assert not found.bound
    assert float(found.standard_error.abs().max()) == 0


def plane():
    """A flow on the plane whose velocity mixes both coordinates, and log p."""
    law = gm.data.GaussianMixture(torch.tensor([[-1.0, 0.5], [1.0, -0.3]]), torch.tensor([0.4, 0.5]))
    process = gm.Flow(gm.paths.Gaussian((2,), dtype=F64), prediction="data")
    x1 = law.sample(6, rng=seeded()).double()
    return law, process, x1, lambda x, t: law.posterior_mean(x, float(t[0]), 1 - float(t[0]))


def test_random_probes_agree_with_the_exact_divergence_and_their_error_falls_as_the_root():
    law, process, x1, model = plane()
    exact = gm.log_likelihood(process, model, x1, t_end=0.9, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(exact.log_prob, torch.logsumexp(law._log_joint(x1, 0.9, 0.1), -1), atol=1e-6, rtol=0)
    few, many = (gm.log_likelihood(process, model, x1, t_end=0.9, probes=n, rtol=1e-3, atol=1e-4, seed=1) for n in (20, 180))
    for found in (few, many):
        assert float(((found.nats - exact.nats) / found.standard_error).abs().max()) < 4
    ratio = (few.standard_error / many.standard_error).log().mean().exp()
    assert 2.3 < float(ratio) < 3.8, ratio
    again = gm.log_likelihood(process, model, x1, t_end=0.9, probes=20, rtol=1e-3, atol=1e-4, seed=1)
    assert torch.equal(few.nats, again.nats)


def test_a_velocity_that_ignores_the_state_has_no_divergence():
    process = gm.Flow(gm.paths.Gaussian((2,), dtype=F64))
    found = gm.log_likelihood(process, lambda x, t: torch.ones_like(x), torch.ones(3, 2, dtype=F64), t_end=0.5)
    torch.testing.assert_close(found.nats, full(0.25 + math.log(2 * math.pi), 3))


def test_units():
    found = Likelihood(torch.tensor([2.0, 4.0]), torch.tensor([0.3, 0.4]), size=3, bound=True, tight=False, process="that process")
    assert found.mean == 3
    assert found.mean_error == pytest.approx(0.25)
    assert found.bits_per_coordinate == pytest.approx(1 / math.log(2))
    assert found.bits_error == pytest.approx(0.25 / 3 / math.log(2))
    assert found.bits_per_level(127.5) == pytest.approx(1 / math.log(2) + math.log2(127.5))
    assert found.perplexity == pytest.approx(math.e)
    assert torch.equal(found.log_prob, -found.nats)
    assert "loose" in str(found)
    assert "that process" in str(found)


FLOW, DIFFUSION, MASK = gm.Flow(gm.paths.Gaussian((2,))), gm.Diffusion(gm.paths.Gaussian((2,))), gm.CTMC(gm.paths.Mixture((2,), 3))
POINTS, TOKENS = torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.int64)


def ideal(process, data):
    return gm.oracle(process, data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gm.elbo(FLOW, ideal(FLOW, POINTS), POINTS), "moves without noise"),
        (lambda: gm.elbo(gm.Product(a=FLOW, b=MASK), None, {"a": POINTS, "b": TOKENS}), "moves without noise"),
        (lambda: gm.elbo(gm.Product(a=FLOW, b=DIFFUSION), None, {"a": POINTS, "b": POINTS}), "moves without noise"),
        (lambda: gm.log_likelihood(DIFFUSION, ideal(DIFFUSION, POINTS), POINTS), "has noise"),
        (lambda: gm.log_likelihood(MASK, ideal(MASK, TOKENS), TOKENS), "jumps"),
        (lambda: gm.log_likelihood(gm.Product(a=FLOW, b=MASK), None, None), "`process.bounded"),
        (lambda: gm.elbo(MASK, ideal(MASK, TOKENS), TOKENS + 3), "tokens 0 to 2"),
        (lambda: gm.elbo(MASK, ideal(MASK, TOKENS), TOKENS, draws=1), "at least 2"),
        (lambda: gm.elbo(MASK, ideal(MASK, TOKENS), TOKENS, draws=2.5), "positive integer"),
        (lambda: gm.elbo(MASK, ideal(MASK, TOKENS), TOKENS, t_end="end"), "`t_end` must be a number in "),
        (lambda: gm.elbo(DIFFUSION, ideal(DIFFUSION, POINTS), POINTS, t_end=1.0), "pass `t_end` below 1"),
        (lambda: gm.elbo(DIFFUSION, ideal(DIFFUSION, POINTS), POINTS, t_end=-1), "`t_end` must be a number in "),
        (lambda: gm.elbo(MASK, lambda x, t: torch.full((*x.shape, 3), torch.nan), TOKENS), "returns NaN"),
        (lambda: gm.elbo(MASK, lambda x, t: torch.zeros(len(x), 3), TOKENS), "output must have shape"),
        (lambda: gm.elbo(MASK, ideal(MASK, TOKENS), TOKENS, condition=torch.zeros(3)), "one entry for each of 4"),
        (lambda: gm.elbo(gm.CTMC(MASK.path, prediction="score"), lambda x, t: torch.zeros(*x.shape, 3), TOKENS), "prediction='posterior'"),
        (lambda: gm.log_likelihood(FLOW, ideal(FLOW, POINTS), POINTS, t_end=1.0), "must be below 1"),
        (lambda: gm.log_likelihood(FLOW, ideal(FLOW, POINTS), POINTS, probes=1), "at least 2"),
    ],
)
def test_what_has_no_likelihood_is_refused_with_the_reason(call, message):
    with pytest.raises(gm.GenmatchError, match=message):
        call()


def test_a_network_that_excludes_the_data_has_an_infinite_bound():
    bound = gm.elbo(MASK, lambda x, t: torch.tensor([-torch.inf, 0.0, 0.0]).expand(*x.shape, 3), TOKENS, seed=0)
    assert bool(bound.nats.isinf().all())
    assert bool(bound.standard_error.isinf().all())


def test_a_score_of_uniform_noise_starts_late_and_pays_for_it():
    process = gm.CTMC(gm.paths.Mixture((2,), 3, source="uniform"), prediction="score", rates="reversal")
    data = torch.tensor([[0, 1], [2, 2]])
    bound = gm.elbo(process, gm.oracle(process, data), data, draws=400, seed=0)
    assert abs(bound.mean - math.log(2)) < 4 * bound.mean_error + 1e-2
    kappa = process.t_min
    own, rest = (1 - kappa) / 3 + kappa, (1 - kappa) / 3
    direct = 2 * (own * math.log(3 * own) + 2 * rest * math.log(3 * rest))
    torch.testing.assert_close(process.path.source_nats(data, kappa), full(direct, 2), rtol=1e-8, atol=0)
