"""Samples do not depend on the batches that they are drawn in."""

import pytest
import torch

import genmatch as gm
from genmatch.paths import Gaussian, Geodesic, Mixture, Noising, Sequential
from genmatch.rows import GROUP, Groups, Rows, integers, normal, uniform
from genmatch.spaces import SO3, Sphere, Torus
from tests.mutants import CHAIN, FLOW_AND_JUMPS, JUMPS, METRIC, REAL_MIXTURE
from tests.test_product_states import JOINT
from tests.toys import seeded

N = GROUP + 9
PROCESSES = [
    gm.Flow(Gaussian((2,))),
    gm.Diffusion(Gaussian((2,))),
    gm.Diffusion(Gaussian((2,)), prediction="score"),
    gm.Flow(Geodesic(Sphere(2))),
    gm.Flow(Geodesic(Torus(1))),
    gm.Flow(Geodesic(SO3())),
    gm.CTMC(Mixture((3,), 4)),
    gm.CTMC(Mixture((3,), 4, source="uniform")),
    gm.CTMC(Mixture((3,), 4, source="uniform"), rates="reversal"),
    gm.CTMC(Mixture((2,), 3, source=torch.tensor([0.5, 0.2, 0.3]))),
    gm.CTMC(METRIC),
    gm.CTMC(Noising((2,), CHAIN)),
    gm.processes.Autoregressive(Sequential(3, 4)),
    gm.LevelFlow(Gaussian((2,)), bins=torch.tensor([-1.0, 0.0, 1.5])),
    JUMPS,
    REAL_MIXTURE,
    FLOW_AND_JUMPS,
    JOINT,
]
UNKEYED = {"thinning"}
"""Solvers that draw as often as the states of a batch ask for."""


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_seed_gives_the_same_samples_for_every_size_of_a_batch(process):
    data = process.data_space.random(5, rng=seeded(1))
    model = gm.oracle(process, data)
    for solver in set(gm.solvers.available(process)) - UNKEYED:
        whole, *cut = (gm.sample(process, model, N, steps=2, solver=solver, seed=3, batch_size=size) for size in (None, 31))
        for other in cut:
            for a, b in zip(*(gm.tensors.leaves(x) for x in (whole, other)), strict=True):
                gap = (a.double() - b.double()).abs().max()
                assert float(gap) < 2e-4, f"{solver}: {gap}"


def test_conditions_and_what_is_known_go_with_their_samples():
    process = gm.CTMC(Mixture((3,), 4))
    known = {0: torch.arange(N) % 4}
    one, two = (gm.sample(process, lambda x, t: torch.zeros(*x.shape, 4), N, steps=4, seed=0, clamp=known, batch_size=size) for size in (None, 10))
    assert torch.equal(one, two)
    assert torch.equal(one[:, 0], known[0])


def test_samples_of_a_call_differ_and_calls_with_one_generator_differ():
    process, rng = gm.Flow(Gaussian((2,))), seeded()
    one, two = (gm.sample(process, lambda x, t: 0 * x, 3 * GROUP, steps=1, rng=rng) for _ in range(2))
    assert len(torch.cat([one, two]).unique(dim=0)) == 6 * GROUP


def test_a_small_call_draws_from_the_generator_itself():
    rng = seeded()
    assert Groups(rng, GROUP).part(0, GROUP) is rng
    part = Groups(rng, GROUP + 1).part(0, GROUP + 1)
    assert isinstance(part, Rows)
    assert torch.equal(normal((GROUP + 1, 2), rng=part)[:GROUP], normal((GROUP, 2), rng=seeded()))


def test_rows_of_each_kind_and_what_belongs_to_no_sample():
    def draws(*parts):
        found = [Groups(seeded(), 200)] * len(parts)
        return [
            (uniform((b - a, 2), rng=r), normal((b - a,), rng=r), integers(9, (b - a, 3), rng=r))
            for a, b, r in ((a, b, g.part(a, b)) for g, (a, b) in zip(found, parts, strict=True))
        ]

    (whole,), cut = draws((0, 200)), draws((0, 50), (50, 137), (137, 200))
    for kind in range(3):
        assert torch.equal(whole[kind], torch.cat([part[kind] for part in cut]))
    groups = Groups(seeded(), 200)
    alone = [torch.rand((), generator=groups.part(a, a + 20)) for a in (0, 100)]
    assert torch.equal(*alone)
