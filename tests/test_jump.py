"""Jump processes on R^d: rate and flux in closed form, their average under a posterior, and the law that they make."""

import itertools
import math

import pytest
import torch

import genmatch as gm
from genmatch.destinations import Binned, Levels
from genmatch.paths.gaussian_jumps import Flux
from genmatch.schedules import VE, VP, CondOT, Cosine, Polynomial
from genmatch.spaces import Grid
from tests.toys import full, name_of, seeded

F64 = torch.float64
ATOMS = torch.tensor([-1.0, 0.2, 0.9], dtype=F64)
WEIGHTS = torch.tensor([0.3, 0.3, 0.4], dtype=F64)
SCHEDULES = [CondOT(), Cosine(), Polynomial(2), VP(), VE()]
TIMES = (0.2, 0.5, 0.85)


def process_on(schedule):
    return gm.JumpProcess(gm.paths.Gaussian((1,), schedule=schedule, dtype=F64), bins=ATOMS)


def density(schedule, x, t, z):
    alpha, sigma = (f(torch.tensor(t, dtype=F64)) for f in (schedule.alpha, schedule.sigma))
    return torch.exp(-0.5 * ((x - alpha * z) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def slope(f, t, h=2e-4):
    """d/dt to order h^6."""
    return (45 * (f(t + h) - f(t - h)) - 9 * (f(t + 2 * h) - f(t - 2 * h)) + f(t + 3 * h) - f(t - 3 * h)) / (60 * h)


def lattice(schedule, t, n=40_001):
    """Points that cover the law at `t`, and their spacing."""
    sigma, alpha = (float(f(torch.tensor(t))) for f in (schedule.sigma, schedule.alpha))
    reach = alpha + 9 * sigma
    x = torch.linspace(-reach, reach, n, dtype=F64)
    return x, x[1] - x[0]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize(("t", "k"), list(itertools.product(TIMES, range(3))))
def test_rate_and_destination_follow_the_slope_of_the_density(schedule, t, k):
    """lambda = [d/dt log p]_- and J = [dp/dt]_+ / its integral."""
    x, h = lattice(schedule, t)
    p = density(schedule, x, t, ATOMS[k])
    d_p = slope(lambda s: density(schedule, x, s, ATOMS[k]), t)
    process, x1 = process_on(schedule), ATOMS[k].expand(len(x), 1)
    jump = gm.conditional_generator(process, x.unsqueeze(-1), full(t, len(x)), x1)
    seen = p > 1e-12
    expected = (-d_p / p).clamp(min=0)
    scale = (d_p.abs() / p)[seen].max()
    assert float((jump.intensity[:, 0] - expected)[seen].abs().max() / scale) < 1e-7
    rise = d_p.clamp(min=0)
    # At the kinks of the positive part the rule of trapezoids is of order h^2.
    far = gm.conditional_generator(process, x[jump.intensity[:, 0].argmax()].reshape(1, 1), full(t, 1), x1[:1])
    landing = far.destination.density(x.expand(1, 1, -1))[0, 0]
    assert float((landing - rise / (rise.sum() * h)).abs().max() / landing.max()) < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("t", TIMES)
def test_the_marginal_solves_the_forward_equation(schedule, t):
    """Inflow - outflow = dp/dt, with the posterior of three atoms."""
    x, h = lattice(schedule, t)
    p, d_p = (sum(w * f(z) for w, z in zip(WEIGHTS, ATOMS, strict=True)) for f in (
        lambda z: density(schedule, x, t, z), lambda z: slope(lambda s: density(schedule, x, s, z), t),
    ))  # fmt: skip
    jump = gm.marginal_generator(process_on(schedule), ATOMS.unsqueeze(-1), x.unsqueeze(-1), full(t, len(x)), weights=WEIGHTS)
    flows = jump.destination.logits.exp()[:, 0]  # p(z | x) lambda^z(x)
    places = torch.arange(0, len(x), 400)
    each = Flux(torch.eye(3, dtype=F64).log().unsqueeze(1), *(v[:1] for v in (jump.destination.centre, jump.destination.sigma, jump.destination.tilt)))
    landing = each.density(x[places].expand(3, 1, -1))[:, 0]
    inflow = (flows * p.unsqueeze(-1)).sum(0) * h @ landing
    residual = inflow - (jump.intensity[:, 0] * p)[places] - d_p[places]
    assert float(residual.abs().max() / d_p.abs().max()) < 1e-6


def test_rate_and_destination_averaged_apart_are_wrong():
    """Trap 4: the landing law of averaged parts is another one."""
    process, t = process_on(CondOT()), 0.5
    x = torch.linspace(-2, 2, 41, dtype=F64).unsqueeze(-1)
    model = gm.oracle(process, ATOMS.unsqueeze(-1), WEIGHTS)
    right = process.generator(model(x, full(t, 41)), x, full(t, 41)).destination
    apart = Flux(model(x, full(t, 41)), right.centre, right.sigma, right.tilt)
    y = torch.linspace(-4, 4, 2001, dtype=F64)
    gaps = (right.density(y.expand(41, 1, -1)) - apart.density(y.expand(41, 1, -1))).abs().sum(-1) * (y[1] - y[0]) / 2
    assert float(gaps.nan_to_num(nan=0).max()) > 0.2


def test_drawn_landings_have_the_closed_form_law():
    process = process_on(CondOT())
    n = 50_000
    jump = gm.conditional_generator(process, full(2.0, n).unsqueeze(-1), full(0.5, n), ATOMS[2].expand(n, 1))
    drawn = jump.destination.sample(torch.ones(n, 1, dtype=torch.bool), rng=seeded()).sort().values
    y, c = (drawn - 0.5 * ATOMS[2]) / 0.5, ATOMS[2]
    normal = torch.exp(-(y**2) / 2)
    edges = torch.stack([(c - torch.sqrt(c**2 + 4)) / 2, (c + torch.sqrt(c**2 + 4)) / 2])
    g = lambda v: (v - c) * torch.exp(-(v**2) / 2)  # noqa: E731
    cdf = ((y - c) * normal - g(edges[0])) / (g(edges[1]) - g(edges[0]))
    empirical = (torch.arange(n, dtype=F64) + 0.5) / n
    assert float((cdf - empirical).abs().max()) < 2.2 / n**0.5


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
def test_quadrature_of_a_landing_is_exact(schedule):
    """The action of the generator integrates: total mass 1, and the mean of the closed form (c + c^3 ...) by a finer sum."""
    process, t = process_on(schedule), 0.6
    jump = gm.conditional_generator(process, full(3.0, 1).unsqueeze(-1), full(t, 1), ATOMS[:1].unsqueeze(0))
    values, weights = jump.destination.atoms()
    x, h = lattice(schedule, t, 400_001)
    fine = jump.destination.density(x.expand(1, 1, -1))[0, 0]
    assert float(weights.sum()) == pytest.approx(1, abs=1e-9)
    assert float((weights * torch.cos(values)).sum()) == pytest.approx(float((fine * torch.cos(x)).sum() * h), abs=1e-7)


PATH = gm.paths.Gaussian((1,), dtype=F64)
FLOW, SDE, JUMPS = gm.Flow(PATH), gm.Diffusion(PATH, noise=0.7), gm.JumpProcess(PATH, bins=ATOMS)
MIXED = {
    "jump": JUMPS,
    "half flow, half jump": gm.Superposition([FLOW, JUMPS], weights=[0.5, 0.5]),
    "jump and diffusion": gm.Superposition([JUMPS, SDE], weights=[0.3, 0.7]),
    "thirds": gm.Superposition([FLOW, SDE, JUMPS], weights=[1 / 3, 1 / 3, 1 / 3]),
    "weights in time": gm.Superposition([FLOW, JUMPS], weights=[lambda t: t, lambda t: 1 - t]),
    "flow with Langevin": gm.Superposition([FLOW, gm.Langevin(PATH)], weights=[1.0, 0.5]),
}


def kolmogorov_smirnov(process, n=20_000, steps=250, t=0.9):
    """Distance of particles simulated to `t` from the exact law; its 5 % critical value is 1.36 / sqrt(n) = 0.0096."""
    times = 1 - torch.logspace(0, math.log10(1 - t), steps + 1, dtype=F64)
    times[0] = 0
    start = torch.randn(n, 1, dtype=F64, generator=seeded(1))
    x = gm.simulate(process, gm.oracle(process, ATOMS.unsqueeze(-1), WEIGHTS), start, times, solver="euler", rng=seeded(2)).states[-1].sort(0).values
    exact = torch.special.ndtr((x - t * ATOMS) / (1 - t)) @ WEIGHTS
    return float((exact - (torch.arange(n, dtype=F64) + 0.5) / n).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("process", MIXED.values(), ids=MIXED.keys())
def test_marginals_by_simulation(process):
    assert kolmogorov_smirnov(process) < 0.016


def test_weights_of_one_and_one_would_be_wrong():
    class Both(gm.Superposition):
        def _check_weights(self):
            pass

    assert kolmogorov_smirnov(Both([FLOW, JUMPS], weights=[1.0, 1.0]), n=5000, steps=100) > 0.08


COUPLED = gm.paths.Gaussian((1,), coupling=gm.couplings.OptimalTransport())
GRID = Grid((2,), [-1.0, 0.2, 0.9])


@pytest.mark.parametrize(
    "process",
    [
        JUMPS,
        gm.JumpProcess(gm.paths.Gaussian((2,), schedule=Cosine()), bins=GRID.levels),
        gm.JumpProcess(gm.paths.RealMixture(GRID)),
        gm.JumpProcess(gm.paths.RealMixture(GRID, schedule=Polynomial(2))),
        *(process for process in MIXED.values() if process is not JUMPS),
    ],
    ids=repr,
)
def test_every_identity_holds(process):
    report = gm.check_process(process, level="quick")
    assert report.passed, str(report)


def test_thinning_has_no_error_in_the_step():
    """One step from 0 to 0.9: Euler is far off, thinning exact."""
    n, times = 5_000, torch.tensor([0.0, 0.9], dtype=F64)
    start = torch.randn(n, 1, dtype=F64, generator=seeded(3))
    gaps = {}
    for solver in ("thinning", "euler"):
        x = gm.simulate(JUMPS, gm.oracle(JUMPS, ATOMS.unsqueeze(-1), WEIGHTS), start, times, solver=solver, rng=seeded(4)).states[-1].sort(0).values
        exact = torch.special.ndtr((x - 0.9 * ATOMS) / 0.1) @ WEIGHTS
        gaps[solver] = float((exact - (torch.arange(n, dtype=F64) + 0.5) / n).abs().max())
    assert gaps["thinning"] < 2.2 / n**0.5 < 0.1 < gaps["euler"]


def test_thinning_refuses_a_bound_that_does_not_hold_and_a_step_without_end():
    class Bold(gm.JumpProcess):
        def intensity_bound(self, x, t, s):
            return super().intensity_bound(x, t, s) / 4

    model = gm.oracle(JUMPS, ATOMS.unsqueeze(-1), WEIGHTS)
    times, start = torch.tensor([0.0, 0.9], dtype=F64), torch.randn(50, 1, dtype=F64, generator=seeded())
    with pytest.raises(gm.GenmatchError, match="`intensity_bound` is too small"):
        gm.simulate(Bold(PATH, bins=ATOMS), model, start, times, solver="thinning", rng=seeded())
    with pytest.raises(gm.GenmatchError, match="more than 2 network calls"):
        gm.simulate(JUMPS, model, start, times, solver=gm.solvers.thinning.Thinning(max_calls=2), rng=seeded())
    with pytest.raises(gm.GenmatchError, match="needs `intensity_bound`"):
        gm.sample(gm.CTMC(gm.paths.Mixture((2,), 3), rates="reversal"), lambda x, t: torch.zeros(4, 2, 3), 4, steps=2, seed=0, solver="thinning")


def test_samples_end_on_the_levels_with_the_law_of_the_data():
    data = torch.tensor([[-1.0, 0.9], [0.2, 0.2], [0.9, -1.0]])
    for process in (gm.JumpProcess(gm.paths.Gaussian((2,)), bins=GRID.levels), gm.JumpProcess(gm.paths.RealMixture(GRID))):
        x = gm.sample(process, gm.oracle(process, data), 3000, steps=100, seed=0)
        counts = (x.unsqueeze(1) == GRID.prepare(data)).all(-1).sum(0)
        assert int(counts.sum()) > 2900
        assert float((counts / 3000 - 1 / 3).abs().max()) < 0.05


def test_the_same_loop_trains_it():
    process = gm.JumpProcess(gm.paths.Gaussian((2,)), bins=GRID.levels)
    data = GRID.random(500, rng=seeded())
    data[:, 1] = data[:, 0]
    model = gm.nn.MLP(process.space, process.output_shape, width=64, depth=2)
    result = gm.train(process, model, data, steps=600, seed=0, batch_size=128)
    x = gm.sample(process, result.model, 1000, steps=50, seed=1)
    assert float((x[:, 0] == x[:, 1]).double().mean()) > 0.85


def test_destinations_on_the_line():
    levels = Levels(torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([-1.0, 0.0, 1.0]))
    assert levels.excluding(torch.tensor([[1.0]])).atoms()[1][0, 0, 2] == 0
    bins = Binned(torch.tensor([[[0.0, math.log(3.0)]]], dtype=F64), torch.tensor([0.0, 1.0, 3.0], dtype=F64))
    values, weights = bins.atoms()
    assert float((values * weights).sum()) == pytest.approx(0.25 * 0.5 + 0.75 * 2)
    assert float((values**2 * weights).sum()) == pytest.approx(0.25 / 3 + 0.75 * 26 / 6)
    drawn = bins.sample(torch.ones(1, 1, dtype=torch.bool).expand(4000, 1)[:1], rng=seeded())
    assert 0 <= float(drawn) < 3
    many = Binned(bins.logits.expand(20_000, 1, 2), bins.edges).sample(torch.ones(20_000, 1, dtype=torch.bool), rng=seeded())
    assert float((many < 1).double().mean()) == pytest.approx(0.25, abs=0.015)
    assert float(bins.mass(torch.tensor([[[0.5]]], dtype=F64))) == 0
    with pytest.raises(gm.GenmatchError, match="`edges` must be 3 increasing numbers"):
        Binned(torch.zeros(1, 1, 2), torch.tensor([0.0, 0.0, 1.0]))


def test_divergence_of_two_jump_processes():
    """Path-space KL by the density of the landings: zero for itself, and as quadrature says against another."""
    x, t = torch.linspace(-2, 2, 9, dtype=F64).unsqueeze(-1), full(0.5, 9)
    one = gm.conditional_generator(JUMPS, x, t, ATOMS[2].expand(9, 1))
    two = gm.marginal_generator(JUMPS, ATOMS.unsqueeze(-1), x, t, weights=WEIGHTS)
    assert float(one.kl(one, x).abs().max()) < 1e-12
    y = torch.linspace(-6, 6, 200_001, dtype=F64)
    rates = [g.intensity.unsqueeze(-1) * g.destination.density(y.expand(9, 1, -1)) for g in (one, two)]
    a, b = (rate[:, 0].nan_to_num(nan=0.0) for rate in rates)
    expected = (torch.special.xlogy(a, a / b).nan_to_num(nan=0.0) - a + b).sum(-1) * (y[1] - y[0])
    # The logarithm of the ratio has kinks where another level begins to rise, which the nodes do not know.
    torch.testing.assert_close(one.kl(two, x), expected, atol=1e-6, rtol=2e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gm.JumpProcess(gm.paths.Mixture((2,), 3)), "needs a path on R\\^d"),
        (lambda: gm.JumpProcess(PATH), "`bins` must give the levels"),
        (lambda: gm.JumpProcess(PATH, bins=1), "at least two increasing finite numbers"),
        (lambda: gm.JumpProcess(PATH, bins=torch.tensor([0.0, 0.0])), "at least two increasing finite numbers"),
        (lambda: gm.JumpProcess(gm.paths.RealMixture(GRID), bins=5), "leave `bins` out"),
        (lambda: gm.paths.RealMixture("grid"), "needs the grid"),
        (lambda: gm.paths.RealMixture(GRID, schedule=VE()), "has no kappa"),
        (lambda: GRID.prepare(torch.tensor([[5.0, 0.0]])), r"must lie in \[-1.6, 1.25\]"),
        (lambda: GRID.validate(torch.tensor([[0.5, 0.2]])), "must hold the levels"),
        (lambda: gm.Superposition([gm.JumpProcess(PATH, bins=ATOMS), gm.JumpProcess(PATH, bins=ATOMS + 1)], weights=[0.5, 0.5]), "lead to the same data"),
        (lambda: gm.Superposition([gm.Langevin(PATH)], weights=[1.0]), "over all processes but correctors, got 0"),
        (lambda: gm.JumpProcess(COUPLED, bins=ATOMS), "a jump process needs noise that is independent"),
        (lambda: gm.Langevin(COUPLED), "a corrector needs noise that is independent"),
        (lambda: gm.Langevin(PATH, noise=-1.0), r"`noise` must be a number in \[0, inf\), got -1.0"),
        (lambda: gm.Langevin(gm.paths.Mixture((2,), 3)), "needs a Gaussian path"),
        (lambda: gm.sample(gm.Langevin(PATH), lambda x, t: x, 3, steps=2), "generates nothing by itself"),
    ],
)
def test_wrong_requests_say_why(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()


def test_likelihood_bounds_count_levels():
    """Of three equally likely levels: the entropy on the mixture path, more on a Gaussian one, whose jumps are no time reversal."""
    data = torch.tensor([[-1.0], [0.2], [0.9]])
    bounds = {}
    for path, bins in ((gm.paths.RealMixture(Grid((1,), ATOMS)), None), (gm.paths.Gaussian((1,)), ATOMS)):
        process = gm.JumpProcess(path, bins)
        bound = gm.elbo(process, gm.oracle(process, data), data.repeat(20, 1), draws=64, seed=0)
        bounds[type(path).__name__] = bound
        assert bound.mean > math.log(3) - 4 * bound.mean_error
    assert bounds["RealMixture"].tight
    assert bounds["RealMixture"].mean == pytest.approx(math.log(3), abs=4 * bounds["RealMixture"].mean_error)
    assert not bounds["Gaussian"].tight
    corrector = gm.Langevin(gm.paths.Gaussian((1,)))
    with pytest.raises(gm.GenmatchError, match="is a corrector"):
        gm.elbo(corrector, gm.oracle(corrector, data), data)
    mixed = gm.Superposition([gm.Diffusion(PATH), JUMPS], weights=[0.5, 0.5])
    with pytest.raises(gm.GenmatchError, match="in different units"):
        gm.elbo(mixed, gm.oracle(mixed, data), data)
    flow = gm.LevelFlow(gm.paths.Gaussian((1,)), ATOMS)
    with pytest.raises(gm.GenmatchError, match="cannot be followed"):
        gm.log_likelihood(flow, gm.oracle(flow, data), data)
