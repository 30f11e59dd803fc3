import math

import pytest
import torch

import genmatch as gm
from tests.toys import SCHEDULES, SOURCES, TOKEN_SCHEDULES, L, V, chi_square, full, line, name_of, noising, seeded, token_data

F64 = torch.float64
sources = pytest.mark.parametrize("source", SOURCES)


def mixture(source, schedule=TOKEN_SCHEDULES[0]):
    return gm.paths.Mixture((L,), V, source=SOURCES[source], schedule=schedule)


@sources
@pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=name_of)
@pytest.mark.parametrize("time", [0.0, 0.3, 0.95, 1.0])
def test_mixture_density_is_the_written_out_law(source, schedule, time):
    path = mixture(source, schedule)
    states, x1 = path.space.enumerate(), torch.tensor([[2, 0, 3]])
    t = full(time, len(states))
    kernels = noising(source, schedule.kappa(t[:1]).item())
    law = torch.stack([kernels[j][states[:, j], int(x1[0, j])] for j in range(L)]).prod(0)
    density = path.log_prob(states, t, x1.expand(len(states), L)).exp()
    assert torch.allclose(density, law, rtol=1e-12, atol=1e-16)
    assert float(density.sum()) == pytest.approx(1, abs=1e-13)


@sources
@pytest.mark.parametrize("time", [0.0, 0.4, 1.0])
def test_mixture_samples_follow_the_density(source, time):
    path, n = mixture(source), 40_000
    x1, t = torch.tensor([[2, 0, 3]]), full(time, n)
    states = path.space.enumerate()
    law = path.log_prob(states, full(time, len(states)), x1.expand(len(states), L)).exp()
    for x0 in (None, path.source(n, rng=seeded(5))):
        x = path.sample(x1.expand(n, L), t, x0=x0, rng=seeded(6))
        assert chi_square(path.space.index(x).bincount(minlength=len(states)), law) > 1e-4


@sources
def test_the_source_is_the_path_at_zero(source):
    path, n = mixture(source), 40_000
    x = path.source(n, rng=seeded(1))
    assert path.space.validate(x).shape == (n, L)
    states = path.space.enumerate()
    law = path.log_prob(states, full(0.0, len(states)), torch.zeros(len(states), L, dtype=torch.int64)).exp()
    assert chi_square(path.space.index(x).bincount(minlength=len(states)), law) > 1e-4
    assert torch.equal(path.source(5, rng=seeded(1)), path.source(5, rng=seeded(1)))


def test_the_noise_that_is_given_is_the_noise_that_is_used():
    path, n = mixture("uniform"), 500
    x1, x0 = torch.full((n, L), 3), torch.full((n, L), 1)
    x = path.sample(x1, full(0.4, n), x0=x0, rng=seeded())
    assert set(x.unique().tolist()) == {1, 3}
    assert torch.equal(path.sample(x1, full(0.0, n), x0=x0), x0)
    assert torch.equal(path.sample(x1, full(1.0, n), x0=x0), x1)


def test_tokens_that_the_source_never_puts_are_data():
    assert mixture("mask").is_noise(torch.tensor([[0, V, 1]])).tolist() == [[False, True, False]]
    assert bool(mixture("uniform").is_noise(token_data()).all())
    partial = gm.paths.Mixture((2,), 3, source=torch.tensor([0.5, 0.5, 0.0]))
    assert partial.is_noise(torch.tensor([[0, 2]])).tolist() == [[True, False]]
    assert mixture("mask").data_space == gm.spaces.Categorical((L,), V)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
def test_gaussian_samples_are_the_formula(schedule):
    path = gm.paths.Gaussian((2, 2), schedule=schedule, dtype=F64)
    x0, x1, t = path.source(3, rng=seeded(1)), torch.randn(3, 2, 2, dtype=F64, generator=seeded(2)), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    alpha, sigma = (c(t).view(3, 1, 1) for c in (schedule.alpha, schedule.sigma))
    noise = x0 / schedule.source_std
    assert torch.allclose(path.sample(x1, t, x0=x0), alpha * x1 + sigma * noise, rtol=1e-14)
    assert torch.allclose(path.noise(path.sample(x1, t, x0=x0), t, x1, None), noise, rtol=1e-9, atol=1e-12)
    assert torch.equal(path.noise(x0, t, x1, x0), noise)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
def test_gaussian_density_is_normalised_and_sampled(schedule):
    path, n, z = line(schedule), 20_000, 0.7
    for time in (0.2, 0.8):
        alpha, sigma = (float(c(full(time, 1))) for c in (schedule.alpha, schedule.sigma))
        x = (alpha * z + sigma * torch.linspace(-9, 9, 2001, dtype=F64)).unsqueeze(-1)
        density = path.log_prob(x, full(time, len(x)), torch.full_like(x, z)).exp()
        assert float(torch.trapezoid(density, x[:, 0])) == pytest.approx(1, abs=1e-12)
        draws = path.sample(torch.full((n, 1), z, dtype=F64), full(time, n), rng=seeded(3))[:, 0]
        assert abs(float(draws.mean()) - alpha * z) < 4 * sigma / math.sqrt(n)
        assert abs(float(draws.var()) / sigma**2 - 1) < 4 * math.sqrt(2 / n)


def test_gaussian_source_has_the_std_of_the_schedule():
    for schedule, std in ((SCHEDULES[0], 1.0), (gm.schedules.VE(0.1, 7.0), 7.0)):
        x = line(schedule).source(50_000, rng=seeded())
        assert abs(float(x.std()) / std - 1) < 4 / math.sqrt(2 * 50_000)
        assert x.dtype == F64


def test_the_dtype_of_a_state_is_that_of_the_data():
    path = gm.paths.Gaussian((2,))
    assert path.source(1).dtype == torch.float32
    for dtype in (torch.float16, torch.float32, F64):
        assert path.sample(torch.zeros(1, 2, dtype=dtype), torch.ones(1)).dtype == dtype
    assert path.log_prob(torch.zeros(1, 2), torch.zeros(1), torch.zeros(1, 2)).dtype == F64


def test_half_precision_times_are_taken_as_they_are():
    path = mixture("mask")
    x1 = torch.zeros(4, L, dtype=torch.int64)
    assert torch.equal(path.sample(x1, torch.ones(4, dtype=torch.float16)), x1)


x1, t = torch.zeros(4, L, dtype=torch.int64), torch.full((4,), 0.5)
BAD_CALLS = [
    (lambda p: p.sample(x1, 0.5), "`t` must be a floating tensor.*got float; pass"),
    (lambda p: p.sample(x1, torch.zeros(4, dtype=torch.int64)), "got a tensor of torch.int64"),
    (lambda p: p.sample(x1, t.unsqueeze(-1)), r"shape \(B,\) = \(4,\), got \(4, 1\); pass `t.flatten\(\)`"),
    (lambda p: p.sample(x1, t[:3]), r"got \(3,\); pass one time a sample"),
    (lambda p: p.sample(x1, t + 0.6), r"lie in \[0, 1\].*got 1.1 to 1.1"),
    (lambda p: p.sample(x1, t - 0.6), r"lie in \[0, 1\].*got -0.1"),
    (lambda p: p.sample(x1, t * math.nan), r"lie in \[0, 1\].*got nan"),
    (lambda p: p.sample(x1 + V, t), r"`x1` must hold tokens 0 to 3, got 4 \(the mask is not data\)"),
    (lambda p: p.sample(x1, t, x0=x1[:2]), "same number of samples, got 2 and 4"),
    (lambda p: p.sample(x1, t, x0=x1 + 7), "`x0` must hold tokens 0 to 4, got 7"),
    (lambda p: p.log_prob(x1[:2], t, x1), "same number of samples, got 2 and 4"),
    (lambda p: p.log_prob(x1, t[:2], x1), r"got \(2,\)"),
    (lambda p: p.source(0), "`n` must be a positive integer, got 0"),
    (lambda p: p.source(2.0), "got 2.0"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(gm.GenmatchError, match=message):
        call(mixture("mask"))


BAD_PATHS = [
    (lambda: gm.paths.Mixture((2,), 3, source="masks"), "unknown source `masks`; did you mean `mask`?"),
    (lambda: gm.paths.Mixture((2,), 3, source=None), "`source` must be.*got None"),
    (lambda: gm.paths.Mixture((2,), 3, source=torch.ones(4) / 4), r"shape \(3,\) or \(2, 3\), got \(4,\)"),
    (lambda: gm.paths.Mixture((2,), 3, source=torch.ones(3)), "sum to 1.*divide by the sum"),
    (lambda: gm.paths.Mixture((2,), 3, source=torch.tensor([1.5, -0.5, 0.0])), "minimum of -0.5"),
    (lambda: gm.paths.Mixture((2,), 3, source=torch.full((3,), math.nan)), "minimum of nan"),
    (lambda: gm.paths.Mixture((2,), 3, schedule="cosine"), "`schedule` must be a Schedule, got 'cosine'; pass"),
    (lambda: gm.paths.Gaussian((2,), schedule=0.5), "`schedule` must be a Schedule, got 0.5"),
    (lambda: gm.paths.Gaussian((2,), schedule=gm.schedules.Cosine), "`schedule` must be a Schedule.*pass"),
]


@pytest.mark.parametrize(("make", "message"), BAD_PATHS)
def test_impossible_paths_are_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()


def test_a_log_prob_that_is_not_summed_is_refused():
    class Each(gm.paths.Gaussian):
        def _log_prob(self, x, t, x1):
            return x - x1

    with pytest.raises(gm.GenmatchError, match=r"`Each._log_prob` must return \(B,\) = \(3,\), got \(3, 2\); sum over coordinates"):
        Each((2,)).log_prob(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, 2))
