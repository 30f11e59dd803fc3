"""The conformance kit: silent on correct processes, and no mutant gets past it."""

import copy
import os

import pytest
import torch
from birth import Birth

import genmatch as gm
from genmatch.checks import CHECKS, CheckResult, Report
from genmatch.checks.base import Tally, check
from genmatch.checks.run import LEVELS
from genmatch.checks.statistics import bernstein_score, chi_square_score, derivative, z_score
from genmatch.checks.subject import Subject
from genmatch.paths import Blocks, Discrete, Gaussian, Geodesic, Metric, Mixture, Noising, Sequential
from genmatch.paths.couplings import OptimalTransport, Sinkhorn
from genmatch.schedules import VE, VP, CondOT, Cosine, Polynomial
from genmatch.spaces import SO3, Categorical, Sphere, Torus
from tests.mutants import (
    BLOCKS,
    CHAIN,
    CORRECTOR,
    COUPLED,
    FLOW,
    FLOW_AND_JUMPS,
    JUMPS,
    LANGEVIN,
    LAW,
    MASK,
    METRIC,
    MUTANTS,
    REAL_MIXTURE,
    Broken,
    BrokenPath,
    squared_slope,
    squared_table,
)
from tests.test_product_states import JOINT


class OnlyGenerator(Broken):
    """A process without `transition`."""

    def supports(self, ability):
        return ability != "transition" and super().supports(ability)


POSITIONS = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
CORRECT = [
    *(gm.Flow(Gaussian((2,)), prediction=name) for name in ("velocity", "data", "noise", "score")),
    *(gm.Flow(Gaussian((2,), schedule=schedule), prediction=name) for schedule in (Cosine(), VP(), VE(), Polynomial(2)) for name in ("velocity", "noise")),
    gm.Flow(Gaussian((1, 2, 2)), prediction="data"),
    gm.Diffusion(Gaussian((2,)), noise=1.0),
    gm.Diffusion(Gaussian((2,), schedule=Cosine()), noise=lambda t: 1.5 * (1 - t), prediction="velocity"),
    gm.Diffusion(Gaussian((1,), schedule=VP()), noise=0.5, prediction="noise"),
    gm.Diffusion(Gaussian((1,)), noise=0.0, prediction="score"),
    gm.CTMC(Mixture((3,), vocab_size=4)),
    gm.CTMC(Mixture((2,), vocab_size=3, schedule=Cosine())),
    gm.CTMC(Mixture((2,), vocab_size=3, source="uniform", schedule=Polynomial(2))),
    gm.CTMC(Mixture((2,), vocab_size=3, source=torch.tensor([0.5, 0.5, 0.0]), schedule=Polynomial(3))),
    gm.CTMC(Mixture((2,), vocab_size=3, source=POSITIONS, schedule=Cosine())),
    gm.CTMC(Mixture((2, 3), vocab_size=5, source="uniform")),
    *(gm.CTMC(Mixture((2,), vocab_size=3, source=source), prediction=name, rates=rates) for source in ("mask", "uniform") for name in ("cavity", "score") for rates in ("mixture", "reversal")),
    gm.CTMC(Mixture((2,), vocab_size=3, schedule=Cosine()), rates="reversal"),
    gm.CTMC(Mixture((2,), vocab_size=3, source="uniform", schedule=Cosine()), rates="reversal"),
    gm.CTMC(Mixture((2,), vocab_size=3, source=torch.tensor([0.5, 0.5, 0.0]), schedule=Polynomial(2)), rates="reversal"),
    gm.CTMC(Mixture((2,), vocab_size=3, source=POSITIONS), prediction="score", rates="reversal"),
    gm.CTMC(METRIC),
    gm.CTMC(Metric((2,), "euclidean", embeddings=torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.3, 0.9]]), schedule=Cosine()), prediction="cavity"),
    gm.CTMC(Noising((2,), CHAIN)),
    gm.CTMC(Noising((1,), CHAIN, schedule=Polynomial(2)), prediction="cavity"),
    gm.CTMC(Discrete((2,), squared_table, squared_slope)),
    *(gm.Flow(Geodesic(space, schedule)) for space, schedule in (
        (Sphere(1), CondOT()), (Sphere(2), CondOT()), (Sphere(3), Polynomial(2)), (Torus(1), CondOT()), (Torus(2), Cosine()), (SO3(), CondOT()),
    )),
    gm.Flow(Geodesic(Sphere(2, dtype=torch.float64))),
    JUMPS,
    gm.JumpProcess(Gaussian((2,), schedule=Cosine()), bins=torch.tensor([-1.0, 0.0, 1.5])),
    REAL_MIXTURE,
    LANGEVIN,
    CORRECTOR,
    FLOW_AND_JUMPS,
    gm.LevelFlow(Gaussian((2,)), bins=torch.tensor([-1.0, 0.0, 1.5])),
    gm.Flow(Gaussian((2,), coupling=OptimalTransport())),
    gm.Flow(Gaussian((2,), schedule=Cosine(), coupling=Sinkhorn(1.0), dtype=torch.float64), prediction="data"),
    gm.Flow(Geodesic(Sphere(1), coupling=OptimalTransport())),
    gm.Product(place=gm.Flow(Gaussian((1,), coupling=OptimalTransport()), "noise"), word=gm.CTMC(Mixture((1,), vocab_size=3))),
    gm.Superposition([gm.Flow(Gaussian((2,))), gm.Diffusion(Gaussian((2,)))], [0.5, 0.5]),
    gm.processes.Autoregressive(Sequential(3, vocab_size=4)),
    gm.processes.Autoregressive(Sequential(2, vocab_size=3, schedule=Cosine())),
    BLOCKS,
    gm.processes.BlockDiffusion(Blocks(3, vocab_size=2, block=2, schedule=Cosine())),
    Birth(Categorical((2,), vocab_size=7)),
    Birth(Categorical((1,), vocab_size=10)),
]  # fmt: skip
# No false alarm in 20 seeds: CHECK_SEEDS=20 CHECK_LEVEL=full pytest tests/test_checks.py -k correct_processes
SEEDS = range(int(os.environ.get("CHECK_SEEDS", "1")))
LEVEL = os.environ.get("CHECK_LEVEL", "quick")
"""Exact checks are the same at both levels; simulated ones take fewer draws, with as few false alarms."""


@pytest.mark.parametrize("process", CORRECT, ids=repr)
@pytest.mark.parametrize("seed", SEEDS)
def test_correct_processes_pass(process, seed):
    report = gm.check_process(process, seed=seed, level=LEVEL)
    assert report.passed, str(report)
    assert [result.id for result in report.results] == list(CHECKS)


@pytest.mark.parametrize("process", [FLOW, gm.Diffusion(Gaussian((1,))), LAW, gm.Flow(Geodesic(Torus(1)))], ids=repr)
def test_representative_processes_pass_in_full(process):
    report = gm.check_process(process)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "process", [gm.Flow(Gaussian((1, 8, 8))), gm.Diffusion(Gaussian((1, 8, 8))), gm.CTMC(Mixture((36,), 9)), JOINT], ids=lambda p: type(p).__name__
)
def test_large_processes_pass(process):
    report = gm.check_process(process, level="quick")
    assert report.passed, str(report)


@pytest.mark.parametrize(("name", "process", "id"), MUTANTS, ids=[f"{row[0]} ({row[2]})" for row in MUTANTS])
def test_mutant_is_caught(name, process, id):
    # Few draws show most mutants; only the subtle ones take all.
    results = (CHECKS[id](Subject(process, effort=effort)) for effort in (LEVELS["quick"], 0.4, LEVELS["full"]))
    assert any(result.outcome == "failed" for result in results), name


def test_every_check_has_a_mutant():
    assert {id for _, _, id in MUTANTS} == set(CHECKS)


def test_mutants_are_told_apart_from_their_originals():
    """A wrapper that changes nothing passes: what is caught is the change."""
    for process in (FLOW, LAW, COUPLED):
        report = gm.check_process(Broken(process, path=BrokenPath(process.path)), level="quick")
        assert report.passed, str(report)


def test_a_report_repeats():
    one, two = (gm.check_process(MASK, seed=3, level="quick") for _ in range(2))
    assert one == two
    assert str(one) == str(two)


def test_own_data_are_used():
    report = gm.check_process(FLOW, data=torch.tensor([[0.5, -0.5], [2.0, 1.0]]), level="quick")
    assert report.passed
    with pytest.raises(gm.GenmatchError, match=r"`data` must have shape \(B, 2\)"):
        gm.check_process(FLOW, data=torch.zeros(3, 3))


@pytest.mark.parametrize(("thing", "message"), [(3, "got int, which has no `path`"), (gm.Flow, "got the class Flow.*pass an instance")])
def test_refuses_what_is_no_process(thing, message):
    with pytest.raises(gm.GenmatchError, match=message):
        gm.check_process(thing)


class Homeless(gm.paths.Path):
    """A path whose author forgot its space."""

    _source = _sample = None


def test_a_process_that_lacks_something_is_told_what_and_where():
    forgetful = type("Forgetful", (gm.MarkovProcess,), {"target": None, "generator": None, "path": gm.paths.Gaussian((2,))})
    with pytest.raises(gm.GenmatchError, match=r"Forgetful has no `kinds`.*declare it, such as `kinds = frozenset\(\{'jump'\}\)`"):
        gm.check_process(forgetful())
    with pytest.raises(gm.GenmatchError, match="the path of Forgetful, Homeless, has no `space`; set it in the constructor of the path"):
        gm.check_process(type("Forgetful", (forgetful,), {"path": Homeless()})())
    with pytest.raises(gm.GenmatchError, match="Forgetful has no `path`; set it in the constructor"):
        gm.check_process(type("Forgetful", (gm.MarkovProcess,), {"target": None, "generator": None})())


def test_an_output_shape_that_does_not_fit_is_not_said_to_be_that_of_a_network_alone():
    report = gm.check_process(type("Narrow", (Birth,), {"output_shape": (2,)})(Categorical((2,), 3)), level="quick")
    assert "natural(target) and `output_shape` do not fit" in report["shapes"].message


def test_an_exception_is_a_failure_with_its_message():
    def broken(good, output, x, t):
        raise RuntimeError("no such thing")

    report = gm.check_process(Broken(MASK, generator=broken), level="quick")
    assert not report.passed
    message = report["forward-conditional"].message
    assert message.startswith("raised RuntimeError: no such thing. Look at line ")
    assert message.endswith("of test_checks.py, in `broken`.")
    assert report["path-normalised"].outcome == "passed"


def test_a_generator_that_is_a_tensor_is_said_to_be_one():
    report = gm.check_process(Broken(FLOW, generator=lambda good, output, x, t: output), level="quick")
    for id in ("forward-conditional", "affine", "finite-gradients", "step", "shapes"):
        assert "`generator` must return a generator, such as `Drift(velocity)`, got Tensor" in report[id].message


def test_declared_failures_are_known():
    report = gm.check_process(
        Broken(FLOW, generator=lambda good, *a: good.generator(*a) * 1.1, caveats={"forward-conditional": "it runs fast", "data": "not needed"}),
        level="quick",
    )
    assert report["forward-conditional"].outcome == "known"
    assert report["forward-conditional"].message.startswith("it runs fast")
    assert report["data"].outcome == "passed"
    assert "forward-conditional" not in [result.id for result in report.failures]
    assert "forward-marginal" in [result.id for result in report.failures]


@pytest.mark.parametrize("schedule", [VP(), VE()])
def test_schedules_declare_what_they_break(schedule):
    report = gm.check_process(gm.Flow(Gaussian((1,), schedule=schedule)), level="quick")
    assert {result.id for result in report.results if result.outcome == "known"} == set(schedule.caveats)


def test_what_does_not_apply_is_skipped_with_a_reason():
    report = gm.check_process(OnlyGenerator(FLOW), level="quick")
    assert report.passed
    for id in ("transition-path", "transition-generator"):
        assert report[id].outcome == "skipped"
        assert "no `transition`" in report[id].message
    assert report["rates"].outcome == "skipped"


class NoDensity(BrokenPath):
    has_log_prob = False


def test_a_path_without_density_is_tested_by_its_draws():
    good = gm.check_process(Broken(FLOW, path=NoDensity(FLOW.path)), level="quick")
    assert good.passed, str(good)
    assert good["forward-marginal"].outcome == "skipped"
    for process, factor in ((FLOW, 1.1), (LAW, 1.5)):
        bad = Broken(process, path=NoDensity(process.path), generator=lambda good, *a, factor=factor: good.generator(*a) * factor)
        assert CHECKS["forward-conditional"](Subject(bad)).outcome == "failed"


def test_global_randomness_is_untouched():
    before = torch.get_rng_state()
    gm.check_process(MASK, level="quick")
    assert torch.equal(before, torch.get_rng_state())


def test_a_report_is_a_readable_table():
    report = Report(
        "Flow(...)",
        (
            CheckResult("source", "p_0(x | x1) = p_0(x)", "known", 9.0, 5.0, "a trace is left"),
            CheckResult("data", "X_1 = x1", "passed", 0.0, 1.0),
            CheckResult("forward-conditional", "d/dt E f = E L f", "failed", 12.345, 5.6, "largest at t = 0.5"),
            CheckResult("rates", "Q >= 0", "skipped", message="not finite"),
        ),
    )
    assert str(report).splitlines() == [
        "Flow(...): 1 of 3 checks failed, 1 known to fail, 1 skipped",
        "",
        "check                outcome   figure  tolerance",
        "source               known          9          5",
        "data                 passed         0          1",
        "forward-conditional  failed      12.3        5.6",
        "rates                skipped        -          -",
        "",
        "forward-conditional breaks  d/dt E f = E L f",
        "    largest at t = 0.5",
        "",
        "source is known to break  p_0(x | x1) = p_0(x)",
        "    a trace is left",
        "",
        "rates does not test  Q >= 0",
        "    not finite",
    ]
    assert [result.id for result in report.failures] == ["forward-conditional"]
    assert not report.passed


def test_an_id_is_used_once():
    with pytest.raises(gm.GenmatchError, match="`data` is taken"):
        check("data", "", "")(lambda subject: None)


# The statistics behind the checks


def test_a_violation_that_is_no_number_is_the_largest():
    tally = Tally(tolerance=1.0)
    tally.add(0.5, "here")
    tally.add(torch.tensor([0.1, float("nan")]), "there")
    tally.add(0.7, "later")
    found = tally.finding()
    assert found.figure == float("inf")
    assert found.message == "largest at there"


def test_z_scores_are_standard_normal():
    rng = torch.Generator().manual_seed(0)
    z = torch.stack([z_score(torch.randn(1000, dtype=torch.float64, generator=rng), 1.0) for _ in range(2000)])
    assert abs(float((z**2).mean()) - 1) < 0.15


def test_rare_events_are_given_room():
    """Counts of mean 2 in 20000 draws: the normal law calls ten of them impossible, and they are not."""
    few, many = torch.full((2, 20_000), -1e-4, dtype=torch.float64)
    few[:10] += 1
    many[:40] += 1
    assert float(z_score(few, 1.0)) > 2.5
    assert float(bernstein_score(few, 1.0)) < 1.5
    assert float(bernstein_score(many, 1.0)) > 5


def test_chi_square_scores_are_standard_normal():
    rng = torch.Generator().manual_seed(0)
    law = torch.tensor([0.5, 0.3, 0.1, 0.05, 0.0499, 0.0001, 0.0], dtype=torch.float64)
    draws = [torch.multinomial(law, 2000, replacement=True, generator=rng) for _ in range(2000)]
    scores = torch.stack([chi_square_score(torch.bincount(x, minlength=7).double(), law) for x in draws])
    assert abs(float(scores.mean())) < 0.1
    assert abs(float(scores.std()) - 1) < 0.1
    assert float(chi_square_score(torch.tensor([9.0, 0, 0, 0, 0, 0, 1.0]), law)) == float("inf")


@pytest.mark.parametrize("t", [0.01, 0.3, 0.95])
def test_the_derivative_is_exact_to_ten_digits(t):
    found = derivative(lambda s: torch.tensor(s**2.5, dtype=torch.float64), t)
    assert float(found) == pytest.approx(2.5 * t**1.5, rel=1e-9)


def test_the_kit_leaves_the_process_as_it_was():
    process = gm.Flow(Gaussian((2,)))
    before = copy.deepcopy(process.__dict__)
    gm.check_process(process, level="quick")
    assert repr(process.__dict__) == repr(before)
