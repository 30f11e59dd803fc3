"""Steps with the prediction frozen on Gaussian paths, against ordinary differential equations of their moments."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.paths.conversion import convert
from genmatch.schedules import VE, CondOT, Cosine, Polynomial
from genmatch.solvers.sde import SDEExponential
from tests.toys import PREDICTIONS, SCHEDULES, full, line, name_of, seeded

F64 = torch.float64
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)


def memoryless(schedule, eta=1.0):
    return lambda t: eta * torch.sqrt(2 * schedule.sigma(t) * schedule.delta(t) / schedule.alpha(t))


def fake_noise(monkeypatch, value):
    monkeypatch.setattr(torch, "randn", lambda shape, **how: torch.full(shape, value, dtype=how["dtype"]))


def mean_and_std(monkeypatch, draw):
    """Of a state that is affine in one standard normal draw."""
    fake_noise(monkeypatch, 0.0)
    mean = float(draw())
    fake_noise(monkeypatch, 1.0)
    return mean, float(draw()) - mean


def moments(process, output, x, t, s, steps=4000):
    """Mean and standard deviation at `s` of the equation of `process` with its prediction frozen, from the generator alone.

    The equation is linear, dX = (b + A X) dt + g dW: m' = b + A m and v' = 2 A v + g^2, by the Runge-Kutta method.
    """
    times = torch.linspace(t, s, 2 * steps + 1, dtype=F64)
    column = torch.ones(len(times), 1, dtype=F64)
    zero, one = (process.generator(output * column, state * column, times) for state in (0.0, 1.0))
    b = zero.terms[0].velocity[:, 0]
    a = one.terms[0].velocity[:, 0] - b
    g2 = zero.brownian.variance[:, 0] if "brownian" in zero.kinds else 0 * b
    a, b, g2, h = a.tolist(), b.tolist(), g2.tolist(), (s - t) / steps
    mean, variance = x, 0.0
    for k in range(0, 2 * steps, 2):
        for values, factor in ((b, 1), (g2, 2)):
            y = mean if factor == 1 else variance
            k1 = values[k] + factor * a[k] * y
            k2 = values[k + 1] + factor * a[k + 1] * (y + h / 2 * k1)
            k3 = values[k + 1] + factor * a[k + 1] * (y + h / 2 * k2)
            k4 = values[k + 2] + factor * a[k + 2] * (y + h * k3)
            y += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            mean, variance = (y, variance) if factor == 1 else (mean, y)
    return mean, math.sqrt(max(variance, 0.0))


@every
@pytest.mark.parametrize("kind", ["data", "noise"])
def test_ddim_is_exact_for_a_constant_prediction(schedule, kind):
    process = gm.Flow(line(schedule), prediction=kind)
    expected, _ = moments(process, 0.6, 0.3, 0.2, 0.7)
    x, t, s = torch.full((1, 1), 0.3, dtype=F64), full(0.2, 1), full(0.7, 1)
    got = process.transition(torch.full((1, 1), 0.6, dtype=F64), x, t, s).item()
    assert got == pytest.approx(expected, abs=1e-9)


@every
def test_ddim_is_the_same_number_for_data_and_noise(schedule):
    x, x1, t, s = torch.randn(6, 1, dtype=F64, generator=seeded(1)), torch.randn(6, 1, dtype=F64, generator=seeded(2)), full(0.3, 6), full(0.6, 6)
    steps = []
    for kind in PREDICTIONS:
        output = convert(x1, x, t, schedule, "data", kind)
        steps.append(gm.Flow(line(schedule), prediction=kind).transition(output, x, t, s))
    for step in steps:
        assert torch.allclose(step, steps[0], rtol=1e-12, atol=1e-12)
    noise = convert(x1, x, t, schedule, "data", "noise")
    other = schedule.alpha(s[:1]) / schedule.alpha(t[:1]) * (x - schedule.sigma(t[:1]) * noise) + schedule.sigma(s[:1]) * noise
    assert torch.allclose(steps[0], other, rtol=1e-12, atol=1e-12)


def test_ddim_is_euler_for_straight_lines():
    process = gm.Flow(line(), prediction="velocity")
    x, u, t, s = torch.randn(6, 1, dtype=F64), torch.randn(6, 1, dtype=F64), full(0.3, 6), full(0.6, 6)
    assert torch.allclose(process.transition(u, x, t, s), x + 0.3 * u, rtol=1e-14)


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if not isinstance(s, VE)], ids=name_of)
def test_the_last_step_is_the_prediction(schedule):
    x, x1, t, s = torch.randn(6, 1, dtype=F64), torch.randn(6, 1, dtype=F64), full(0.3, 6), full(1.0, 6)
    assert torch.equal(gm.Flow(line(schedule), prediction="data").transition(x1, x, t, s), x1)
    for noise in (0.0, 1.0, lambda t: 1 + t):
        assert torch.equal(gm.Diffusion(line(schedule), noise=noise).transition(x1, x, t, s, rng=seeded()), x1)


NOISES = {"0.5": 0.5, "2": 2.0, "1 + t": lambda t: 1 + t, "sigma": lambda t: torch.sqrt(1 - t)}


@every
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("t", "s"), [(0.0, 0.3), (0.2, 0.7), (0.8, 0.95)])
def test_diffusion_transition_has_the_moments_of_its_equation(monkeypatch, schedule, noise, t, s):
    process = gm.Diffusion(line(schedule), noise=NOISES[noise])
    expected = moments(process, 0.6, 0.3, t, s)
    x, x1 = torch.full((1, 1), 0.3, dtype=F64), torch.full((1, 1), 0.6, dtype=F64)
    got = mean_and_std(monkeypatch, lambda: process.transition(x1, x, full(t, 1), full(s, 1)))
    assert got == pytest.approx(expected, abs=1e-7)


@every
@pytest.mark.parametrize("eta", [0.0, 0.5, 0.5**0.5, 1.0, 2.0**0.5])
def test_the_sde_exponential_step_is_the_transition_for_memoryless_noise(monkeypatch, schedule, eta):
    process = gm.Diffusion(line(schedule), noise=memoryless(schedule, eta))
    x, x1 = torch.full((1, 1), 0.3, dtype=F64), torch.full((1, 1), 0.6, dtype=F64)
    for t, s in ((0.2, 0.6), (0.7, 0.99)):
        exact = mean_and_std(monkeypatch, lambda t=t, s=s: process.transition(x1, x, full(t, 1), full(s, 1)))
        step = SDEExponential(eta)
        got = mean_and_std(monkeypatch, lambda t=t, s=s, step=step: step.step(process, lambda x, t: x1, x, full(t, 1), full(s, 1)))
        assert got == pytest.approx(exact, abs=1e-10)
    assert got == pytest.approx(moments(process, 0.6, 0.3, 0.7, 0.99), abs=1e-8)


@every
def test_ancestral_sampling_is_the_posterior(monkeypatch, schedule):
    """Bayes: X_s given X_t and x1, for the noising chain X_t = alpha_t / alpha_s X_s + noise."""
    t, s, x1, x = 0.3, 0.6, 0.6, 0.3
    (al, si), (be, ta) = ((float(schedule.alpha(full(v, 1))), float(schedule.sigma(full(v, 1)))) for v in (t, s))
    ratio, extra = al / be, si**2 - (al / be * ta) ** 2
    variance = 1 / (1 / ta**2 + ratio**2 / extra)
    mean = variance * (be * x1 / ta**2 + ratio * x / extra)
    process = gm.Diffusion(line(schedule))
    draw = lambda: SDEExponential(1.0).step(  # noqa: E731
        process, lambda x, t: torch.full_like(x, x1), torch.full((1, 1), x, dtype=F64), full(t, 1), full(s, 1)
    )
    assert mean_and_std(monkeypatch, draw) == pytest.approx((mean, math.sqrt(variance)), rel=1e-12)


@pytest.mark.parametrize("schedule", [CondOT(), Cosine(), Polynomial(2.0)], ids=name_of)
def test_ancestral_sampling_starts_where_there_is_no_signal(monkeypatch, schedule):
    process = gm.Diffusion(line(schedule))
    draw = lambda: SDEExponential(1.0).step(process, lambda x, t: 0 * x + 0.6, torch.full((1, 1), 0.3, dtype=F64), full(0.0, 1), full(0.5, 1))  # noqa: E731
    alpha, sigma = schedule.alpha(full(0.5, 1)).item(), schedule.sigma(full(0.5, 1)).item()
    assert mean_and_std(monkeypatch, draw) == pytest.approx((0.6 * alpha, sigma), rel=1e-14)


@every
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_any_bridge_keeps_the_conditional_law(monkeypatch, schedule, share):
    """X_t ~ N(alpha_t x1, sigma_t^2) becomes N(alpha_s x1, sigma_s^2), however much of the noise is renewed."""
    process, t, s = gm.Flow(line(schedule), prediction="data"), full(0.3, 1), full(0.6, 1)
    x1, x = torch.full((1, 1), 0.6, dtype=F64), schedule.alpha(t).unsqueeze(-1) * 0.6
    at = lambda x: mean_and_std(monkeypatch, lambda: process.bridge(x1, x, t, s, full(share, 1)))  # noqa: E731
    (mean, std), (shifted, _) = at(x), at(x + 1)
    assert mean == pytest.approx(0.6 * schedule.alpha(s).item(), rel=1e-13)
    variance = (shifted - mean) ** 2 * schedule.sigma(t).item() ** 2 + std**2
    assert variance == pytest.approx(schedule.sigma(s).item() ** 2, rel=1e-12)


def test_ve_keeps_its_last_noise(monkeypatch):
    process = gm.Diffusion(line(VE(0.1, 10.0)), noise=1.0)
    x, x1 = torch.full((1, 1), 0.3, dtype=F64), torch.full((1, 1), 0.6, dtype=F64)
    got = mean_and_std(monkeypatch, lambda: process.transition(x1, x, full(0.5, 1), full(1.0, 1)))
    assert got == pytest.approx(moments(process, 0.6, 0.3, 0.5, 1.0), abs=1e-7)
