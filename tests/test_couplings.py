"""Couplings: marginals kept, plans optimal, conditions respected, and what needs independence refuses."""

import itertools
import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import genmatch as gm
from genmatch.marginal import log_marginal
from genmatch.paths import Gaussian, Geodesic, Mixture
from genmatch.paths.conversion import coefficients
from genmatch.paths.couplings import Coupling, Independent, OptimalTransport, Sinkhorn
from genmatch.spaces import SO3, Categorical, Euclidean, Sphere, Torus
from genmatch.training import loss_on
from tests.mutants import AnyCoupling, across_conditions
from tests.toys import TinyVector, chi_square, full, seeded

F64 = torch.float64
COUPLED = Gaussian((2,), coupling=OptimalTransport(), dtype=F64)
every_coupling = pytest.mark.parametrize("coupling", [Independent(), OptimalTransport(), Sinkhorn(0.5)], ids=str)


def points(n, d=2, seed=0):
    return torch.randn(n, d, dtype=F64, generator=seeded(seed))


def cost(x1, x0):
    return ((x1.unsqueeze(1) - x0.unsqueeze(0)) ** 2).sum(-1)


# The pairs


def test_noise_is_independent_by_default():
    for path in (Gaussian((2,)), Geodesic(Sphere(1)), Mixture((2,), 3)):
        assert path.coupling == Independent()
        assert path.is_independent
        x1 = path.data_space.random(5, rng=seeded(1))
        assert path.start(x1, torch.arange(5), rng=seeded()).equal(path.source(5, rng=seeded()))


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_the_assignment_is_the_best_of_all(n):
    x0, x1 = points(n, seed=1), points(n, seed=2)
    c = cost(x1, x0)
    found = OptimalTransport().choose(c)
    assert found.sort().values.equal(torch.arange(n))
    best = min(float(c[range(n), list(order)].sum()) for order in itertools.permutations(range(n)))
    assert float(c[torch.arange(n), found].sum()) == pytest.approx(best, abs=1e-12)


def test_no_random_permutation_is_better():
    n = 60
    c, rows = cost(points(n, 5, 1), points(n, 5, 2)), torch.arange(n)
    total = c[rows, OptimalTransport().choose(c)].sum()
    rng = seeded()
    assert all(c[rows, torch.randperm(n, generator=rng)].sum() > 1.1 * total for _ in range(500))


def test_on_a_line_equal_ranks_are_paired():
    x1 = points(50, 1)
    x0 = Gaussian((1,), coupling=OptimalTransport(), dtype=F64).start(x1, rng=seeded(3))
    assert x0.flatten().argsort().equal(x1.flatten().argsort())


def test_every_draw_is_used_once():
    x1 = points(40)
    x0, drawn = COUPLED.start(x1, rng=seeded(5)), COUPLED.source(40, rng=seeded(5))
    assert x0.flatten().sort().values.equal(drawn.flatten().sort().values)
    assert not x0.equal(drawn)


@pytest.mark.parametrize("n", [2, 17])
@pytest.mark.parametrize("epsilon", [1e-3, 0.05, 1.0, 100.0])
def test_entropic_plans_have_both_marginals(epsilon, n):
    plan = Sinkhorn(epsilon).plan(cost(points(n, seed=1), points(n, seed=2)))
    assert bool((plan >= 0).all())
    for axis in (0, 1):
        assert float((n * plan.sum(axis) - 1).abs().max()) < 1e-8


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 10.0])
def test_entropic_plans_are_optimal(epsilon):
    """Against diag(u) exp(-C / epsilon) diag(v), scaled to the marginals twenty thousand times."""
    c = cost(points(9, seed=1), points(9, seed=2))
    kernel, v = (-c / epsilon).exp(), torch.ones(9, dtype=F64)
    for _ in range(20_000 if epsilon < 1 else 2000):
        u = 1 / (9 * (kernel @ v))
        v = 1 / (9 * (kernel.mT @ u))
    exact = u.unsqueeze(-1) * kernel * v
    assert float((Sinkhorn(epsilon).plan(c) - exact).abs().max()) < 1e-5
    assert float((Sinkhorn(1.1 * epsilon).plan(c) - exact).abs().max()) > 1e-4


def test_entropic_plans_lie_between_the_assignment_and_independence():
    c = cost(points(8, seed=1), points(8, seed=2))
    assert float((Sinkhorn(1e6).plan(c) - 1 / 64).abs().max()) < 1e-6
    assert Sinkhorn(1e-2).plan(c).argmax(1).equal(OptimalTransport().choose(c))
    totals = [float((Sinkhorn(epsilon).plan(c) * c).sum()) for epsilon in (0.01, 0.3, 3.0, 1e6)]
    assert totals == sorted(totals)


def test_entropic_noise_is_drawn_from_the_plan():
    x0, x1 = points(3, seed=1), points(3, seed=2)
    coupling, rng = Sinkhorn(1.0), seeded()
    plan = coupling.plan(cost(x1, x0))
    draws = torch.stack([coupling.choose(cost(x1, x0), rng=rng) for _ in range(600)])
    for j in range(3):
        assert chi_square(torch.bincount(draws[:, j], minlength=3), 3 * plan[j]) > 1e-4
    assert chi_square(torch.bincount(draws[:, 0], minlength=3), 3 * plan[1]) < 1e-6


@pytest.mark.parametrize("space", [Euclidean((2, 2), F64), Sphere(2, F64), Torus(2, F64), SO3(F64)], ids=str)
def test_squared_distances(space):
    x, y = space.random(4, rng=seeded(1)), space.random(3, rng=seeded(2))
    found = space.squared_distances(x, y)
    for i, j in itertools.product(range(4), range(3)):
        a, b = x[i : i + 1], y[j : j + 1]
        wanted = float(((a - b) ** 2).sum()) if isinstance(space, Euclidean) else float(space.dist(a, b)) ** 2
        assert float(found[i, j]) == pytest.approx(wanted, abs=1e-12)
    with pytest.raises(gm.GenmatchError, match="has no distance"):
        Categorical((2,), 3).squared_distances(torch.zeros(1, 2), torch.zeros(1, 2))


def test_on_a_circle_the_short_way_counts():
    path = Geodesic(Torus(1, F64), coupling=OptimalTransport())
    x1 = torch.tensor([[3.1], [0.0]], dtype=F64)
    x0 = path.coupling.pair(torch.tensor([[0.1], [-3.1]], dtype=F64), x1, path.space, {})
    assert x0.flatten().tolist() == [-3.1, 0.1]


# What they are for


@pytest.mark.parametrize(("coupling", "share"), [(OptimalTransport(), 0.35), (Sinkhorn(0.1), 0.4)], ids=str)
def test_paths_become_shorter_and_straighter(coupling, share):
    """E |x1 - x0|^2 falls, and with it Var(x1 - x0 | x0), the error of a single step from the noise."""
    x1 = 0.5 * points(256, 1) + torch.where(torch.arange(256) % 2 == 0, 2.0, -2.0).unsqueeze(-1)
    lengths, spreads = [], []
    for path in (Gaussian((1,), dtype=F64), Gaussian((1,), dtype=F64, coupling=coupling)):
        x0 = path.start(x1, rng=seeded(1))
        lengths.append(float(((x1 - x0) ** 2).mean()))
        near = x0.flatten().argsort().view(-1, 8)
        spreads.append(float((x1 - x0).flatten()[near].var(1).mean()))
    assert lengths[1] < share * lengths[0]
    assert spreads[1] < 0.1 * spreads[0]


# Conditions


def extremes(coupling, condition, n=1500):
    """Mean noise of the data point 1 in batches of the points -1 and 1."""
    path, rng = Gaussian((1,), dtype=F64, coupling=coupling), seeded()
    x1 = torch.tensor([[-1.0], [1.0]], dtype=F64)
    return float(torch.stack([path.start(x1, condition, rng=rng)[1] for _ in range(n)]).mean())


def test_pairs_across_conditions_move_the_start():
    """In a batch of two points the greater noise goes to the greater point: E max of two normal draws is 1 / sqrt(pi), where p_0 has 0."""
    label = torch.tensor([0, 1])
    assert extremes(AnyCoupling(across_conditions), label) == pytest.approx(1 / math.sqrt(math.pi), abs=0.09)
    assert extremes(OptimalTransport(), None) == pytest.approx(1 / math.sqrt(math.pi), abs=0.09), "no condition: rightly so"
    for coupling in (OptimalTransport(), Sinkhorn(0.1)):
        assert abs(extremes(coupling, {"label": label})) < 0.11


@pytest.mark.parametrize("coupling", [OptimalTransport(), Sinkhorn(0.01)], ids=str)
def test_pairs_are_made_within_each_condition(coupling):
    x1 = points(30)
    condition = {"label": torch.arange(30) % 3, "word": torch.stack([torch.arange(30) % 2, torch.zeros(30, dtype=torch.int64)], 1)}
    path = Gaussian((2,), dtype=F64, coupling=coupling)
    x0, drawn = path.start(x1, condition, rng=seeded()), path.source(30, rng=seeded())
    for a, b in itertools.product(range(3), range(2)):
        rows = (torch.arange(30) % 3 == a) & (torch.arange(30) % 2 == b)
        assert int(rows.sum()) == 5
        assert all(bool((drawn[rows] == noise).all(1).any()) for noise in x0[rows])
    if isinstance(coupling, OptimalTransport):
        alone = coupling.pair(drawn[::6], x1[::6], path.space, {})
        assert x0[::6].equal(alone)


class Recorder(Coupling):
    """Notes what the training loop hands over."""

    def __init__(self):
        self.seen = []

    def pair(self, x0, x1, space, condition, *, rng=None):
        self.seen.append((x1, condition))
        return x0


def test_the_loop_hands_over_the_conditions_of_the_batch():
    x1, label = points(12, 1).float(), torch.arange(12)
    recorder = Recorder()
    process = gm.Flow(Gaussian((1,), coupling=recorder))
    for data in ((x1, label), DataLoader(TensorDataset(x1, label), batch_size=4, shuffle=True)):
        gm.train(process, TinyVector(), data, steps=4, batch_size=4, seed=0)
    assert len(recorder.seen) == 10
    for batch, condition in recorder.seen:
        assert batch.equal(x1[condition["condition"]])


def test_coupled_flows_train_and_sample():
    process = gm.Flow(Gaussian((1,), coupling=OptimalTransport()))
    model = TinyVector()
    result = gm.train(process, model, (points(64, 1).float(), torch.arange(64) % 2), steps=10, batch_size=16, validation=points(8, 1).float(), seed=0)
    assert len(result.losses) == 10
    assert gm.sample(process, result.model, 3, steps=2, condition=torch.tensor([0, 1, 1]), seed=0).shape == (3, 1)


def test_a_batch_is_coupled_in_the_loss():
    """With the whole way known the velocity of each pair is x1 - x0: the loss of the model 0 is the mean squared length."""
    x1 = points(32)
    lengths = {}
    for path in (Gaussian((2,), dtype=F64), COUPLED):
        loss = loss_on(gm.Flow(path), lambda x, t: torch.zeros_like(x), x1, {}, rng=seeded(4))
        rng = seeded(4)
        torch.rand((), dtype=F64, generator=rng)
        lengths[path.is_independent] = float(loss)
        assert float(loss) == pytest.approx(float(((x1 - path.start(x1, rng=rng)) ** 2).sum(1).mean() / 2), rel=1e-9)
    assert lengths[False] < 0.5 * lengths[True]


# Trap: the score


def test_noise_of_coupled_pairs_is_no_score():
    """x0 and x1 normal with correlation 0.6, CondOT at t = 0.4: the score is -1.24 x, and -E[x0 | x] / sigma is -1.73 x.

    Data, noise and velocity still convert into each other.
    """
    rho, alpha, sigma = 0.6, 0.4, 0.6
    variance = alpha**2 + sigma**2 + 2 * alpha * sigma * rho
    mean = {"data": (alpha + sigma * rho) / variance, "noise": (sigma + alpha * rho) / variance}
    mean["velocity"] = mean["data"] - mean["noise"]
    t, schedule = full(0.4, 1), gm.schedules.CondOT()
    for one, other in itertools.permutations(mean, 2):
        a, b = coefficients(schedule, t, one, other)
        assert float(a + b * mean[one]) == pytest.approx(mean[other], abs=1e-12)
    a, b = coefficients(schedule, t, "noise", "score")
    assert float(a + b * mean["noise"]) == pytest.approx(-1.73, abs=0.005)
    assert -1 / variance == pytest.approx(-1.24, abs=0.005)


REFUSED = {
    "diffusion": lambda: gm.Diffusion(COUPLED),
    "prediction of the score": lambda: gm.Flow(COUPLED, "score"),
    "superposition": lambda: gm.Superposition([gm.Flow(COUPLED), gm.Diffusion(COUPLED)], [0.5, 0.5]),
    "conversion to the score": lambda: gm.Flow(COUPLED, "noise").predict(points(2), points(2), full(0.5, 2), "score"),
    "bridge": lambda: gm.Flow(COUPLED).bridge(points(2), points(2), full(0.5, 2), full(0.6, 2), full(0.5, 2)),
    "density": lambda: COUPLED.log_prob(points(2), full(0.5, 2), points(2)),
    "oracle": lambda: gm.oracle(gm.Flow(COUPLED), points(3)),
    "marginal generator": lambda: gm.marginal_generator(gm.Flow(COUPLED), points(3), points(2), full(0.5, 2)),
    "log marginal": lambda: log_marginal(gm.Flow(COUPLED), points(3), points(2), full(0.5, 2)),
    "oracle of a product": lambda: gm.oracle(gm.Product(a=gm.Flow(COUPLED), b=gm.CTMC(Mixture((1,), 2))), {"a": points(1), "b": torch.zeros(1, 1).long()}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_independent_noise_is_refused(name):
    with pytest.raises(gm.GenmatchError, match=r"needs noise that is independent of the data, and .*coupling=OptimalTransport\(\)"):
        REFUSED[name]()


def test_solvers_that_renew_noise_do_not_fit():
    assert "sde-exponential" in gm.solvers.available(gm.Flow(Gaussian((2,))))
    assert "sde-exponential" not in gm.solvers.available(gm.Flow(COUPLED))
    with pytest.raises(gm.GenmatchError, match=r"needs `bridge`, which Flow\(.*coupling=OptimalTransport\(\).* does not define"):
        gm.sample(gm.Flow(COUPLED), lambda x, t: x, 2, solver="sde-exponential")


def test_a_sample_needs_its_noise():
    x1, t = points(3), full(0.5, 3)
    with pytest.raises(gm.GenmatchError, match=r"`sample` needs `x0`; pass `x0=path\.start"):
        COUPLED.sample(x1, t)
    x0 = COUPLED.start(x1, rng=seeded())
    assert COUPLED.sample(x1, t, x0=x0).equal(0.5 * (x0 + x1))


BAD = {
    "a name": (lambda: Gaussian((2,), coupling="ot"), "`coupling` must be a Coupling, got 'ot'"),
    "a name, on a manifold": (lambda: Geodesic(Sphere(2), coupling=None), "`coupling` must be a Coupling, got None"),
    "no entropy": (lambda: Sinkhorn(0.0), r"`epsilon` must be a number in \(0, inf\), got 0.0; for epsilon = 0 use `OptimalTransport"),
    "a continuous condition": (lambda: COUPLED.start(points(3), torch.rand(3)), "the condition `condition` of torch.float32 has continuous values.*integer labels"),
    "a short condition": (lambda: COUPLED.start(points(3), {"label": torch.zeros(2)}), r"`label` must be a tensor with one entry for each of 3 data points, got \(2,\)"),
    "a condition without end": (lambda: COUPLED.start(points(3), {"label": 1}), "`label` must be a tensor .* got int"),
    "two coupled parts": (lambda: gm.paths.Product(a=COUPLED, b=Gaussian((1,)), c=COUPLED), "at most one part of a product may have a coupling, got `a`, `c`"),
    "two coupled parts, deep": (lambda: gm.paths.Product(a=COUPLED, b=gm.paths.Product(c=COUPLED)), "at most one part"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_wrong_couplings_are_refused(name):
    call, message = BAD[name]
    with pytest.raises(gm.GenmatchError, match=message):
        call()


def test_continuous_conditions_are_refused_before_training():
    model = TinyVector()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(gm.GenmatchError, match="pass integer labels"):
        gm.train(gm.Flow(Gaussian((1,), coupling=OptimalTransport())), model, (points(8, 1).float(), torch.rand(8)), steps=2)
    assert all(a.equal(b) for a, b in zip(before, model.parameters(), strict=True))


# Products


def test_one_part_of_a_product_may_be_coupled():
    path = gm.paths.Product(place=COUPLED, word=Mixture((3,), 4, source="uniform"))
    assert not path.is_independent
    x1 = {"place": points(20), "word": torch.zeros(20, 3, dtype=torch.int64)}
    x0 = path.start(x1, rng=seeded())
    drawn = path.source(20, rng=seeded())
    assert x0["word"].equal(drawn["word"])
    assert x0["place"].equal(OptimalTransport().pair(drawn["place"], x1["place"], COUPLED.space, {}))


def test_two_coupled_parts_would_tie_their_noises():
    """Both parts of the data have one sign; in batches of two E[x0 y0] = (E max)^2 = 1 / pi, where sampling starts from 0."""
    x1, rng = torch.tensor([[-1.0], [1.0]], dtype=F64), seeded()
    path = Gaussian((1,), dtype=F64, coupling=OptimalTransport())
    products = torch.stack([path.start(x1, rng=rng) * path.start(x1, rng=rng) for _ in range(1500)])
    assert float(products.mean()) == pytest.approx(1 / math.pi, abs=0.08)


def test_paths_are_told_apart_by_their_coupling():
    paths = [Gaussian((2,)), Gaussian((2,), coupling=OptimalTransport()), Gaussian((2,), coupling=Sinkhorn(0.5)), Gaussian((2,), coupling=Sinkhorn(1.0))]
    assert len({path.signature for path in paths}) == 4
    assert repr(paths[2]) == "Gaussian((2,), schedule=CondOT(), coupling=Sinkhorn(epsilon=0.5))"
    assert repr(Geodesic(Sphere(1), coupling=OptimalTransport())).endswith("coupling=OptimalTransport())")
    with pytest.raises(gm.GenmatchError, match="must follow one path"):
        gm.Superposition([gm.Flow(paths[0]), gm.Flow(paths[1])], [0.5, 0.5])
    both = gm.Superposition([gm.Flow(paths[1]), gm.Flow(paths[1])], [0.5, 0.5], heads="shared")
    assert both.path.coupling == OptimalTransport()


@every_coupling
def test_start_checks_the_data(coupling):
    with pytest.raises(gm.GenmatchError, match="`x1` must have shape"):
        Gaussian((2,), coupling=coupling).start(torch.zeros(3, 5))
