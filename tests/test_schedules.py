import math

import pytest
import torch

import genmatch as gm
from genmatch.schedules import VE, VP, CondOT, Cosine, Polynomial, Schedule
from tests.toys import SCHEDULES, TOKEN_SCHEDULES, name_of

every = pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
tokens = pytest.mark.parametrize("schedule", TOKEN_SCHEDULES, ids=name_of)
TIMES = torch.tensor([0.02, 0.2, 0.5, 0.77, 0.98], dtype=torch.float64)


@every
@pytest.mark.parametrize("name", ["alpha", "sigma"])
def test_derivatives_match_central_differences(schedule, name):
    h = 1e-6
    value, slope = getattr(schedule, name), getattr(schedule, f"d_{name}")(TIMES)
    measured = (value(TIMES + h) - value(TIMES - h)) / (2 * h)
    assert torch.allclose(slope, measured, rtol=1e-6, atol=1e-8)


CLOSED = [
    (CondOT(), lambda t: (t, 1 - t)),
    (Cosine(), lambda t: (math.sin(math.pi * t / 2), math.cos(math.pi * t / 2))),
    (Polynomial(3.0), lambda t: (t**3, 1 - t**3)),
    (VP(0.1, 20.0), lambda t: (math.exp(-0.5 * (0.1 * (1 - t) + 9.95 * (1 - t) ** 2)), math.sqrt(1 - math.exp(-(0.1 * (1 - t) + 9.95 * (1 - t) ** 2))))),
    (VE(0.01, 50.0), lambda t: (1.0, 50 * (0.01 / 50) ** t)),
]


@pytest.mark.parametrize(("schedule", "closed"), CLOSED, ids=name_of)
def test_values_match_the_closed_forms(schedule, closed):
    expected = torch.tensor([closed(t) for t in TIMES.tolist()], dtype=torch.float64)
    assert torch.allclose(torch.stack([schedule.alpha(TIMES), schedule.sigma(TIMES)], -1), expected, rtol=1e-13, atol=0)


ENDS = [
    (CondOT(), (0.0, 1.0), (1.0, 0.0)),
    (Cosine(), (0.0, 1.0), (1.0, 0.0)),
    (Polynomial(2.0), (0.0, 1.0), (1.0, 0.0)),
    (Polynomial(0.5), (0.0, 1.0), (1.0, 0.0)),
    (VP(), (None, None), (1.0, 0.0)),
    (VE(0.01, 50.0), (1.0, 50.0), (1.0, 0.01)),
]


@pytest.mark.parametrize(("schedule", "start", "end"), ENDS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact_constants(schedule, start, end, dtype):
    for time, wanted in ((0.0, start), (1.0, end)):
        t = torch.tensor([time], dtype=dtype)
        for value, constant in zip((schedule.alpha(t), schedule.sigma(t)), wanted, strict=True):
            if constant is not None:
                assert value.item() == constant
                assert math.copysign(1, value.item()) == 1, "minus zero turns an infinite rate around"


@tokens
def test_kappa_is_one_minus_sigma_and_exact_at_the_ends(schedule):
    assert schedule.kappa(torch.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]
    assert torch.allclose(schedule.kappa(TIMES), 1 - schedule.sigma(TIMES), rtol=1e-14, atol=1e-16)
    assert torch.equal(schedule.d_kappa(TIMES), -schedule.d_sigma(TIMES))


def test_kappa_keeps_its_digits_near_zero():
    t = torch.tensor([1e-8], dtype=torch.float64)
    assert Cosine().kappa(t).item() == pytest.approx((math.pi * 1e-8) ** 2 / 8, rel=1e-12, abs=0)


def test_vp_keeps_its_digits_near_one():
    t = torch.tensor([1 - 1.2345e-11, 1 - 3.21e-12], dtype=torch.float64)
    expected = [math.sqrt(0.1 * (1 - time) + 9.95 * (1 - time) ** 2) for time in t.tolist()]
    assert VP(0.1, 20.0).sigma(t).tolist() == pytest.approx(expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if not isinstance(s, VE)], ids=name_of)
def test_times_in_float32_lose_nothing_near_one(schedule):
    # 1 - 2^-23 is exact in float32: any difference comes from arithmetic in float32.
    t = torch.tensor([1 - 2.0**-23])
    exact = {CondOT: 2.0**-23, Cosine: math.sin(math.pi / 2 * 2.0**-23)}.get(type(schedule))
    value = schedule.sigma(t)
    assert value.dtype == torch.float64
    assert torch.equal(value, schedule.sigma(t.double()))
    if exact is not None:
        assert value.item() == pytest.approx(exact, rel=1e-14)
    if isinstance(schedule, Polynomial):
        assert value.item() == pytest.approx(schedule.n * 2.0**-23, rel=1e-6)
    if isinstance(schedule, VP):
        assert value.item() == pytest.approx(math.sqrt(0.1 * 2.0**-23), rel=1e-5)


NEAR_ONE = 1 - 1e-6
RATES = [
    (CondOT(), lambda u: 1 / u, lambda t: 1 / t),
    (Cosine(), lambda u: math.pi / 2 / math.tan(math.pi * u / 2), lambda t: math.pi / 2 / math.tan(math.pi * t / 4)),
    (Polynomial(2.0), lambda u: 2 * (1 - u) / (u * (2 - u)), lambda t: 2 / t),
]


@pytest.mark.parametrize(("schedule", "forward", "backward"), RATES, ids=name_of)
def test_rates_match_their_closed_forms(schedule, forward, backward):
    for time in (0.1, 0.6, NEAR_ONE):
        t = torch.tensor([time], dtype=torch.float64)
        assert schedule.rate(t).item() == pytest.approx(forward(1 - time), rel=1e-9)
        assert schedule.backward_rate(t).item() == pytest.approx(backward(time), rel=1e-12)


@tokens
def test_rates_are_infinite_at_their_ends(schedule):
    assert schedule.rate(torch.ones(1)).item() == math.inf
    assert schedule.backward_rate(torch.full((1,), 1e-300, dtype=torch.float64)).item() > 1e100


@tokens
def test_jump_probability_integrates_the_rate(schedule):
    nodes, weights = (torch.from_numpy(a) for a in __import__("numpy").polynomial.legendre.leggauss(40))
    for low, high in ((0.0, 0.4), (0.3, 0.8), (0.9, 0.95)):
        mean = (schedule.rate((low + high) / 2 + (high - low) / 2 * nodes) * weights).sum() * (high - low) / 2
        q = schedule.jump_probability(*(torch.tensor([v], dtype=torch.float64) for v in (low, high)))
        assert q.item() == pytest.approx(-math.expm1(-float(mean)), rel=1e-12)
    assert schedule.jump_probability(torch.tensor([NEAR_ONE], dtype=torch.float64), torch.ones(1)).item() == 1.0


@every
def test_signal_grows(schedule):
    assert bool((schedule.delta(TIMES) > 0).all())


@pytest.mark.parametrize("schedule", [VP(), VE()], ids=name_of)
def test_kappa_is_refused_where_there_is_none(schedule):
    with pytest.raises(gm.GenmatchError, match=r"has no kappa.*use CondOT"):
        schedule.kappa(TIMES)
    with pytest.raises(gm.GenmatchError, match="has no kappa"):
        gm.paths.Mixture((2,), 3, schedule=schedule)


@every
def test_values_have_the_shape_of_the_times(schedule):
    t = torch.full((2, 3), 0.5)
    for name in ("alpha", "sigma", "d_alpha", "d_sigma"):
        value = getattr(schedule, name)(t)
        assert value.shape == (2, 3)
        assert value.dtype == torch.float64


def test_caveats_say_what_is_approximate():
    assert not CondOT().caveats
    assert set(VP().caveats) == {"source"}
    assert set(VE().caveats) == {"source", "data"}


BAD = [(Polynomial, (0.0,)), (Polynomial, (math.inf,)), (VP, (2.0, 1.0)), (VP, (0.0, 1.0)), (VE, (1.0, 0.5)), (VE, (0.0, 1.0))]


@pytest.mark.parametrize(("kind", "arguments"), BAD)
def test_impossible_parameters_are_refused(kind, arguments):
    with pytest.raises(gm.GenmatchError, match="got"):
        kind(*arguments)


@every
def test_closed_inverses_are_those_by_bisection(schedule):
    for values, name in ((schedule.sigma(TIMES), "time_at"), (schedule.log_snr(TIMES), "time_at_log_snr")):
        beyond = torch.tensor([-1e3, 1e3] if name == "time_at_log_snr" else [1e3, 0.0], dtype=torch.float64)
        for method in (getattr(schedule, name), lambda values, name=name: getattr(Schedule, name)(schedule, values)):
            assert torch.allclose(method(values), TIMES, rtol=1e-9, atol=1e-12)
            assert method(beyond).tolist() == pytest.approx([0.0, 1.0], abs=1e-12)
