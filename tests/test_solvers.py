"""Orders of the solvers on the exact Gaussian mixture, read from their declarations."""

import itertools
import math

import pytest
import torch

import genmatch as gm
from genmatch.schedules import VE, CondOT, Cosine
from genmatch.solvers.ode import Dopri5
from genmatch.solvers.sde import SDEExponential
from tests.toys import GaussianMixture, full, grid, line, name_of, seeded

F64 = torch.float64
SLACK = {1: 0.95, 2: 1.85, 3: 2.85, 4: 3.8}
"""The order that must be measured for a declared one."""

flow = gm.Flow(line())
STOCHASTIC = {"sde-exponential", "churn"}
FIXED = [name for name in gm.solvers.available(flow) if gm.solvers.get(name).calls and name not in STOCHASTIC]
LEVELS = (torch.arange(400, dtype=F64) + 0.5) / 400


def quantile_errors(schedule, solver, times, prediction="velocity"):
    """Wasserstein-2 distance to the exact law at each time, by 400 quantiles: a flow on the line carries them along."""
    law = GaussianMixture(schedule)
    process = gm.Flow(line(schedule), prediction=prediction)
    start = law.quantiles(LEVELS, float(times[0])).unsqueeze(-1)
    run = gm.simulate(process, law.model(prediction), start, times, solver=solver)
    exact = [law.quantiles(LEVELS, time) for time in (float(times[len(times) // 2]), float(times[-1]))]
    return [math.sqrt(float(((x[:, 0] - q) ** 2).mean())) for x, q in zip((run.states[len(times) // 2], run.states[-1]), exact, strict=True)]


def order_of(error, coarse):
    return math.log2(error(coarse) / error(2 * coarse))


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=name_of)
@pytest.mark.parametrize("name", FIXED)
def test_ode_solvers_have_the_order_that_they_declare(name, schedule):
    errors = [quantile_errors(schedule, name, grid(0.05, 0.95, steps)) for steps in (128, 256)]
    wanted = SLACK.get(gm.solvers.get(name).order, 0.95 * gm.solvers.get(name).order)
    middle, end = (math.log2(a / b) for a, b in zip(*errors, strict=True))
    print(f"{name} on {schedule}: error {errors[1][1]:.2e}, order {end:.2f} at the end and {middle:.2f} in the middle")
    assert end >= wanted
    assert middle >= wanted, "the law is right at every time of the grid"


def test_every_drift_solver_is_measured():
    adaptive = {name for name in gm.solvers.available(flow) if gm.solvers.get(name).calls is None}
    assert adaptive == {"dopri5", "adaptive"}
    assert {"exact", "euler", "midpoint", "heun", "rk4", "adams", "adams-4", "circle-rk4", "circle-rk5", "2m", "exponential-heun"} <= set(FIXED)


@pytest.mark.parametrize("name", FIXED)
def test_orders_hold_on_the_whole_interval(name):
    """The exact last step costs nothing: a solver of order four hands over to it only shortly before the end."""
    declared = gm.solvers.get(name).order
    coarse = {1: 128, 2: 128, 3: 128, 4: 16, 5: 16}[declared]
    error = lambda steps: quantile_errors(CondOT(), name, grid(0.0, 1.0, steps))[1]  # noqa: E731
    order = order_of(error, coarse)
    print(f"{name} on [0, 1]: error {error(2 * coarse):.2e}, order {order:.2f}")
    # Near t = 1 equal steps of time are long ones in log-SNR, in which these two follow the prediction of the data.
    assert order >= ({1: 0.95, 2: 1.85, 3: 2.85, 4: 3.5, 5: 4.0}[declared] if name not in ("2m", "exponential-heun") else 1.3)


def test_the_measure_tells_orders_apart():
    error = lambda steps: quantile_errors(CondOT(), "euler", grid(0.05, 0.95, steps))[1]  # noqa: E731
    assert order_of(error, 64) < 1.2
    assert quantile_errors(CondOT(), "rk4", grid(0.05, 0.95, 32))[1] < 1e-5
    assert quantile_errors(CondOT(), "euler", grid(0.05, 0.95, 32))[1] > 1e-2


def test_exact_is_euler_on_straight_lines_and_not_elsewhere():
    times = grid(0.0, 1.0, 8)
    assert quantile_errors(CondOT(), "exact", times)[1] == pytest.approx(quantile_errors(CondOT(), "euler", times)[1], rel=1e-10)
    assert quantile_errors(Cosine(), "exact", times)[1] != pytest.approx(quantile_errors(Cosine(), "euler", times)[1], rel=1e-2)


def test_ddim_keeps_its_order_where_euler_is_poor():
    error = lambda steps: quantile_errors(VE(0.01, 50.0), "exact", grid(0.05, 0.95, steps))[1]  # noqa: E731
    assert order_of(error, 128) >= 0.95


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=name_of)
def test_dopri5_keeps_its_tolerance(schedule):
    loose, tight = (quantile_errors(schedule, Dopri5(rtol=tol, atol=tol), grid(0.0, 1.0, 4))[1] for tol in (1e-3, 1e-8))
    assert tight < 1e-7
    assert loose < 1e-2
    assert tight < loose / 100


POINTS = torch.linspace(-4.2, 4.2, 673, dtype=F64)


def density_errors(monkeypatch, process, solver, steps, low=0.1, high=0.9):
    """Total variation to the exact law at the middle and the end, with the density carried along on a grid.

    A step of these solvers is Gaussian given the state: its mean and standard deviation are read off with the noise set to 0 and 1.
    """
    law = GaussianMixture(process.path.schedule)
    n, width = len(POINTS), float(POINTS[1] - POINTS[0])
    p = law.log_prob(POINTS, full(low, n)).exp()
    x, times, errors = POINTS.unsqueeze(-1), torch.linspace(low, high, steps + 1, dtype=F64).tolist(), []
    for i, (t, s) in enumerate(itertools.pairwise(times), start=1):
        draws = []
        for noise in (0.0, 1.0):
            monkeypatch.setattr(torch, "randn", lambda shape, noise=noise, **how: torch.full(shape, noise, dtype=how["dtype"]))
            draws.append(solver.step(process, law.data, x, full(t, n), full(s, n))[:, 0])
        mean, std = draws[0], draws[1] - draws[0]
        kernel = torch.exp(-0.5 * ((POINTS.unsqueeze(-1) - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        p = kernel @ p * width
        if i in (steps // 2, steps):
            errors.append(0.5 * width * float((p - law.log_prob(POINTS, full(s, n)).exp()).abs().sum()))
    return errors


def memoryless(t):
    return torch.sqrt(2 * (1 - t) / t)


def fading(t):
    return torch.sqrt(2 * (1 - t))


IN_LAW = ("exponential-heun", "stochastic-heun")
"""Two stages with one noise are not Gaussian given the state: `tests/test_continuous_solvers.py` carries their law along."""

NOISES = {"g2=.25": 0.5, "memoryless": memoryless, "fading": fading}
SDE = [
    (name, noise, gm.solvers.get(name)) for name in gm.solvers.available(gm.Diffusion(line())) if name not in ("sde-exponential", *IN_LAW) for noise in NOISES
]
SDE += [("euler-maruyama", "g2=1", gm.solvers.get("euler-maruyama"))]
SDE += [("sde-exponential", "eta=1", SDEExponential(1.0)), ("sde-exponential", "eta=.5", SDEExponential(0.5))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "noise", "solver"), SDE, ids=[f"{name}-{noise}" for name, noise, _ in SDE])
def test_sde_solvers_have_the_order_that_they_declare(monkeypatch, name, noise, solver):
    process = gm.Diffusion(line(), noise=NOISES.get(noise, 1.0))
    coarse, fine = (density_errors(monkeypatch, process, solver, steps) for steps in (64, 128))
    middle, end = (math.log2(a / b) for a, b in zip(coarse, fine, strict=True))
    print(f"{name}, {noise}: total variation {fine[1]:.1e}, order {end:.2f} at the end and {middle:.2f} in the middle")
    assert end >= 0.9 * solver.order
    assert middle >= 0.9 * solver.order
    assert fine[1] < 1.2e-2


@pytest.mark.slow
def test_fading_noise_keeps_the_order_of_the_exact_step_to_the_end(monkeypatch):
    orders = {}
    for name, noise in (("fading", fading), ("constant", 1.0)):
        process, solver = gm.Diffusion(line(), noise=noise), gm.solvers.get("exact")
        coarse, fine = (density_errors(monkeypatch, process, solver, steps, high=0.975)[1] for steps in (64, 128))
        orders[name] = math.log2(coarse / fine)
    print(orders)
    assert orders["fading"] >= 0.9
    assert orders["constant"] < 0.75


def test_every_sde_solver_is_measured():
    assert {name for name, _, _ in SDE} | set(IN_LAW) == set(gm.solvers.available(gm.Diffusion(line())))


@pytest.mark.parametrize("noise", [0.0, 0.3, fading])
def test_samples_of_a_diffusion_have_the_law_at_every_time(noise):
    """Two moments of 20,000 paths at each time of a fine grid, within four standard errors and the bias of a step."""
    process, law, n = gm.Diffusion(line(), noise=noise), GaussianMixture(CondOT()), 20_000
    run = gm.simulate(process, law.data, process.path.source(n, rng=seeded(1)), grid(0.0, 1.0, 64), rng=seeded(2))
    for time, x in zip(run.times[[16, 32, 48, 64]].tolist(), (run.states[k] for k in (16, 32, 48, 64)), strict=True):
        variance = time**2 * law.stds**2 + (1 - time) ** 2
        mean = float((law.weights * time * law.means).sum())
        second = float((law.weights * ((time * law.means) ** 2 + variance)).sum())
        assert abs(float(x.mean()) - mean) < 4 * math.sqrt((second - mean**2) / n) + 0.01
        assert abs(float((x**2).mean()) - second) < 4 * float((x**2).std()) / math.sqrt(n) + 0.015
