"""Models with flow_matching's conventions run here unchanged, and lead to where its own solvers take them."""

import pytest
import torch

import genmatch as gm
from genmatch.adapters import FlowMatchingPosterior, FlowMatchingVelocity
from tests.toys import GaussianMixture, chain, grid, line, seeded, token_data, token_law

F64 = torch.float64


def trained_velocity():
    """A `ModelWrapper` as its documentation writes them: called by keywords, with `t` of any shape."""
    utils = pytest.importorskip("flow_matching.utils", reason="flow_matching is not installed: pip install -e .[bench]")
    law = GaussianMixture(gm.schedules.CondOT())

    class Velocity(utils.ModelWrapper):
        def forward(self, x, t, **extras):
            return law.velocity(x, t.expand(len(x)).double())

    return Velocity(torch.nn.Identity())


@pytest.mark.parametrize(("method", "solver"), [("euler", "euler"), ("midpoint", "midpoint"), ("heun2", "heun")])
def test_a_velocity_takes_the_same_steps_in_both(method, solver):
    model = trained_velocity()
    from flow_matching.solver import ODESolver

    x0 = torch.randn(100, 1, dtype=F64, generator=seeded())
    theirs = ODESolver(model).sample(x0, step_size=0.1, method=method, time_grid=torch.tensor([0.0, 0.8], dtype=F64))
    ours = gm.simulate(gm.Flow(line()), FlowMatchingVelocity(model), x0, grid(0.0, 0.8, 8), solver=solver).states[-1]
    assert torch.allclose(theirs, ours, atol=1e-12)


def test_its_path_is_ours():
    """What its path calls the target is what `Flow` regresses."""
    path = pytest.importorskip("flow_matching.path", reason="flow_matching is not installed: pip install -e .[bench]")
    x0, x1, t = torch.randn(6, 2, generator=seeded()), torch.randn(6, 2, generator=seeded(1)), torch.linspace(0.05, 0.95, 6)
    for name, schedule in (("CondOTScheduler", gm.schedules.CondOT()), ("CosineScheduler", gm.schedules.Cosine()), ("VPScheduler", gm.schedules.VP())):
        sample = path.AffineProbPath(getattr(path.scheduler, name)()).sample(x_0=x0, x_1=x1, t=t)
        flow = gm.Flow(gm.paths.Gaussian((2,), schedule=schedule))
        x = flow.path.sample(x1, t, x0=x0)
        assert torch.allclose(sample.x_t, x, atol=1e-5)
        assert torch.allclose(sample.dx_t, flow.target(x, t.double(), x1, x0=x0).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("logits", [False, True])
def test_a_posterior_with_the_mask_in_its_vocabulary_is_the_oracle(logits):
    utils = pytest.importorskip("flow_matching.utils", reason="flow_matching is not installed: pip install -e .[bench]")
    process = chain("mask")
    oracle = gm.oracle(process, token_data(), token_law("strong"))

    class Posterior(utils.ModelWrapper):
        def forward(self, x, t, **extras):
            output = torch.nn.functional.pad(oracle(x, t).softmax(-1), (0, 1))
            return output.log().clamp(min=-1e30) if logits else output

    model = FlowMatchingPosterior(Posterior(torch.nn.Identity()), process.space.vocab_size, logits=logits)
    x, t = process.space.enumerate(), torch.full((125,), 0.4, dtype=F64)
    assert torch.allclose(model(x, t).softmax(-1), oracle(x, t).softmax(-1), atol=1e-12)
    drawn = [gm.sample(process, m, 500, steps=8, seed=0) for m in (model, oracle)]
    assert torch.equal(*drawn)


def test_conditions_are_passed_on_by_name():
    model = FlowMatchingVelocity(lambda x, t, label: label.unsqueeze(-1) - 0 * x)
    run = gm.simulate(
        gm.Flow(line()), model, torch.zeros(2, 1, dtype=F64), grid(0.0, 0.5, 2), solver="euler", condition={"label": torch.tensor([1.0, 2.0]).double()}
    )
    assert run.states[-1].flatten().tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlowMatchingVelocity(3), "callable as model"),
        (
            lambda: FlowMatchingPosterior(lambda x, t: torch.zeros(1, 2, 7), 4)(torch.zeros(1, 2), torch.zeros(1)),
            "4 entries a token, or one more for the mask, got 7",
        ),
        (lambda: FlowMatchingPosterior(lambda x, t: -torch.ones(1, 2, 4), 4)(torch.zeros(1, 2), torch.zeros(1)), "pass logits=True"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()
