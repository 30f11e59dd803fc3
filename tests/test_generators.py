import math

import pytest
import torch

import genmatch as gm
from genmatch.generators import Brownian, Categorical, Drift, Jump, KroneckerSum, Mixture, PointMass, Sum
from tests.toys import L, V, chain, matrix_of, seeded, token_data, token_law

F64 = torch.float64


def smooth(x):
    return torch.sin(x[:, 0]) + 0.3 * x[:, 0] ** 3


def three_terms(n=1):
    """u = 0.7, g^2 = 0.6, and jumps at rate 1.3 to -0.5."""
    drift, noise = Drift(torch.full((n, 1), 0.7, dtype=F64)), Brownian(torch.full((n, 1), 0.6, dtype=F64))
    return drift, noise, Jump(torch.full((n, 1), 1.3, dtype=F64), PointMass(torch.full((n, 1), -0.5, dtype=F64)))


def expected_after_step(f, x, h):
    """E f after a step of the three terms: x + h u + g sqrt(h) xi, then, with probability 1 - exp(-1.3 h), -0.5."""
    nodes, weights = (torch.from_numpy(a) for a in __import__("numpy").polynomial.hermite_e.hermegauss(60))
    there = (x + 0.7 * h + math.sqrt(0.6 * h) * nodes).unsqueeze(-1)
    stay = math.exp(-1.3 * h)
    moved = f(torch.full((1, 1), -0.5, dtype=F64))
    return float(stay * (f(there) * weights).sum() / weights.sum() + (1 - stay) * moved)


def test_action_is_the_derivative_of_the_step():
    x = torch.tensor([[0.4]], dtype=F64)
    exact = float(sum(three_terms(), start=Drift(torch.zeros(1, 1, dtype=F64))).apply(smooth, x))
    errors = [abs((expected_after_step(smooth, 0.4, h) - float(smooth(x))) / h - exact) for h in (1e-2, 1e-3, 1e-4)]
    assert errors[0] / errors[1] == pytest.approx(10, abs=0.5)
    assert errors[1] / errors[2] == pytest.approx(10, abs=0.5)


def test_step_has_the_law_that_the_action_was_compared_with():
    n, h = 200_000, 0.1
    total = three_terms(n)
    x = (total[0] + total[1] + total[2]).step(torch.full((n, 1), 0.4, dtype=F64), h, rng=seeded(1))
    jumped = x[:, 0] == -0.5
    p = 1 - math.exp(-1.3 * h)
    assert abs(float(jumped.double().mean()) - p) < 4 * math.sqrt(p * (1 - p) / n)
    rest = x[~jumped, 0]
    assert abs(float(rest.mean()) - 0.47) < 4 * math.sqrt(0.06 / len(rest))
    assert abs(float(rest.var()) / 0.06 - 1) < 4 * math.sqrt(2 / len(rest))


def test_step_sizes_may_differ_from_sample_to_sample():
    h = torch.tensor([0.0, 0.5], dtype=F64)
    x = torch.ones(2, 1, dtype=F64)
    assert Drift(2 * x).step(x, h).flatten().tolist() == [1.0, 2.0]
    noisy = Brownian(x).step(x, h, rng=seeded()).flatten()
    assert noisy[0] == 1.0
    assert noisy[1] != 1.0
    always = Jump(torch.full((2, 1), 1e9, dtype=F64), PointMass(0 * x))
    assert always.step(x, h, rng=seeded()).flatten().tolist() == [1.0, 0.0]


def test_terms_add_and_scale_linearly():
    x = torch.linspace(-1, 1, 5, dtype=F64).unsqueeze(-1)
    drift, noise, jump = three_terms(5)
    weight = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0], dtype=F64)
    actions = [term.apply(smooth, x) for term in (drift, noise, jump)]
    assert torch.allclose((drift + noise + jump).apply(smooth, x), sum(actions), rtol=1e-14)
    assert torch.allclose((0.3 * (drift + jump)).apply(smooth, x), 0.3 * (actions[0] + actions[2]), rtol=1e-14)
    for term, action in zip((drift, noise, jump, drift + noise + jump), [*actions, sum(actions)], strict=True):
        assert torch.allclose((term * weight).apply(smooth, x), weight * action, rtol=1e-13, atol=1e-15)
    assert (drift + noise + jump).kinds == {"drift", "brownian", "jump"}
    assert len((drift + noise + drift).terms) == 2


def test_actions_on_known_functions():
    x = torch.tensor([[1.0, -2.0]], dtype=F64)
    square = lambda x: (x**2).sum(-1)  # noqa: E731
    assert Drift(torch.tensor([[3.0, 1.0]], dtype=F64)).apply(square, x).item() == pytest.approx(2 * 3 - 4)
    assert Brownian(torch.tensor([[0.5]], dtype=F64)).apply(square, x).item() == pytest.approx(0.5 * 2)
    assert Brownian(torch.tensor([[0.5, 2.0]], dtype=F64)).apply(lambda x: x[:, 0] * x[:, 1] + x[:, 1] ** 2, x).item() == pytest.approx(2.0)
    assert Brownian(torch.ones(1, 1, dtype=F64)).apply(lambda x: 3 * x[:, 0], x).item() == 0.0
    assert Drift(x).apply(lambda x: torch.ones(len(x)), x).item() == 0.0


def test_jumps_to_one_state_merge_into_one_law():
    x = torch.tensor([[0], [2]])
    a = Jump(torch.tensor([[1.0], [0.0]], dtype=F64), Categorical(torch.tensor([[[0.0, 1.0, 2.0]]], dtype=F64).expand(2, 1, 3)))
    b = Jump(torch.tensor([[3.0], [0.0]], dtype=F64), PointMass(torch.tensor([[1], [1]])))
    merged = (a + b).jump
    assert torch.allclose(merged.rates(x, 3), a.rates(x, 3) + b.rates(x, 3), rtol=1e-14)
    assert merged.intensity.flatten().tolist() == [4.0, 0.0]
    draws = merged.destination.sample(torch.ones(2, 1, dtype=torch.bool), rng=seeded())
    assert draws.shape == (2,)
    assert draws.dtype == torch.int64


def test_a_mixture_of_destinations_samples_its_mass():
    n = 100_000
    logits = torch.tensor([0.2, 0.5, 0.3], dtype=F64).log().expand(n, 1, 3)
    law = Mixture(Categorical(logits), PointMass(torch.full((n, 1), 2)), torch.full((n, 1), 0.25, dtype=F64))
    where = torch.ones(n, 1, dtype=torch.bool)
    mass = law.mass(torch.arange(3).expand(n, 1, 3))[0, 0]
    assert torch.allclose(mass, torch.tensor([0.15, 0.375, 0.475], dtype=F64))
    share = law.sample(where, rng=seeded(2)).bincount(minlength=3) / n
    assert bool(((share - mass).abs() < 4 * (mass * (1 - mass) / n).sqrt()).all())
    moved = law.excluding(torch.full((n, 1), 2))
    assert torch.allclose(moved.mass(torch.arange(3).expand(n, 1, 3))[0, 0], torch.tensor([2 / 7, 5 / 7, 0.0], dtype=F64))
    assert int(moved.sample(where, rng=seeded(3)).max()) == 1


@pytest.mark.parametrize(("to_b", "to_a"), [(0.8, 0.8), (2.0, 0.7)])
def test_the_two_state_chain_has_its_closed_transition_matrix(to_b, to_a):
    space = gm.spaces.Categorical((1,), 2)
    jump = Jump(torch.tensor([[to_b], [to_a]], dtype=F64), PointMass(torch.tensor([[1], [0]])))
    q = jump.dense(space)
    assert torch.equal(q, torch.tensor([[-to_b, to_a], [to_b, -to_a]], dtype=F64))
    for h in (0.1, 1.0, 3.0):
        rho, total = math.exp(-(to_b + to_a) * h), to_b + to_a
        closed = torch.tensor([[to_a + to_b * rho, to_a - to_a * rho], [to_b - to_b * rho, to_b + to_a * rho]], dtype=F64) / total
        assert torch.allclose(torch.matrix_exp(h * q), closed, rtol=0, atol=1e-14)
    if to_b == to_a:
        assert torch.matrix_exp(0.5 * q)[0, 0].item() == pytest.approx((1 + math.exp(-2 * to_b * 0.5)) / 2, abs=1e-14)


def random_jump(space, seed):
    rng, x = seeded(seed), space.enumerate()
    intensity = torch.rand(x.shape, dtype=F64, generator=rng)
    return Jump(intensity, Categorical(torch.randn(*x.shape, space.num_states, dtype=F64, generator=rng)))


def test_dense_is_the_action_on_indicators_and_conserves_probability():
    space = gm.spaces.Categorical((2,), 3)
    one, two = random_jump(space, 1), random_jump(space, 2)
    for generator in (one, one + two, 0.4 * one):
        q = generator.dense(space)
        assert torch.allclose(q, matrix_of(generator, space.enumerate(), space.index), rtol=1e-13, atol=1e-15)
        assert float(q.sum(0).abs().max()) < 1e-14
        assert bool((q - q.diag().diag() >= 0).all())
    assert torch.allclose((one + two).dense(space), one.dense(space) + two.dense(space), rtol=1e-13, atol=1e-15)


def test_self_jumps_do_nothing():
    space = gm.spaces.Categorical((2,), 3)
    x = space.enumerate()
    jump = random_jump(space, 1)
    for generator in (jump, (jump + random_jump(space, 2)).jump):
        moving = generator.without_self_jumps(x)
        assert torch.allclose(moving.dense(space), generator.dense(space), rtol=1e-13, atol=1e-15)
        assert float(moving.destination.mass(x.unsqueeze(-1)).max()) == 0.0
        assert bool((moving.intensity < generator.intensity).all())
    still = Jump(torch.ones(1, 1), PointMass(torch.tensor([[1]]))).without_self_jumps(torch.tensor([[1]]))
    assert still.intensity.item() == 0.0


def test_kronecker_sum_is_the_kronecker_sum_of_matrices():
    spaces = gm.spaces.ProductSpace(a=gm.spaces.Categorical((1,), 3), b=gm.spaces.Categorical((2,), 2))
    a, b = (space.enumerate() for space in spaces.parts.values())
    x = {"a": a.repeat_interleave(len(b), 0), "b": b.repeat(len(a), 1)}
    alone = [random_jump(space, seed) for seed, space in enumerate(spaces.parts.values())]
    rows = [torch.arange(len(a)).repeat_interleave(len(b)), torch.arange(len(b)).repeat(len(a))]
    parts = [Jump(jump.intensity[i], Categorical(jump.destination.logits[i])) for jump, i in zip(alone, rows, strict=True)]
    both = KroneckerSum(a=parts[0], b=parts[1])
    q1, q2 = (jump.dense(space) for jump, space in zip(alone, spaces.parts.values(), strict=True))
    expected = torch.kron(q1, torch.eye(len(b), dtype=F64)) + torch.kron(torch.eye(len(a), dtype=F64), q2)
    index = lambda x: spaces.parts["a"].index(x["a"]) * len(b) + spaces.parts["b"].index(x["b"])  # noqa: E731
    assert torch.allclose(matrix_of(both, x, index), expected, rtol=1e-13, atol=1e-15)
    assert torch.allclose(matrix_of(2.0 * (both + both), x, index), 4 * expected, rtol=1e-13, atol=1e-15)


def test_a_product_of_flow_and_chain_acts_on_both_and_steps_both():
    n = 4
    x = {"image": torch.ones(n, 2), "text": torch.full((n, L), V)}
    process = chain("mask")
    t = torch.full((n,), 0.5, dtype=F64)
    text = process.generator(gm.oracle(process, token_data(), token_law("strong"))(x["text"], t), x["text"], t)
    both = KroneckerSum(image=Drift(2 * x["image"]), text=text)
    f = lambda x: (x["image"] ** 2).sum(-1) * (x["text"] == V).sum(-1)  # noqa: E731
    # d|x|^2 = 8 with 3 masks; each of 3 masks lifts at rate 1 / (1 - t) = 2 and |x|^2 = 2.
    assert torch.allclose(both.apply(f, x).double(), torch.full((n,), 8.0 * 3 - 2 * 3 * 2, dtype=F64), rtol=1e-6)
    there = both.step(x, 0.25, rng=seeded())
    assert torch.equal(there["image"], torch.full((n, 2), 1.5))
    assert not torch.equal(there["text"], x["text"])
    assert both.kinds == {"product", "drift", "jump"}
    kl = both.kl(KroneckerSum(image=Drift(2 * x["image"]), text=0.5 * text), x)
    assert torch.allclose(kl.double(), torch.full((n,), 3 * (2 * math.log(2) - 2 + 1), dtype=F64))


def test_generators_of_different_spaces_do_not_add():
    x = torch.ones(1, 1)
    both = KroneckerSum(a=Drift(x))
    for other in (Drift(x), KroneckerSum(b=Drift(x))):
        with pytest.raises(gm.GenmatchError, match=r"modalities \['a'\], got"):
            both + other
        with pytest.raises(gm.GenmatchError, match=r"modalities \['a'\], got"):
            both.kl(other, {"a": x})
    with pytest.raises(gm.GenmatchError, match="adds only to one over the same modalities"):
        Drift(x) + both
    with pytest.raises(TypeError):
        Drift(x) + 1


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan, torch.tensor([1.0, -0.5]), torch.tensor([1.0, math.inf])])
def test_only_non_negative_weights_scale(weight):
    with pytest.raises(gm.GenmatchError, match="finite non-negative weight, got"):
        weight * Drift(torch.ones(2, 1))


def test_dense_needs_jumps_at_every_state():
    space = gm.spaces.Categorical((2,), 3)
    with pytest.raises(gm.GenmatchError, match="Drift has no rate matrix"):
        Drift(torch.ones(1, 1)).dense(space)
    with pytest.raises(gm.GenmatchError, match=r"all 9 states.*got a batch of shape \(1, 2\).*enumerate"):
        Jump(torch.ones(1, 2), PointMass(torch.zeros(1, 2, dtype=torch.int64))).dense(space)
    with pytest.raises(gm.GenmatchError, match=r"test function must return shape \(B,\) = \(1,\), got \(1, 1\)"):
        Drift(torch.ones(1, 1)).apply(lambda x: x, torch.ones(1, 1))


def test_sum_is_of_plain_terms():
    assert Sum(Drift(torch.ones(1, 1))).brownian is None
