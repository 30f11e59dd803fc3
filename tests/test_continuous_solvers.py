"""Solvers of flows and diffusions beyond the textbook: memory between steps, two stages with one noise, a step for each sample, churn; grids in another clock."""

import itertools
import math

import numpy as np
import pytest
import torch

import genmatch as gm
from genmatch import grids
from genmatch.errors import Unfinished
from genmatch.schedules import VE, VP, CondOT, Cosine
from genmatch.solvers.adaptive import Adaptive
from genmatch.solvers.churn import Churn
from genmatch.solvers.circle import Adams, CircleRK4
from genmatch.solvers.multistep import Multistep
from genmatch.solvers.ode import Heun
from genmatch.solvers.predictor_corrector import ExponentialHeun, StochasticHeun
from tests.test_solvers import LEVELS, POINTS, fading, memoryless, quantile_errors
from tests.toys import SCHEDULES, GaussianMixture, full, grid, line, name_of, seeded

F64 = torch.float64
INTERVAL = (0.05, 0.95)

# maths.md, section 13: error at the end for 32 and 256 equal steps of the interior.
MEASURED = {("2m", CondOT()): (1.7e-3, 3.1e-5), ("2m", Cosine()): (None, 2.7e-5), ("heun", CondOT()): (8.5e-4, 1.5e-5)}


@pytest.mark.parametrize(("key", "errors"), MEASURED.items(), ids=str)
def test_errors_are_those_that_were_computed_independently(key, errors):
    name, schedule = key
    for steps, error in zip((32, 256), errors, strict=True):
        if error is not None:
            assert quantile_errors(schedule, name, grid(*INTERVAL, steps))[1] == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("name", ["2m", "adams", "adams-4", "circle-rk4", "circle-rk5", "exponential-heun"])
def test_solvers_on_predictions_are_more_accurate_than_the_first_order_on_every_schedule(name, schedule):
    errors = {solver: quantile_errors(schedule, solver, grid(*INTERVAL, 64), "data")[1] for solver in (name, "exact")}
    print(errors)
    assert errors[name] < errors["exact"] / 4


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise", "score"])
@pytest.mark.parametrize("name", ["2m", "adams", "adams-4", "circle-rk4", "circle-rk5", "exponential-heun"])
def test_what_the_network_predicts_makes_no_difference(name, prediction):
    velocity, other = (quantile_errors(Cosine(), name, grid(*INTERVAL, 16), kind) for kind in ("velocity", prediction))
    assert other == pytest.approx(velocity, rel=1e-8)


@pytest.mark.parametrize(("solver", "other"), [(Adams(), Adams(scale=1.0)), (Adams(slopes=4), Adams(1.0, 4)), (CircleRK4(), CircleRK4(scale=1.0))], ids=str)
def test_on_the_circle_gaussian_data_of_its_scale_stand_still(solver, other):
    flow, x0 = gm.Flow(line(), prediction="data"), torch.randn(50, 1, dtype=F64, generator=seeded())
    model = lambda x, t: 0.25 * t.unsqueeze(-1) * x / (0.25 * t**2 + (1 - t) ** 2).unsqueeze(-1)  # noqa: E731
    end = 1.0 if solver.finishes else 0.9
    still = math.hypot(0.5 * end, 1 - end) * x0
    for times in (grid(0.0, end, 2), grid(0.0, end, 7)):
        assert torch.allclose(gm.simulate(flow, model, x0, times, solver=solver).states[-1], still, atol=1e-14)
    moved = gm.simulate(flow, model, x0, grid(0.0, end, 7), solver=other).states[-1]
    assert not torch.allclose(moved, still, atol=1e-5)


def test_adams_refuses_a_number_of_slopes_that_it_does_not_know():
    with pytest.raises(gm.GenmatchError, match="`slopes` must be 2, 3 or 4, got 5"):
        Adams(slopes=5)


@pytest.mark.parametrize("solver", [Multistep(), Adams(), Adams(slopes=4)], ids=["2m", "adams", "adams-4"])
def test_a_memory_lasts_one_trajectory_and_no_longer(solver):
    flow, law = gm.Flow(line()), GaussianMixture(CondOT())
    run = lambda n: gm.simulate(flow, law.velocity, law.quantiles(LEVELS[:n], 0.1).unsqueeze(-1), grid(0.1, 0.9, 5), solver=solver).states[-1]  # noqa: E731
    first, shorter, again = run(400), run(100), run(400)
    assert torch.equal(first, again)
    assert torch.equal(shorter, first[:100])


@pytest.mark.parametrize("make", [Multistep, Adams])
def test_a_memory_of_other_states_is_not_used(make):
    """A step that does not start where the last one ended is a first step."""
    flow, law = gm.Flow(line()), GaussianMixture(CondOT())
    x = law.quantiles(LEVELS, 0.3).unsqueeze(-1)
    step = lambda solver, t, s: solver.step(flow, law.velocity, x, full(t, 400), full(s, 400))  # noqa: E731
    used = make()
    step(used, 0.1, 0.2)
    assert torch.equal(step(used, 0.3, 0.4), step(make(), 0.3, 0.4))
    follows = make()
    step(follows, 0.2, 0.3)
    assert not torch.equal(step(follows, 0.3, 0.4), step(make(), 0.3, 0.4))


def test_two_runs_of_one_solver_may_be_interleaved():
    flow, law, solver = gm.Flow(line()), GaussianMixture(CondOT()), Multistep()
    ends = []
    for trajectory in (solver.start(), solver.start()):
        x = law.quantiles(LEVELS, 0.1).unsqueeze(-1)
        for t, s in itertools.pairwise((0.1, 0.4, 0.7)):
            solver.start().step(flow, law.velocity, x + 1, full(t, 400), full(s, 400))
            x = trajectory.step(flow, law.velocity, x, full(t, 400), full(s, 400))
        ends.append(x)
    assert torch.equal(*ends)


def test_2m_refuses_the_step_into_infinite_log_snr_with_the_reason():
    flow, law = gm.Flow(line()), GaussianMixture(CondOT())
    with pytest.raises(gm.GenmatchError, match=r"sigma = 0, where log-SNR is infinite.*`gm.simulate` take the last step"):
        Multistep().step(flow, law.velocity, torch.zeros(3, 1, dtype=F64), full(0.9, 3), full(1.0, 3))


CHAIN = gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))
SPHERE = gm.Flow(gm.paths.Geodesic(gm.spaces.Sphere(2)))
COUPLED = gm.Flow(gm.paths.Gaussian((2,), coupling=gm.couplings.OptimalTransport()))


@pytest.mark.parametrize(
    ("process", "name", "reason"),
    [
        (CHAIN, "heun", "simulates drift only, and CTMC has jump too"),
        (CHAIN, "stochastic-heun", "simulates brownian and drift only"),
        (SPHERE, "2m", "simulates drift only, and Flow has geodesic drift"),
        (gm.Diffusion(line()), "adams", "simulates drift only, and Diffusion has brownian too"),
        (COUPLED, "churn", "needs `renoise`, which Flow"),
    ],
)
def test_solvers_that_do_not_fit_are_refused_with_the_reason(process, name, reason):
    with pytest.raises(gm.GenmatchError, match=reason):
        gm.solvers.resolve(process, name)


def test_a_coupling_is_no_obstacle_to_solvers_on_predictions():
    assert {"2m", "adams", "exponential-heun", "adaptive"} <= set(gm.solvers.available(COUPLED))


def test_a_flow_by_classification_has_them_too():
    level_flow = gm.LevelFlow(line(), torch.tensor([-1.0, 0.0, 1.0]))
    assert {"2m", "adams", "exponential-heun"} <= set(gm.solvers.available(level_flow))
    x0, points = level_flow.path.source(64, rng=seeded()), torch.tensor([[-1.0], [1.0]], dtype=F64)
    run = lambda solver, steps: gm.simulate(level_flow, gm.oracle(level_flow, points), x0, grid(0.0, 0.9, steps), solver=solver).states[-1]  # noqa: E731
    truth = run("rk4", 200)
    for name in ("2m", "adams"):
        assert (run(name, 40) - truth).abs().max() < (run("exact", 40) - truth).abs().max() / 8


NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(9))


def expectation_error(monkeypatch, process, solver, steps, low=0.1, high=0.9):
    """The largest error of four expectations, with the law carried along as weights of the points of a fine grid.

    The noise of a step is integrated by Gauss-Hermite; where a state ends is shared among its four neighbours so that cubics are kept.
    """
    law, n, width = GaussianMixture(process.path.schedule), len(POINTS), float(POINTS[1] - POINTS[0])
    p = law.log_prob(POINTS, full(low, n)).exp() * width
    for t, s in itertools.pairwise(torch.linspace(low, high, steps + 1, dtype=F64).tolist()):
        new = torch.zeros_like(p)
        for node, weight in zip(NODES.tolist(), (WEIGHTS / WEIGHTS.sum()).tolist(), strict=True):
            monkeypatch.setattr(torch, "randn", lambda shape, node=node, **how: torch.full(shape, node, dtype=how["dtype"]))
            y = solver.step(process, law.data, POINTS.unsqueeze(-1), full(t, n), full(s, n))[:, 0]
            place = ((y - POINTS[0]) / width).clamp(1, n - 3)
            left = place.floor().long()
            u = place - left
            shares = (-u * (u - 1) * (u - 2) / 6, (u + 1) * (u - 1) * (u - 2) / 2, -(u + 1) * u * (u - 2) / 2, (u + 1) * u * (u - 1) / 6)
            for k, share in enumerate(shares, start=-1):
                new.index_add_(0, left + k, weight * p * share)
        p = new
    exact = law.log_prob(POINTS, full(high, n)).exp() * width
    return max(abs(float((p - exact) @ f(POINTS))) for f in (torch.sin, torch.square, lambda x: torch.cos(2 * x), lambda x: torch.exp(-(x**2))))


@pytest.mark.parametrize("noise", [0.5, memoryless, fading], ids=["g=.5", "memoryless", "fading"])
@pytest.mark.parametrize("solver", [ExponentialHeun(), StochasticHeun()], ids=["exponential-heun", "stochastic-heun"])
def test_two_stages_have_order_two_in_law(monkeypatch, solver, noise):
    process = gm.Diffusion(line(), noise=noise)
    coarse, fine = (expectation_error(monkeypatch, process, solver, steps) for steps in (16, 64))
    order = math.log(coarse / fine, 4)
    print(f"{solver}: {fine:.1e}, order {order:.2f}")
    assert order >= 1.8


def test_that_measure_gives_the_first_order_to_euler_maruyama(monkeypatch):
    process, solver = gm.Diffusion(line(), noise=0.5), gm.solvers.get("euler-maruyama")
    coarse, fine = (expectation_error(monkeypatch, process, solver, steps) for steps in (8, 32))
    assert 0.8 < math.log(coarse / fine, 4) < 1.3


def test_without_noise_they_are_the_solvers_of_flows():
    still, flow, law = gm.Diffusion(line(), noise=0.0), gm.Flow(line(), "data"), GaussianMixture(CondOT())
    x0 = law.quantiles(LEVELS, 0.1).unsqueeze(-1)
    for first, second in ((StochasticHeun(), Heun()), (ExponentialHeun(), ExponentialHeun())):
        ends = [gm.simulate(p, law.data, x0, grid(0.1, 0.9, 6), solver=s, rng=seeded()).states[-1] for p, s in ((still, first), (flow, second))]
        assert torch.allclose(*ends, atol=1e-12)


def stiff(x, t):
    """A field that a sample with a negative state finds stiff: it decays at rate 2,000 to a slow curve."""
    slow = torch.cos(3 * t).unsqueeze(-1)
    return torch.where(x < 0, -2000.0 * (x + 2 + 0.1 * slow), slow * x.sin())


def test_a_stiff_sample_does_not_slow_the_others():
    flow, times = gm.Flow(line()), torch.tensor([0.0, 0.5, 0.9], dtype=F64)
    easy, hard = torch.linspace(0.5, 2.0, 16, dtype=F64).unsqueeze(-1), torch.tensor([[-1.0]], dtype=F64)
    alone, together = (gm.simulate(flow, stiff, x0, times, solver="adaptive") for x0 in (easy, torch.cat([easy, hard])))
    assert torch.equal(alone.calls, together.calls[:16])
    assert torch.equal(alone.states[-1], together.states[-1][:16])
    assert together.calls[16] > 10 * together.calls[:16].max()
    assert together.nfe == together.calls[16]


def test_the_network_sees_only_samples_that_are_under_way_and_their_conditions():
    seen = []

    def model(x, t, condition):
        seen.append(len(x))
        assert len(x) == len(t) == len(condition)
        return torch.where(condition.unsqueeze(-1) > 0, -condition.unsqueeze(-1) * x, 0 * x)

    rates = torch.tensor([0.0, 1.0, 300.0], dtype=F64)
    x0 = torch.ones(3, 1, dtype=F64)
    run = gm.simulate(gm.Flow(line()), model, x0, torch.tensor([0.0, 0.9], dtype=F64), solver=Adaptive(1e-8, 1e-10), condition=rates)
    assert torch.allclose(run.states[-1][:, 0], torch.exp(-0.9 * rates), atol=1e-7)
    assert seen[0] == 3
    assert seen[-1] == 1
    assert sum(seen) == int(run.calls.sum())
    assert run.calls[0] < run.calls[1] < run.calls[2]


def test_what_is_clamped_is_held_for_each_row():
    flow = gm.Flow(gm.paths.Gaussian((2,), dtype=F64), prediction="data")
    points = torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=F64)
    x = gm.sample(flow, gm.oracle(flow, points), 64, solver="adaptive", steps=4, clamp={0: torch.tensor([-1.0, 1.0] * 32)}, seed=0)
    assert torch.equal(x[:, 0], torch.tensor([-1.0, 1.0] * 32, dtype=F64))
    assert torch.allclose(x[:, 1].abs(), torch.ones(64, dtype=F64), atol=1e-3)


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=name_of)
def test_adaptive_keeps_its_tolerance(schedule):
    loose, tight = (quantile_errors(schedule, Adaptive(tol, tol), grid(0.0, 1.0, 4))[1] for tol in (1e-3, 1e-8))
    assert tight < 1e-7
    assert tight < loose / 100
    assert loose < 1e-2


def test_a_limit_of_calls_ends_with_what_was_reached():
    x0 = torch.tensor([[1.0], [-1.0]], dtype=F64)
    times = torch.tensor([0.0, 0.001, 0.9], dtype=F64)
    with pytest.raises(Unfinished, match=r"1 of 2 samples need more than 200 network calls for the step to 0.9.*raise `rtol`") as stop:
        gm.simulate(gm.Flow(line()), stiff, x0, times, solver=Adaptive(max_calls=200))
    run = stop.value.run
    assert run.times.tolist() == [0.0, 0.001]
    assert len(run.states) == 2
    assert 200 < run.calls.max() < 500


def test_a_field_that_is_not_a_number_ends_too():
    with pytest.raises(Unfinished):
        gm.simulate(gm.Flow(line()), lambda x, t: x * math.nan, torch.ones(2, 1, dtype=F64), grid(0.0, 0.5, 2), solver=Adaptive(max_calls=100))


@pytest.mark.parametrize("schedule", [CondOT(), Cosine(), VE(0.01, 50.0)], ids=name_of)
def test_noise_that_is_added_leads_to_the_law_of_the_earlier_time(schedule):
    """Convolving the law at s with the noise of the way back gives the law at t: two moments and an expectation, exactly."""
    process, law = gm.Flow(line(schedule), "data"), GaussianMixture(schedule)
    s, t = full(0.7, 400), full(0.5, 400)
    x = law.quantiles(LEVELS, 0.7).unsqueeze(-1)
    rng = seeded()
    draws = torch.cat([process.renoise(x, s, t, rng=rng) for _ in range(100)])[:, 0].sort().values
    exact = law.quantiles((torch.arange(len(draws), dtype=F64) + 0.5) / len(draws), 0.5)
    spread = float(exact.std())
    assert float((draws - exact).abs().mean()) < 0.01 * spread
    assert float((law.quantiles(LEVELS, 0.7) - law.quantiles(LEVELS, 0.5)).abs().mean()) > 0.05 * spread


def test_churn_without_amount_is_the_solver_itself_and_keeps_its_order():
    times = grid(*INTERVAL, 16)
    assert quantile_errors(CondOT(), Churn(amount=0.0), times) == pytest.approx(quantile_errors(CondOT(), "heun", times), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adams(slopes=5), "`slopes` must be 2, 3 or 4, got 5"),
        (lambda: Churn("heun"), "`solver` must be a Solver"),
        (lambda: Churn(amount=math.nan), r"`amount` must be a number in \[0, inf\)"),
        (lambda: grids.karras(4, CondOT(), most=0.0), "more than `least`"),
        (lambda: gm.time_grid(4, "karras"), "even in the clock of a schedule, and none was given"),
        (lambda: gm.time_grid(4, "log_snr", CondOT()), "did you mean `log-snr`"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()


@pytest.mark.parametrize("steps", [1, 2, 7, 64])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("name", grids.SCHEDULED)
def test_grids_in_another_clock_run_from_noise_to_data(name, schedule, steps):
    times = gm.time_grid(steps, name, schedule)
    assert times[0] == 0
    assert times[-1] == 1
    assert len(times) == steps + 1
    assert bool((times.diff() > 0).all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
def test_they_are_even_in_that_clock(schedule):
    inner = {name: schedule.log_snr(gm.time_grid(20, name, schedule)[1:-1]) for name in grids.SCHEDULED}
    ends = schedule.log_snr(torch.tensor([0.0, 1.0], dtype=F64))
    even = {"log-snr": inner["log-snr"], "karras": torch.exp(-inner["karras"] / 7), "angle": torch.atan(0.5 * inner["angle"].exp())}
    for name, values in even.items():
        assert values.diff().diff().abs().max() < 1e-6, name
    assert float(inner["log-snr"][0]) > max(-math.log(80), float(ends[0]))
    assert float(inner["log-snr"][-1]) < min(math.log(500), float(ends[1]))


def test_any_grid_goes_with_any_solver():
    flow, points = gm.Flow(line()), torch.tensor([[-1.0], [1.0]], dtype=F64)
    for solver, name in itertools.product(["exact", "2m", "adams", "heun", "adaptive"], grids.SCHEDULED):
        x = gm.sample(flow, gm.oracle(flow, points), 16, solver=solver, grid=name, steps=12, seed=0)
        # Adams draws a line to the end instead of taking the predicted data: twelve uneven steps do not land on it.
        assert (x.abs() - 1).abs().max() < (1.0 if solver == "adams" and name != "angle" else 0.02), (solver, name)
    product = gm.Product(a=flow, b=CHAIN)
    with pytest.raises(gm.GenmatchError, match="use a path with one schedule"):
        gm.sample(product, lambda x, t: x, 2, grid="angle")


@pytest.mark.parametrize("calls", [8, 16, 32])
def test_adams_on_the_angle_grid_has_a_third_of_the_error_of_methods_with_equal_steps(calls):
    """The best of Runge-Kutta methods on equal steps, at equal calls, on the whole interval."""
    others = {name: quantile_errors(CondOT(), name, grid(0.0, 1.0, calls // gm.solvers.get(name).calls))[1] for name in ("euler", "midpoint", "heun")}
    adams = quantile_errors(CondOT(), "adams", gm.time_grid(calls, "angle", CondOT()))[1]
    print(calls, adams, others)
    assert adams <= min(others.values()) / 3


def test_the_inverse_of_log_snr():
    times = torch.tensor([1e-6, 0.01, 0.5, 0.99, 1 - 1e-6], dtype=F64)
    for schedule in (*SCHEDULES, VP(beta_min=1.0)):
        assert torch.allclose(schedule.time_at_log_snr(schedule.log_snr(times)), times, rtol=1e-9, atol=1e-12)
