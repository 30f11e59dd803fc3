"""Metric, discrete and noising paths: their closed forms, the forward equation, and the chains that follow them."""

import itertools
import math

import pytest
import torch

import genmatch as gm
from genmatch.checks.statistics import derivative
from genmatch.paths import Discrete, Metric, Mixture, Noising
from genmatch.schedules import CondOT, Cosine, Polynomial
from tests.toys import L, V, chi_square, full, kron, name_of, seeded, token_data, token_law, total_variation

F64 = torch.float64
SCHEDULES = [CondOT(), Cosine(), Polynomial(2.0)]
TIMES = [0.05, 0.3, 0.6, 0.95]
EMBEDDINGS = torch.randn(V, 2, dtype=F64, generator=seeded(5))
NOISE = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=F64)


def rate_matrix(seed=0):
    rates = torch.rand(V, V, dtype=F64, generator=seeded(seed)).fill_diagonal_(0)
    return rates - rates.sum(0).diag()


def kappas(t, schedule=CondOT()):  # noqa: B008 (immutable)
    return schedule.kappa(t).reshape(-1, 1, 1), schedule.d_kappa(t).reshape(-1, 1, 1)


def mixture_table(t):
    return (1 - kappas(t)[0]) * NOISE.unsqueeze(-1) + kappas(t)[0] * torch.eye(V, dtype=F64)


def mixture_slope(t):
    return kappas(t)[1] * (torch.eye(V, dtype=F64) - NOISE.unsqueeze(-1))


def curved_table(t):
    """p proportional to exp of something that is no distance: exp((1 - t) a(x) - t / (1 - t) 1[x != z] c(x, z))."""
    return torch.softmax(_energy(t), 1)


def _energy(t):
    a = torch.arange(V, dtype=F64).unsqueeze(-1)
    c = 0.3 + torch.arange(V * V, dtype=F64).reshape(V, V) / V**2
    odds = torch.where(t < 1, t / (1 - t), torch.inf).reshape(-1, 1, 1)
    off = ~torch.eye(V, dtype=torch.bool)
    return (1 - t).reshape(-1, 1, 1) * a * 0.4 - torch.where(off, odds * c.where(off, 1), 0)


def curved_slope(t):
    c = (0.3 + torch.arange(V * V, dtype=F64).reshape(V, V) / V**2).fill_diagonal_(0)
    d_energy = -0.4 * torch.arange(V, dtype=F64).unsqueeze(-1) - c / (1 - t).reshape(-1, 1, 1) ** 2
    p = curved_table(t)
    return p * (d_energy - (p * d_energy).sum(1, keepdim=True))


def make(kind, schedule=CondOT(), positions=L):  # noqa: B008 (immutable)
    return {
        "metric": lambda: Metric((positions,), "absolute", vocab_size=V, power=1.5, schedule=schedule),
        "embeddings": lambda: Metric((positions,), "euclidean", embeddings=EMBEDDINGS, scale=2.0, schedule=schedule),
        "noising": lambda: Noising((positions,), rate_matrix(), schedule=schedule),
        "discrete": lambda: Discrete((positions,), curved_table, curved_slope),
    }[kind]()


KINDS = ["metric", "embeddings", "noising", "discrete"]
kinds = pytest.mark.parametrize("kind", KINDS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)


def at(t):
    return torch.tensor([t], dtype=F64)


def marginal(path, t, law):
    return kron([path.table(at(t))[0]] * path.space.size) @ law


def rates_of(path, time, law, **options):
    process = gm.CTMC(path, **options)
    states = process.space.enumerate()
    data = token_data() if path.space.size == L else torch.arange(V).unsqueeze(-1)
    return gm.marginal_generator(process, data, states, full(time, len(states)), weights=law).dense(process.space)


FOLLOWED = [*itertools.product(["metric", "embeddings", "noising"], SCHEDULES), ("discrete", CondOT())]


@pytest.mark.parametrize(("kind", "schedule"), FOLLOWED, ids=[f"{kind}-{name_of(schedule)}" for kind, schedule in FOLLOWED])
@pytest.mark.parametrize("time", TIMES)
def test_rates_solve_the_forward_equation(kind, schedule, time):
    path, law = make(kind, schedule), token_law("strong")
    p, slope = marginal(path, time, law), derivative(lambda s: marginal(path, s, law), time)
    q = rates_of(path, time, law)
    scale = float(slope.abs().max())
    assert float((q @ p - slope).abs().max()) < 1e-8 * (1 + scale)
    assert float((1.1 * q @ p - slope).abs().max()) > 1e-3 * scale
    assert bool((q - q.diag().diag() >= 0).all())


@kinds
@pytest.mark.parametrize("time", TIMES)
def test_conditional_rates_solve_the_forward_equation(kind, time):
    path = make(kind, positions=1)
    slope = derivative(lambda s: path.table(at(s))[0], time)
    for z in range(V):
        one = torch.eye(V, dtype=F64)[z]
        p = path.table(at(time))[0, :, z]
        q = torch.where(p > 0, rates_of(path, time, one), 0)
        assert float((q @ p - slope[:, z]).abs().max()) < 1e-9 * (1 + float(slope.abs().max()))


@kinds
@pytest.mark.parametrize("time", TIMES)
def test_the_law_is_a_law_from_noise_to_data(kind, time):
    path = make(kind, positions=1)
    assert float((path.table(at(time)).sum(1) - 1).abs().max()) < 1e-12
    start, end = path.table(at(0.0))[0], path.table(at(1.0))[0]
    assert float((start - start[:, :1]).abs().max()) < 1e-12
    assert torch.equal(end, torch.eye(V, dtype=F64))


@schedules
@pytest.mark.parametrize("time", TIMES)
def test_the_metric_path_in_closed_form(schedule, time):
    path = make("metric", schedule, positions=1)
    distance = (torch.arange(V, dtype=F64).unsqueeze(-1) - torch.arange(V, dtype=F64)).abs() ** 1.5
    beta, d_beta = float(path.beta(at(time))), float(path.d_beta(at(time)))
    assert d_beta == pytest.approx(float(derivative(lambda s: path.beta(at(s)), time)), rel=1e-8)
    p = torch.exp(-beta * distance)
    p = p / p.sum(0)
    assert torch.allclose(path.table(at(time))[0], p, rtol=1e-12, atol=1e-300)
    for z in range(V):
        expected = d_beta * p[:, z, None] * (distance[:, z] - distance[:, z, None]).clamp(min=0)
        flow = d_beta * p[:, z] * ((p[:, z] * distance[:, z]).sum() - distance[:, z])
        kinetic = (flow.unsqueeze(-1) * p[:, z] - p[:, z, None] * flow).clamp(min=0) / p[:, z]
        q = rates_of(path, time, torch.eye(V, dtype=F64)[z])
        found = q - q.diag().diag()
        assert float((found - expected).abs().max()) < 1e-13 * (1 + d_beta)
        assert float((found - kinetic).abs().max()) < 1e-13 * (1 + d_beta), "the same without a division"


@pytest.mark.parametrize("time", TIMES)
def test_kinetic_rates_of_the_mixture_path_are_its_own(time):
    law = torch.tensor([0.1, 0.5, 0.2, 0.2], dtype=F64)
    table = Discrete((1,), mixture_table, mixture_slope)
    found, own = rates_of(table, time, law), rates_of(Mixture((1,), V, source=NOISE), time, law)
    assert float((found - own).abs().max()) < 1e-12 / (1 - time)
    for z in range(V):
        q = rates_of(table, time, torch.eye(V, dtype=F64)[z])
        others = [x for x in range(V) if x != z]
        assert torch.allclose(q[z, others], torch.full((V - 1,), 1 / (1 - time), dtype=F64), rtol=1e-13)


@pytest.mark.parametrize("time", TIMES)
def test_a_chain_that_redraws_its_noise_is_the_mixture_path_with_reversal_rates(time):
    redraw = NOISE.unsqueeze(-1).expand(V, V) - torch.eye(V, dtype=F64)
    law = torch.tensor([0.1, 0.5, 0.2, 0.2], dtype=F64)
    path, mixture = Noising((1,), redraw), Mixture((1,), V, source=NOISE)
    assert float((path.table(at(time))[0] - mixture_table(at(time))[0]).abs().max()) < 1e-14
    found, own = rates_of(path, time, law), rates_of(mixture, time, law, rates="reversal")
    assert float((found - own).abs().max()) < 1e-12 * float(own.abs().max())
    assert float((found - rates_of(mixture, time, law)).abs().max()) > 0.1


@schedules
def test_the_noising_kernel_is_a_matrix_exponential(schedule):
    scipy = pytest.importorskip("scipy.linalg")
    path = make("noising", schedule, positions=1)
    for time in (1e-3, 0.3, 0.9):
        u = -math.log(float(schedule.kappa(at(time))))
        exact = torch.from_numpy(scipy.expm(u * rate_matrix().numpy()))
        assert float((path.table(at(time))[0] - exact).abs().max()) < 1e-13
    assert float((rate_matrix() @ path.stationary).abs().max()) < 1e-14
    assert float((path.table(at(1e-12))[0] - path.table(at(0.0))[0]).abs().max()) < 1e-8


@kinds
def test_samples_follow_the_table(kind):
    path, n, x1 = make(kind), 30_000, torch.tensor([[0, 3, 1]])
    for time in (0.0, 0.2, 0.7):
        law = kron([path.table(at(time))[0, :, z] for z in x1[0]])
        for seed, x0 in enumerate((None, path.source(n, rng=seeded(9)))):
            x = path.sample(x1.expand(n, L), full(time, n), x0=x0, rng=seeded(seed))
            assert chi_square(path.space.index(x).bincount(minlength=len(law)), law) > 1e-4
    x0 = path.source(n, rng=seeded(9))
    assert torch.equal(path.sample(x1.expand(n, L), full(0.0, n), x0=x0, rng=seeded()), x0)


def averaged(path, pi, x, t, s):
    """sum_z pi(z) q(x_s | x_t, z) by Bayes' rule with the noising kernel, (V,)."""
    scipy = pytest.importorskip("scipy.linalg")
    u_t, u_s = (-math.log(time) for time in (t, s))
    back = torch.from_numpy(scipy.expm((u_t - u_s) * rate_matrix().numpy()))
    joint = back[x].unsqueeze(-1) * path.table(at(s))[0]
    return (joint / joint.sum(0) * pi).sum(-1)


def test_one_token_of_a_noising_chain_steps_exactly():
    law = torch.tensor([0.1, 0.5, 0.2, 0.2], dtype=F64)
    path = make("noising", positions=1)
    states, process = path.space.enumerate(), gm.CTMC(path)
    pi = process.mean(gm.oracle(process, torch.arange(V).unsqueeze(-1), law)(states, full(0.3, V)))
    step = torch.stack([averaged(path, pi[x, 0], x, 0.3, 0.7) for x in range(V)], -1)
    assert float((step @ marginal(path, 0.3, law) - marginal(path, 0.7, law)).abs().max()) < 1e-14
    n = 40_000
    output = torch.randn(1, 1, V, dtype=F64, generator=seeded(3))
    there = process.transition(output.expand(n, 1, V), torch.full((n, 1), 2), full(0.3, n), full(0.7, n), rng=seeded(4))
    assert chi_square(there.flatten().bincount(minlength=V), averaged(path, output.softmax(-1)[0, 0], 2, 0.3, 0.7)) > 1e-4


@pytest.mark.parametrize("s", [0.4, 1.0])
def test_a_noising_chain_leaves_zero_exactly(s):
    law, n = torch.tensor([0.1, 0.5, 0.2, 0.2], dtype=F64), 40_000
    process = gm.CTMC(make("noising", positions=1))
    model = gm.oracle(process, torch.arange(V).unsqueeze(-1), law)
    x = process.path.source(n, rng=seeded(1))
    assert bool(process.generator(model(x, full(0.0, n)), x, full(0.0, n)).intensity.isinf().all())
    there = process.transition(model(x, full(0.0, n)), x, full(0.0, n), full(s, n), rng=seeded(2))
    assert chi_square(there.flatten().bincount(minlength=V), marginal(process.path, s, law)) > 1e-4


def frozen(process, law, name, t, h):
    """The law of one step, as each solver draws it: the rates of one token at a time."""
    states = process.space.enumerate()
    model = gm.oracle(process, token_data(), law)
    jump = process.generator(model(states, full(t, len(states))), states, full(t, len(states)))
    rates = jump.rates(states, V)
    exits = -rates.gather(-1, states.unsqueeze(-1)).squeeze(-1)
    leave = (h * exits).clamp(max=1) if name == "algorithm7" else 1 - torch.exp(-h * exits)
    away = rates.clamp(min=0) / exits.clamp(min=1e-300).unsqueeze(-1) * leave.unsqueeze(-1)
    tokens = away + (1 - leave).unsqueeze(-1) * torch.nn.functional.one_hot(states, V)
    return torch.stack([kron(list(row)) for row in tokens], -1)


def finished(process, law, t):
    states = process.space.enumerate()
    pi = process.mean(gm.oracle(process, token_data(), law)(states, full(t, len(states))))
    return torch.stack([kron(list(row)) for row in pi], -1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["metric", "discrete"])
@pytest.mark.parametrize("name", ["algorithm7", "tau-leaping"])
def test_solvers_keep_their_order_on_these_paths(kind, name):
    path, law = make(kind), token_law("strong")
    process = gm.CTMC(path)

    def errors(steps):
        p, found = marginal(path, 0.0, law), {}
        for t, s in itertools.pairwise(torch.linspace(0, 1, steps + 1, dtype=F64).tolist()):
            p = (finished(process, law, t) if s == 1 else frozen(process, law, name, t, s - t)) @ p
            found[s] = total_variation(p, marginal(path, s, law))
        return found

    coarse, fine = errors(16), errors(32)
    order = math.log2(coarse[0.5] / fine[0.5])
    print(f"{kind}, {name}: total variation {fine[0.5]:.1e} in the middle, {fine[1.0]:.1e} at the end, order {order:.2f}")
    assert 0.85 < order < 1.3
    assert fine[1.0] < coarse[1.0]


@pytest.mark.parametrize("kind", ["metric", "discrete"])
def test_steps_are_drawn_from_the_kernels_that_are_measured(kind):
    process, law, n = gm.CTMC(make(kind)), token_law("strong"), 30_000
    model, x = gm.oracle(process, token_data(), law), torch.tensor([[0, 2, 3]])
    column = frozen(process, law, "tau-leaping", 0.3, 0.2)[:, process.space.index(x)].squeeze(-1)
    for name in ("euler", "tau-leaping"):
        predict = lambda x, t: model(x[:1], t[:1]).expand(n, L, V)  # noqa: E731
        there = gm.solvers.get(name).step(process, predict, x.expand(n, L), full(0.3, n), full(0.5, n), rng=seeded(2))
        assert chi_square(process.space.index(there).bincount(minlength=V**L), column) > 1e-4


@pytest.mark.parametrize("kind", ["metric", "embeddings", "discrete"])
def test_a_kinetic_chain_has_no_transition_and_ends_in_its_posterior(kind):
    process, n = gm.CTMC(make(kind)), 30_000
    assert not process.supports("transition")
    assert process.supports("finish")
    assert gm.solvers.available(process) == ["euler", "algorithm7", "tau-leaping"]
    with pytest.raises(gm.GenmatchError, match="CTMC defines no `transition`"):
        process.transition(torch.zeros(1, L, V), torch.zeros(1, L, dtype=torch.int64), full(0.2, 1), full(0.5, 1))
    output = torch.randn(1, L, V, dtype=F64, generator=seeded(3))
    there = process.finish(output.expand(n, L, V), torch.zeros(n, L, dtype=torch.int64), full(0.9, n), rng=seeded(4))
    assert chi_square(process.space.index(there).bincount(minlength=V**L), kron(list(output.softmax(-1)[0]))) > 1e-4


@kinds
def test_simulation_ends_in_the_data(kind):
    process, law, n = gm.CTMC(make(kind)), token_law("strong"), 8_000
    x = gm.sample(process, gm.oracle(process, token_data(), law), n, steps=48, seed=0)
    assert total_variation(process.space.index(x).bincount(minlength=V**L) / n, law) < 0.06


def test_large_vocabularies_need_no_table_of_rates():
    process = gm.CTMC(Metric((64,), vocab_size=64))
    output = torch.randn(32, 64, 64)
    x = process.path.source(32, rng=seeded())
    there = process.generator(output, x, full(0.4, 32)).step(x, 0.05, rng=seeded())
    assert process.space.validate(there).shape == (32, 64)


def hamming(n):
    return 1 - torch.eye(n, dtype=F64)


BAD = [
    (lambda: Metric((2,)), "'absolute' needs `vocab_size`, and 'euclidean' needs `embeddings`"),
    (lambda: Metric((2,), "euclidean", vocab_size=3), "'euclidean' needs `embeddings`; got distance='euclidean'"),
    (lambda: Metric((2,), "absolut", vocab_size=3), "unknown distance `absolut`; did you mean `absolute`"),
    (lambda: Metric((2,), torch.zeros(3, 2)), r"`distance` must have shape \(V, V\), got \(3, 2\); pass vectors as `embeddings`"),
    (lambda: Metric((2,), hamming(3), vocab_size=4), "`vocab_size` is 4, but the distances are of 3 tokens"),
    (lambda: Metric((2,), -hamming(3)), r"not a distance: it has a negative entry.*found d\(0, 1\) = -1"),
    (lambda: Metric((2,), hamming(3) + torch.eye(3)), r"a token at a distance from itself.*found d\(0, 0\) = 1"),
    (lambda: Metric((2,), hamming(3).triu()), r"two tokens at distance 0.*found d\(1, 0\) = 0"),
    (lambda: Metric((2,), hamming(3) + hamming(3).triu()), r"two different distances.*pass \(d \+ d.T\) / 2"),
    (lambda: Metric((2,), "euclidean", embeddings=torch.ones(3, 2)), "two tokens at distance 0; the path cannot tell them apart"),
    (lambda: Metric((2,), "euclidean", embeddings=torch.ones(3)), r"`embeddings` must be a finite tensor of shape \(V, d\), got shape \(3,\)"),
    (lambda: Metric((2,), hamming(3) * math.nan), r"`distance` must be a finite tensor of shape \(V, V\)"),
    (lambda: Metric((2,), object()), r"`distance` must be a tensor of shape \(V, V\), got <object"),
    (lambda: Metric((2,), vocab_size=3, power=0.0), r"`power` must be a number in \(0, inf\), got 0.0"),
    (lambda: Metric((2,), vocab_size=3, scale=math.inf), "`scale` must be a number in"),
    (lambda: Metric((2,), vocab_size=3, schedule=gm.schedules.VP()), "has no kappa"),
    (lambda: gm.CTMC(Metric((2,), vocab_size=3), rates="mixture"), "unknown kind of rates `mixture`.*kinetic"),
    (lambda: Noising((2,), rate_matrix().T), "columns of `rate_matrix` must sum to zero.*pass its transpose"),
    (lambda: Noising((2,), rate_matrix() + torch.eye(V)), "set the diagonal to minus the sum of the column"),
    (lambda: Noising((2,), -rate_matrix()), "must have no negative rate off its diagonal"),
    (lambda: Noising((2,), torch.zeros(3, 3)), "several stationary laws.*connect its parts"),
    (lambda: Noising((2,), torch.zeros(3, 2)), r"must be a finite tensor of shape \(V, V\), got shape \(3, 2\)"),
    (lambda: Noising((2,), None), r"`rate_matrix` must be a tensor of shape \(V, V\), got None"),
    (lambda: Discrete((2,), lambda t: torch.zeros(3), mixture_slope), r"`probs\(t\)` must return a tensor of shape \(U, V, V\).*got \(3,\)"),
    (lambda: Discrete((2,), lambda t: 2 * mixture_table(t), mixture_slope), "sums that miss 1 by 1"),
    (lambda: Discrete((2,), lambda t: mixture_table(0.1 + 0.9 * t), mixture_slope), "must be one law for all data tokens"),
    (lambda: Discrete((2,), lambda t: mixture_table(0.9 * t), mixture_slope), "at t = 1 must be the identity"),
    (lambda: Discrete((2,), mixture_table, lambda t: 1.1 * mixture_slope(t)), "must be the time derivative of `probs`: it differs from finite differences by 0.09"),
    (lambda: Discrete((2,), mixture_table, lambda t: torch.zeros(V, V)), r"`d_probs\(t\)` must have the shape of `probs\(t\)`"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "message"), BAD)
def test_what_is_no_path_is_refused(build, message):
    with pytest.raises(gm.GenmatchError, match=message):
        build()


def test_the_triangle_inequality_is_not_needed():
    """|x - z|^1.5 breaks it, and the path and its rates stand: see `test_rates_solve_the_forward_equation`."""
    distance = make("metric").distance
    assert float(distance[0, 2]) > float(distance[0, 1] + distance[1, 2])
