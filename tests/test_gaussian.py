"""Conversions of predictions, and the laws of the flow and the diffusion on a Gaussian mixture that is known exactly."""

import itertools

import pytest
import torch

import genmatch as gm
from genmatch.paths.conversion import convert
from genmatch.schedules import CondOT, Cosine, Polynomial
from tests.toys import PREDICTIONS, SCHEDULES, GaussianMixture, full, line, name_of, seeded

F64 = torch.float64
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
TIMES = (0.02, 0.2, 0.5, 0.8, 0.98)


def points(schedule, time):
    """States that the path visits at a time."""
    law = GaussianMixture(schedule)
    return law, law.quantiles(torch.linspace(0.02, 0.98, 25, dtype=F64), time).unsqueeze(-1), full(time, 25)


@every
@pytest.mark.parametrize(("source", "to"), list(itertools.permutations(PREDICTIONS, 2)))
def test_conversions_go_round(schedule, source, to):
    rng = seeded()
    x, value = (torch.randn(5, 3, dtype=F64, generator=rng) for _ in range(2))
    t = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95], dtype=F64)
    back = convert(convert(value, x, t, schedule, source, to), x, t, schedule, to, source)
    scale = 1 + convert(value, x, t, schedule, source, to).abs() + x.abs()
    assert float(((back - value) / scale).abs().max()) < 1e-12


@every
@pytest.mark.parametrize(("source", "to"), list(itertools.permutations(PREDICTIONS, 2)))
def test_conversions_agree_with_the_law(schedule, source, to):
    for time in TIMES:
        law, x, t = points(schedule, time)
        value, expected = (getattr(law, kind)(x, t) for kind in (source, to))
        # Digits that a prediction does not hold cannot be recovered: they are lost in its own rounding.
        lost = convert(value.abs() + x.abs(), 0 * x, t, schedule, source, to).abs()
        assert float(((convert(value, x, t, schedule, source, to) - expected).abs() / (1 + expected.abs() + lost)).max()) < 1e-10


@every
def test_the_score_of_the_oracle_is_that_of_the_density(schedule):
    for time in TIMES:
        law, x, t = points(schedule, time)
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(law.log_prob(x, t).sum(), x)
        x = x.detach()
        assert torch.allclose(convert(law.data(x, t), x, t, schedule, "data", "score"), gradient, rtol=1e-8, atol=1e-10)


def first_and_second(function, x, h):
    """Central differences of fourth order."""
    a, b, c, d, e = (function(x + k * h) for k in (-2, -1, 0, 1, 2))
    return (a - 8 * b + 8 * d - e) / (12 * h), (-a + 16 * b - 30 * c + 16 * d - e) / (12 * h * h)


@pytest.mark.parametrize("schedule", [CondOT(), Cosine(), Polynomial(2.0)], ids=name_of)
@pytest.mark.parametrize("variance", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("time", [0.2, 0.5, 0.8])
def test_the_density_obeys_the_forward_equation(schedule, variance, time):
    """d p / dt = -d(b p) / dx + g^2 / 2 d^2 p / dx^2, the continuity equation for g = 0 and else that of Fokker and Planck."""
    law, x, t = points(schedule, time)
    process = gm.Diffusion(line(schedule), noise=variance**0.5) if variance else gm.Flow(line(schedule), prediction="data")

    def density(x, t=t):
        return law.log_prob(x, t).exp()

    def flux(x):
        return process.generator(law.data(x, t), x, t).terms[0].velocity[:, 0] * density(x)

    h = 1e-3 * float(schedule.sigma(t[:1]))
    slope, _ = first_and_second(lambda s: density(x, s), t, 1e-4)
    divergence, _ = first_and_second(flux, x, h)
    _, curvature = first_and_second(density, x, h)
    residual = slope + divergence - variance / 2 * curvature
    assert float(residual.abs().max()) < 1e-6 * (1 + float(slope.abs().max()))
    assert float((residual - 0.1 * curvature).abs().max()) > 1e-3, "another noise is another equation"


@every
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_generators_do_not_depend_on_what_is_predicted(schedule, prediction):
    for kind in (gm.Flow, gm.Diffusion):
        law, x, t = points(schedule, 0.4)
        one, two = kind(line(schedule), prediction=prediction), kind(line(schedule), prediction="data")
        left, right = one.generator(getattr(law, prediction)(x, t), x, t), two.generator(law.data(x, t), x, t)
        assert torch.allclose(left.terms[0].velocity, right.terms[0].velocity, rtol=1e-9, atol=1e-10)
        assert left.kinds == one.kinds


@every
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_targets_are_the_conditional_predictions(schedule, prediction):
    process, rng = gm.Flow(line(schedule), prediction=prediction), seeded()
    x1, x0 = torch.randn(5, 1, dtype=F64, generator=rng), process.path.source(5, rng=rng)
    t = torch.tensor(TIMES, dtype=F64)
    x = process.path.sample(x1, t, x0=x0)
    expected = convert(x1, x, t, schedule, "data", prediction)
    for given in (x0, None):
        assert torch.allclose(process.target(x, t, x1, x0=given), expected, rtol=1e-7, atol=1e-7)


@every
def test_memoryless_noise_makes_the_reversed_drift_free_of_data(schedule):
    """g^2 = 2 sigma Delta / alpha: run backward, the drift is -alpha' / alpha x, the classical noising equation."""
    law, x, t = points(schedule, 0.4)
    memoryless = (2 * schedule.sigma(t) * schedule.delta(t) / schedule.alpha(t)).unsqueeze(-1)
    drift = -law.velocity(x, t) + memoryless / 2 * law.score(x, t)
    expected = -(schedule.d_alpha(t) / schedule.alpha(t)).unsqueeze(-1) * x
    assert torch.allclose(drift, expected, rtol=1e-10, atol=1e-10)


def test_t_min_skips_the_moment_at_which_a_prediction_says_nothing():
    assert gm.Flow(line(), prediction="velocity").t_min == 0
    assert gm.Flow(line(), prediction="data").t_min == 0
    assert gm.Flow(line(Polynomial(2.0)), prediction="velocity").t_min == 1e-3
    assert gm.Flow(line(Polynomial(2.0)), prediction="data").t_min == 0
    assert gm.Flow(line(), prediction="noise").t_min == 1e-3
    assert gm.Diffusion(line(Cosine()), prediction="score").t_min == 1e-3
    assert gm.Flow(line(gm.schedules.VP()), prediction="noise").t_min == 0
    assert gm.Flow(line(gm.schedules.VE()), prediction="score").t_min == 0


def test_the_loss_of_a_score_is_that_of_the_noise():
    one, two = gm.Flow(line(), prediction="score"), gm.Flow(line(), prediction="noise")
    x1, x0, t = torch.randn(9, 1, dtype=F64), torch.randn(9, 1, dtype=F64), torch.linspace(0.1, 0.9, 9, dtype=F64)
    x = one.path.sample(x1, t, x0=x0)
    guess = torch.randn(9, 1, dtype=F64)
    sigma = one.path.schedule.sigma(t).unsqueeze(-1)
    left = one.divergence(one.target(x, t, x1, x0=x0), -guess / sigma, x, t)
    assert torch.allclose(left, two.divergence(two.target(x, t, x1, x0=x0), guess, x, t), rtol=1e-12)


BAD = [
    (lambda: gm.Flow(gm.paths.Mixture((2,), 3)), "Flow needs a path with a velocity, got Mixture.*pass `gm.paths.Gaussian"),
    (lambda: gm.Diffusion("path"), "Diffusion needs a Gaussian path, got 'path'"),
    (lambda: gm.Flow(line(), prediction="velocty"), "unknown prediction `velocty`; did you mean `velocity`"),
    (lambda: gm.Flow(line(), prediction=None), "unknown prediction `None`.*Known: data, noise, score, velocity"),
    (lambda: gm.Diffusion(line(), noise=-1.0), r"`noise` must be a number in \[0, inf\), got -1.0; a function of t"),
    (lambda: gm.Diffusion(line(), noise=float("nan")), "got nan"),
    (lambda: gm.Diffusion(line(), noise="high"), "got 'high'"),
    (lambda: gm.Diffusion(line(), noise=None), "got None"),
    (lambda: gm.Diffusion(line(), noise=lambda t: -t).g(full(0.5, 2)), r"finite values of at least 0 with shape \(2,\)"),
    (lambda: gm.Diffusion(line(), noise=lambda t: t.sum()).g(full(0.5, 2)), r"with shape \(2,\), got shape \(\)"),
    (lambda: gm.Diffusion(line(), noise=lambda t: 1 / (t - t)).g(full(0.5, 2)), "finite"),
    (lambda: gm.Diffusion(line(), noise=lambda t: "high").g(full(0.5, 2)), "got 'high'"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_impossible_processes_are_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()
