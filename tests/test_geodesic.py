"""Geodesic paths and flows on manifolds, against closed forms, quadrature and exact simulation."""

import math

import numpy as np
import pytest
import torch

import genmatch as gm
from genmatch.generators import Brownian, Drift
from genmatch.schedules import VP, CondOT, Cosine
from genmatch.spaces import SO3, Sphere, Torus
from tests.toys import full, grid, name_of, seeded

F64 = torch.float64
SPACES = [Sphere(2, F64), Sphere(3, F64), Torus(1, F64), SO3(F64)]
every = pytest.mark.parametrize("space", SPACES, ids=lambda s: f"{type(s).__name__}{s.dim}")
schedules = pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=name_of)
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(80))


def ring(space, omega):
    """How much of the space lies at distance omega from a point, a unit of distance: the measure that densities refer to."""
    if isinstance(space, SO3):
        return (1 - omega.cos()) / math.pi
    half = space.dim / 2
    return 2 * math.pi**half / math.gamma(half) * (omega.sin() ** (space.dim - 1) if isinstance(space, Sphere) else 1.0)


def at_distance(space, omega):
    """Points at given distances from x1, which is returned too."""
    n = len(omega)
    x1 = space.random(1, rng=seeded(1)).expand(n, *space.shape)
    v = space.project(x1[:1], torch.randn(1, *space.shape, dtype=F64, generator=seeded(2)))
    return space.exp(x1, omega.reshape(-1, *[1] * len(space.shape)) * v / space.norm(v).item()), x1


@every
@schedules
def test_velocity_is_the_derivative_of_the_path(space, schedule):
    path, n, h = gm.paths.Geodesic(space, schedule), 500, 1e-5
    x1, x0 = space.random(n, rng=seeded(1)), space.random(n, rng=seeded(2))
    for time in (0.1, 0.5, 0.9):
        x = path.sample(x1, full(time, n), x0=x0)
        before, after = (path.sample(x1, full(s, n), x0=x0) for s in (time - h, time + h))
        slope = (space.log(x, after) - space.log(x, before)) / (2 * h)
        velocity = path.velocity(x, full(time, n), x1)
        assert float((slope - velocity).abs().max()) < 1e-8
        torch.testing.assert_close(space.project(x, velocity), velocity, atol=1e-14, rtol=0)


@every
@pytest.mark.parametrize("time", [0.0, 0.3, 0.9, 0.999])
def test_density_integrates_to_one(space, time):
    path, edge = gm.paths.Geodesic(space), (1 - time) * math.pi
    omega = edge / 2 * (NODES + 1)
    x, x1 = at_distance(space, omega)
    density = path.log_prob(x, full(time, len(omega)), x1).exp()
    assert float((WEIGHTS * edge / 2 * density * ring(space, omega)).sum()) == pytest.approx(1, abs=1e-10)


@every
@schedules
def test_density_and_velocity_keep_the_continuity_equation(space, schedule):
    """d/dt (p ring) + d/d omega (p ring u) = 0, for the radial speed u at distance omega."""
    path, h = gm.paths.Geodesic(space, schedule), 3e-5

    def flux(time, omega):
        x, x1 = at_distance(space, omega)
        t = full(time, len(omega))
        p = path.log_prob(x, t, x1).exp() * ring(space, omega)
        velocity = path.velocity(x, t, x1)
        inwards = space.log(x, x1)
        speed = -(velocity * inwards).flatten(1).sum(-1) / (inwards * inwards).flatten(1).sum(-1) * space.dist(x, x1)
        return p, p * speed

    for time in (0.2, 0.6):
        edge = float(schedule.sigma(full(time, 1))) * math.pi
        omega = edge * torch.linspace(0.1, 0.9, 17, dtype=F64)
        d_t = (flux(time + h, omega)[0] - flux(time - h, omega)[0]) / (2 * h)
        d_omega = (flux(time, omega + h)[1] - flux(time, omega - h)[1]) / (2 * h)
        assert float((d_t + d_omega).abs().max()) < 1e-6
        # A factor of 1.1 in the velocity would show, wherever anything flows.
        assert float((d_t + 1.1 * d_omega).abs().max()) > 1e-3


@every
def test_density_is_zero_beyond_the_support_and_the_source_is_uniform(space):
    path = gm.paths.Geodesic(space)
    omega = torch.tensor([0.4, 0.6], dtype=F64) * math.pi
    x, x1 = at_distance(space, omega)
    assert path.log_prob(x, full(0.5, 2), x1).isneginf().tolist() == [False, True]
    torch.testing.assert_close(path.log_prob(x, full(0.0, 2), x1), full(-space.log_volume, 2))
    assert path.log_prob(x, full(1.0, 2), x1).isneginf().all()
    assert path.log_prob(x1, full(0.5, 2), x1).exp().tolist() == pytest.approx([0.5**-space.dim * math.exp(-space.log_volume)] * 2)


@every
def test_ends_are_exact_in_both_precisions(space):
    for dtype in (torch.float32, F64):
        path = gm.paths.Geodesic(space)
        x1, x0 = (space.random(50, rng=seeded(k), dtype=dtype) for k in (1, 2))
        assert torch.equal(path.sample(x1, full(0.0, 50), x0=x0), x0)
        assert torch.equal(path.sample(x1, full(1.0, 50), x0=x0), x1)


def atoms(space):
    data = space.random(3, rng=seeded(5))
    return data, torch.tensor([0.5, 0.3, 0.2], dtype=F64)


def draws(path, data, weights, n, time, seed):
    index = torch.multinomial(weights, n, replacement=True, generator=seeded(seed))
    return path.sample(data[index], full(time, n), rng=seeded(seed + 1))


def statistics(space, x, data):
    """Five numbers of each state."""
    flat = x.flatten(1)
    wave = [flat @ torch.randn(flat.shape[1], dtype=F64, generator=seeded(k)) for k in (1, 2)]
    return torch.stack(
        [
            *(wave[k].cos() if not isinstance(space, Torus) else (flat[:, 0] * (k + 1)).cos() for k in (0, 1)),
            *(space.dist(x, p.expand_as(x)).cos() for p in data),
        ]
    )


def z_scores(space, x, y, data):
    a, b = statistics(space, x, data), statistics(space, y, data)
    return (a.mean(1) - b.mean(1)) / ((a.var(1) + b.var(1)) / a.shape[1]).sqrt()


class MeanOfData(torch.nn.Module):
    """Trap: the velocity towards the posterior mean of x1, as if x1 were a statistic of the process."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, t):
        path = self.model.process.path
        mean = (self.model.posterior(x, t).unsqueeze(-1) * self.model.data.to(x).flatten(1)).sum(1).view_as(x)
        return path.velocity(x, t, path.space.nearest(mean))


@pytest.mark.slow
@pytest.mark.parametrize("space", [Sphere(2, F64), Sphere(3, F64), Torus(2, F64), SO3(F64)], ids=lambda s: f"{type(s).__name__}{s.dim}")
def test_marginal_flow_has_the_law_of_the_path(space):
    process, n = gm.Flow(gm.paths.Geodesic(space)), 6_000
    data, weights = atoms(space)
    model, times = gm.oracle(process, data, weights), grid(0, 0.9, 60)
    x0 = space.random(n, rng=seeded(11))
    run = gm.simulate(process, model, x0, times, solver="geodesic-midpoint")
    for k in (30, 60):
        z = z_scores(space, run.states[k], draws(process.path, data, weights, n, float(times[k]), 21), data)
        assert float(z.abs().max()) < 4


@pytest.mark.slow
def test_the_data_point_is_no_statistic_on_a_sphere():
    """log_x(E x1) is not E log_x(x1): 41 % apart on average, and the flow that confuses them has another law."""
    space, n = Sphere(2, F64), 20_000
    process, (data, weights) = gm.Flow(gm.paths.Geodesic(space)), atoms(space)
    model = gm.oracle(process, data, weights)
    x, t = draws(process.path, data, weights, 4000, 0.3, 31), full(0.3, 4000)
    right, wrong = (process.predict(m(x, t), x, t, "velocity") for m in (model, MeanOfData(model)))
    error = (wrong - right).norm(dim=-1) / right.norm(dim=-1)
    assert float(error.mean()) > 0.25
    run = gm.simulate(process, MeanOfData(model), space.random(n, rng=seeded(11)), grid(0, 0.9, 50), solver="geodesic-midpoint")
    z = z_scores(space, run.states[-1], draws(process.path, data, weights, n, 0.9, 21), data)
    print(f"mean relative error {float(error.mean()):.2f}, z {z.abs().max():.1f}")
    assert float(z.abs().max()) > 7


@pytest.mark.slow
def test_marginal_flow_on_the_circle_carries_quantiles():
    """A flow on a circle keeps the order of points: the share of points up to an angle is the exact one at every angle."""
    space, n, time = Torus(1, F64), 4000, 0.9
    process, (data, weights) = gm.Flow(gm.paths.Geodesic(space)), atoms(space)
    x0 = (2 * math.pi * (torch.arange(n, dtype=F64) + 0.5) / n - math.pi).unsqueeze(-1)
    x = gm.simulate(process, gm.oracle(process, data, weights), x0, grid(0, time, 2500), solver="exact").states[-1][:, 0]
    edge = (1 - time) * math.pi
    angles = x.sort().values

    def share(angle):
        """Mass of the three arcs, unrolled over three turns, in [-pi, angle]."""
        total = torch.zeros_like(angle)
        for turn in (-1, 0, 1):
            centre = data[:, 0] + 2 * math.pi * turn
            low = (centre - edge).clamp_min(-math.pi)
            total += (weights * ((torch.minimum(angle.unsqueeze(-1), centre + edge) - low).clamp_min(0) / (2 * edge))).sum(-1)
        return total

    ks = float((share(angles) - (torch.arange(n, dtype=F64) + 0.5) / n).abs().max())
    print(f"KS {ks:.1e}")
    assert ks < 1e-3


def smooth(space):
    """A smooth field that depends on state and time, as a network would be."""

    def model(x, t):
        a, b = (torch.randn(space.size, space.size, dtype=F64, generator=seeded(k)) for k in (1, 2))
        flat = space.embed(x).flatten(1)[:, : space.size]
        return (torch.sin(flat @ a + 2 * t.unsqueeze(-1)) + flat @ b * 0.5).view_as(x)

    return model


@every
@schedules
def test_solvers_have_the_order_that_they_declare(space, schedule):
    process, model = gm.Flow(gm.paths.Geodesic(space, schedule)), smooth(space)
    x0 = space.random(50, rng=seeded(1))

    def end(solver, steps):
        return gm.simulate(process, model, x0, grid(0.1, 0.9, steps), solver=solver).states[-1]

    # Runge-Kutta in the space around, where the field is a field of tangent vectors: it knows nothing of exp.
    def field(x, t):
        return space.project(x, model(x, full(t, len(x))))

    truth, h, steps = x0, 0.8 / 400, 400
    for k in range(steps):
        t = 0.1 + k * h
        k1 = field(truth, t)
        k2 = field(truth + h / 2 * k1, t + h / 2)
        k3 = field(truth + h / 2 * k2, t + h / 2)
        truth = truth + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(truth + h * k3, t + h))
    truth = space.nearest(truth)
    for name in gm.solvers.available(process):
        coarse, fine = (float(space.dist(end(name, n), truth).mean()) for n in (64, 128))
        order = math.log2(coarse / fine)
        print(f"{name}: error {fine:.1e}, order {order:.2f}")
        assert order > {1: 0.95, 2: 1.85}[gm.solvers.get(name).order]


def test_training_finds_the_marginal_velocity():
    space = Sphere(2)
    process, data = gm.Flow(gm.paths.Geodesic(space)), space.random(2, rng=seeded(4))
    torch.manual_seed(0)
    model = gm.nn.MLP(space, process.output_shape, width=64, depth=2)
    result = gm.train(process, model, data.repeat(64, 1), steps=400, lr=3e-3, seed=0)
    x = gm.sample(process, result.model, 500, steps=16, seed=1)
    near = torch.stack([space.dist(x, p.expand_as(x)) for p in data]).amin(0)
    assert float(near.median()) < 0.1
    assert float((near < 0.3).double().mean()) > 0.8


FLOW = gm.Flow(gm.paths.Geodesic(Sphere(2)))
REFUSED = [
    (lambda: gm.Flow(FLOW.path, prediction="data"), r"log_x\(E x1\) is not E log_x\(x1\).*use prediction='velocity'"),
    (lambda: gm.Flow(FLOW.path, prediction="noise"), "unknown prediction on a manifold `noise`.*Known: velocity"),
    (lambda: FLOW.predict(torch.zeros(1, 3), torch.eye(3)[:1], torch.zeros(1), "score"), "unknown prediction on a manifold `score`"),
    (lambda: gm.Diffusion(FLOW.path), "Diffusion needs a Gaussian path, got Geodesic"),
    (lambda: gm.paths.Geodesic(gm.spaces.Euclidean((3,))), "`space` must be a manifold, got Euclidean.*use `gm.paths.Gaussian`"),
    (lambda: gm.paths.Geodesic(Sphere(2), VP()), "VP.* has no kappa"),
    (lambda: gm.solvers.resolve(FLOW, "heun"), "Heun simulates drift only, and Flow has geodesic drift too; solvers that fit: exact, euler, geodesic-midpoint"),
    (lambda: gm.solvers.resolve(FLOW, "dopri5"), "Dopri5 simulates drift only"),
    (lambda: gm.solvers.resolve(FLOW, "sde-exponential"), "SDEExponential simulates"),
    (lambda: gm.solvers.resolve(gm.Flow(gm.paths.Gaussian((2,))), "geodesic-midpoint"), "GeodesicMidpoint simulates geodesic drift only"),
    (lambda: FLOW.bridge(*[torch.zeros(1)] * 5), "no `bridge`.*no Gaussian noise"),
    (lambda: FLOW.path.sample(2 * torch.eye(3), full(0.5, 3)), r"`x1` must lie on Sphere.*1 off"),
    (lambda: Drift(torch.ones(1, 3), Sphere(2)) + Drift(torch.ones(1, 3)), r"drifts add only on one space, got Sphere.*and R\^d"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_wrong_mathematics_is_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()


def test_a_drift_on_a_manifold_scales_adds_and_stays_there():
    x, v = torch.eye(3, dtype=F64)[:1], torch.tensor([[0.0, 0.5, 0.0]], dtype=F64)
    drift = 0.5 * Drift(v, Sphere(2)) + Drift(v, Sphere(2)) * 1.5
    assert drift.kinds == {"geodesic drift"}
    torch.testing.assert_close(drift.step(x, math.pi / 2), torch.tensor([[0.0, 1.0, 0.0]], dtype=F64))
    assert (drift + Brownian(torch.ones(1, 1))).kinds == {"geodesic drift", "brownian"}


@pytest.mark.parametrize("space", [Sphere(2), Torus(2), SO3()], ids=lambda s: type(s).__name__)
def test_float32_samples_stay_on_the_manifold_for_a_thousand_steps(space):
    process = gm.Flow(gm.paths.Geodesic(space))
    model = gm.oracle(process, space.random(3, rng=seeded(1)))
    for solver in gm.solvers.available(process):
        x = gm.sample(process, model, 50, steps=1000 if solver == "exact" else 200, solver=solver, seed=0)
        assert x.dtype == torch.float32
        assert float((x.double() - space.nearest(x.double())).abs().max()) < 1e-6
