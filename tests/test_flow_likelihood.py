"""Log-likelihoods of flows on manifolds against closed forms, and which process bounds one that has no likelihood itself."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.likelihood import Likelihood
from genmatch.spaces import SO3, Sphere, Torus
from tests.toys import seeded

F64 = torch.float64
END = 1 - 1e-5
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def circle(strength):
    """On a circle dx/dt = a sin x carries tan(x / 2) to e^(a t) tan(x / 2)."""
    x = 3 * (2 * torch.rand(40, 1, dtype=F64, generator=seeded()) - 1)
    shrink, tangent = math.exp(-strength * END), torch.tan(x / 2).squeeze(-1)
    return Torus(1, F64), lambda x, t: strength * x.sin(), x, (shrink * (1 + tangent**2) / (1 + (shrink * tangent) ** 2)).log()


def sphere(strength):
    """Towards the pole, u = a (e - (e . x) x): the height z follows dz/dt = a (1 - z^2)."""
    space, pole = Sphere(2, F64), torch.tensor([0.0, 0.0, 1.0], dtype=F64)
    x = space.random(40, rng=seeded())
    height = x[:, 2]
    start = torch.tanh(torch.atanh(height) - strength * END)
    return space, lambda x, t: strength * pole.expand_as(x), x, ((1 - start**2) / (1 - height**2)).log()


def rotations(strength):
    """Along the geodesics to the identity: the angle shrinks as e^(-a t), and that of uniform rotations has density (1 - cos) / pi."""
    space = SO3(F64)
    axis = torch.nn.functional.normalize(torch.randn(40, 3, dtype=F64, generator=seeded()), dim=-1)
    angle = math.pi * math.exp(-strength) * (0.05 + 0.9 * torch.rand(40, dtype=F64, generator=seeded(1)))
    a, b, c = (axis * angle.unsqueeze(-1)).unbind(-1)
    zero = torch.zeros_like(a)
    x = torch.linalg.matrix_exp(torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], -1).view(-1, 3, 3))
    start = angle * math.exp(strength * END)
    identity = torch.eye(3, dtype=F64)
    return space, lambda x, t: strength * space.log(x, identity.expand_as(x)), x, ((1 - start.cos()) / (1 - angle.cos())).log() + strength * END


@pytest.mark.parametrize("toy", [circle, sphere, rotations])
def test_the_density_of_a_flow_on_a_manifold(toy):
    space, model, x, stretch = toy(0.8)
    process = gm.Flow(gm.paths.Geodesic(space))
    found = gm.log_likelihood(process, model, x, **EXACT)
    torch.testing.assert_close(found.log_prob, stretch - space.log_volume, atol=1e-5, rtol=0)
    assert float(stretch.std()) > 0.1
    assert not found.bound


@pytest.mark.parametrize("toy", [circle, sphere, rotations])
def test_probes_have_the_standard_error_that_they_say(toy):
    space, model, x, stretch = toy(0.8)
    found = gm.log_likelihood(gm.Flow(gm.paths.Geodesic(space)), model, x, probes=64, seed=0)
    error = (found.log_prob - (stretch - space.log_volume)) / found.standard_error.clamp(min=1e-4)
    assert float(error.abs().max()) < 5
    assert float(found.standard_error.mean()) < 0.5


def test_what_a_network_says_across_the_manifold_does_not_count():
    space, model, x, stretch = sphere(0.8)
    process = gm.Flow(gm.paths.Geodesic(space))
    found = gm.log_likelihood(process, lambda x, t: model(x, t) + 3 * x * x[:, :1], x, **EXACT)
    torch.testing.assert_close(found.log_prob, stretch - space.log_volume, atol=1e-5, rtol=0)


def test_a_density_has_mass_one():
    """By the trapezoidal rule on a circle, whose error for a smooth function is that of rounding."""
    x = (2 * math.pi * torch.arange(64, dtype=F64) / 64 - math.pi).unsqueeze(-1)
    found = gm.log_likelihood(gm.Flow(gm.paths.Geodesic(Torus(1, F64))), lambda x, t: (x + 3 * t.unsqueeze(-1)).sin() + 0.5 * (2 * x).cos(), x, **EXACT)
    density = found.log_prob.exp()
    assert float(density.sum()) * 2 * math.pi / 64 == pytest.approx(1, abs=1e-6)
    assert float(density.max() / density.min()) > 2


def test_a_bound_of_a_product_is_that_of_diffusions_with_its_networks():
    flow, chain = gm.Flow(gm.paths.Gaussian((2,)), "data"), gm.CTMC(gm.paths.Mixture((2,), 3))
    bounded = gm.Product(a=flow, b=gm.Product(c=chain, d=flow)).bounded()
    assert repr(bounded.parts["a"]) == repr(gm.Diffusion(flow.path, prediction="data"))
    assert bounded.parts["b"].parts["c"] is chain
    assert bounded.has_noise
    assert chain.bounded() is chain
    x1 = {"a": torch.randn(5, 2, generator=seeded()), "b": torch.tensor([[0, 1], [2, 2], [1, 1], [0, 0], [1, 2]])}
    both, model = gm.Product(a=flow, b=chain).bounded(), lambda x, t: {"a": 0.5 * x["a"], "b": torch.zeros(len(t), 2, 3)}
    found = gm.elbo(both, model, x1, draws=4000, seed=0)
    parts = [
        gm.elbo(gm.Diffusion(flow.path, prediction="data"), lambda x, t: 0.5 * x, x1["a"], draws=4000, seed=1),
        gm.elbo(chain, lambda x, t: torch.zeros(len(t), 2, 3), x1["b"], draws=4000, seed=1),
    ]
    total, error = sum(p.nats for p in parts), sum(p.standard_error**2 for p in [found, *parts]).sqrt()
    assert float(((found.nats - total) / error).abs().max()) < 4


def test_what_has_no_bound_says_so():
    path = gm.paths.Gaussian((2,))
    for process, reason in (
        (gm.Superposition([gm.Flow(path), gm.JumpProcess(path, bins=4)], weights=[0.5, 0.5]), "drifts without noise"),
        (gm.Flow(gm.paths.Geodesic(Sphere(2))), "Diffusion needs a Gaussian path"),
        (gm.Flow(gm.paths.Gaussian((2,), coupling=gm.couplings.OptimalTransport())), "needs noise that is independent"),
    ):
        with pytest.raises(gm.GenmatchError, match=reason):
            process.bounded()
    with pytest.raises(gm.GenmatchError, match="no bound is finite either"):
        gm.log_likelihood(gm.Superposition([gm.Flow(path), gm.JumpProcess(path, bins=4)], weights=[0.5, 0.5]), None, None)


def test_a_perplexity_beyond_numbers_is_infinite():
    huge = Likelihood(torch.full((3,), 1e6, dtype=F64), torch.zeros(3), size=2, bound=True, tight=True, process="poor")
    assert huge.perplexity == math.inf
