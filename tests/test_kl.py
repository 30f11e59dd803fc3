"""The divergence of two generators against direct formulas and against the divergence of two path measures."""

import math

import torch

import genmatch as gm
from genmatch.generators import Brownian, Categorical, Drift, Jump, PointMass
from tests.toys import seeded

F64 = torch.float64


def test_diffusions_differ_by_half_the_squared_drift_over_the_variance():
    x = torch.randn(4, 3, dtype=F64, generator=seeded())
    u, v = x, torch.sin(x)
    noise = Brownian(torch.tensor([[0.5], [1.0], [2.0], [4.0]], dtype=F64))
    expected = ((u - v) ** 2).sum(-1) / (2 * noise.variance.flatten())
    assert torch.allclose((Drift(u) + noise).kl(Drift(v) + noise, x), expected, rtol=1e-14)
    assert torch.equal((Drift(u) + noise).kl(Drift(u) + noise, x), torch.zeros(4, dtype=F64))
    assert torch.allclose(noise.kl(Drift(v) + noise, x), (v**2).sum(-1) / (2 * noise.variance.flatten()), rtol=1e-14)


def test_processes_that_cannot_follow_are_infinitely_far():
    x = torch.ones(1, 1, dtype=F64)
    noise, other = Brownian(x), Brownian(2 * x)
    assert Drift(x).kl(Drift(2 * x), x).item() == math.inf
    assert Drift(x).kl(Drift(x), x).item() == 0.0
    assert noise.kl(other, x).item() == math.inf
    assert (Drift(x) + noise).kl(Drift(x), x).item() == math.inf
    jump = Jump(x, PointMass(0 * x))
    assert (noise + jump).kl(noise, x).item() == math.inf
    # The other way round only the time without a jump tells them apart.
    assert noise.kl(noise + jump, x).item() == 1.0
    assert jump.kl(Jump(x, PointMass(0 * x + 5)), x).item() == math.inf


def rates(seed):
    rng = seeded(seed)
    return torch.rand(2, 1, dtype=F64, generator=rng), torch.randn(2, 1, 3, dtype=F64, generator=rng)


def test_jumps_differ_by_the_generalised_divergence_of_their_rates():
    x = torch.tensor([[0], [2]])
    one, two, three = (Jump(intensity, Categorical(logits)) for intensity, logits in map(rates, (1, 2, 3)))
    for a, b in ((one, two), (one + three, two), (two, one + three), (one + one, 2.0 * one)):
        left, right = (term.terms[0].rates(x, 3) for term in (a, b))
        away = torch.arange(3) != x.unsqueeze(-1)
        direct = torch.where(away, left * (left / right).log() - left + right, 0).sum((-2, -1))
        assert torch.allclose(a.kl(b, x), direct, rtol=1e-12, atol=1e-14)
    assert float((one + one).kl(2.0 * one, x).abs().max()) < 1e-14


def test_a_target_that_never_leaves_costs_the_exit_rate_of_the_model():
    x = torch.tensor([[0]])
    still, moving = Jump(torch.zeros(1, 1, dtype=F64), PointMass(torch.tensor([[1]]))), Jump(torch.full((1, 1), 0.7, dtype=F64), PointMass(torch.tensor([[1]])))
    assert still.kl(moving, x).item() == 0.7
    assert moving.kl(still, x).item() == math.inf
    assert still.kl(still, x).item() == 0.0
    # Jumps to where the state is already are no jumps.
    assert Jump(torch.full((1, 1), 9.0, dtype=F64), PointMass(x)).kl(still, x).item() == 0.0


def path_divergence(a, b, start, horizon, steps):
    """KL of the laws of two discretised chains, over the joint law of their paths, by the chain rule."""
    h = horizon / steps
    one, two = torch.matrix_exp(h * a), torch.matrix_exp(h * b)
    cost = (one * (one / two).log()).sum(0)
    total, law = 0.0, start
    for _ in range(steps):
        total += float(cost @ law)
        law = one @ law
    return total


def test_the_integral_of_the_divergence_is_that_of_the_path_measures():
    space = gm.spaces.Categorical((1,), 3)
    x = space.enumerate()
    rng = seeded(5)
    one, two = (Jump(0.5 + torch.rand(3, 1, dtype=F64, generator=rng), Categorical(torch.randn(3, 1, 3, dtype=F64, generator=rng))) for _ in range(2))
    a, b = one.dense(space), two.dense(space)
    start, horizon = torch.tensor([0.2, 0.5, 0.3], dtype=F64), 0.8
    coarse, fine = (path_divergence(a, b, start, horizon, steps) for steps in (1000, 2000))
    rate = one.kl(two, x)
    nodes, weights = (torch.from_numpy(v) for v in __import__("numpy").polynomial.legendre.leggauss(20))
    law = [torch.matrix_exp(horizon * (1 + float(u)) / 2 * a) @ start for u in nodes]
    integral = sum(float(w) * float(rate @ p) for w, p in zip(weights, law, strict=True)) * horizon / 2
    assert abs(2 * fine - coarse - integral) < 1e-6
    assert abs(integral) > 1e-2
