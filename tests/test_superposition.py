"""Superpositions: every identity holds for any weights that sum to one, and for no others."""

import pytest
import torch

import genmatch as gm
from genmatch.generators import Sum

LINE = gm.paths.Gaussian((1,))
CHAIN = gm.paths.Mixture((2,), vocab_size=3, source="uniform")
SUPERPOSITIONS = [
    gm.Superposition([gm.Flow(LINE), gm.Diffusion(LINE, noise=1.0)], weights=[0.3, 0.7]),
    gm.Superposition([gm.Flow(LINE, "data"), gm.Diffusion(LINE)], weights=[lambda t: t, lambda t: 1 - t], heads="shared"),
    gm.Superposition([gm.Flow(LINE, "data"), gm.Flow(LINE, "noise"), gm.Diffusion(LINE, noise=0.5)], weights=[0.2, 0.3, 0.5]),
    gm.Superposition([gm.CTMC(CHAIN), gm.CTMC(CHAIN)], weights=[0.5, 0.5], heads="shared"),
]


@pytest.mark.parametrize("process", SUPERPOSITIONS, ids=lambda p: f"{'+'.join(p.names)} {p.heads}")
def test_every_identity_holds(process):
    report = gm.check_process(process)
    assert report.passed, str(report)


def test_weights_of_one_and_one_are_refused_and_would_be_wrong():
    with pytest.raises(gm.GenmatchError, match=r"sum to 1 at every time.*got 2 at t = 0"):
        gm.Superposition([gm.Flow(LINE), gm.Diffusion(LINE)], weights=[1.0, 1.0])

    class TwiceTheClock(gm.Superposition):
        def weights_at(self, t):
            return 2 * super().weights_at(t)

        def _check_weights(self):
            pass

    report = gm.check_process(TwiceTheClock([gm.Flow(LINE), gm.Diffusion(LINE)], weights=[0.5, 0.5]))
    assert {"forward-conditional", "forward-marginal"} <= {failure.id for failure in report.failures}


def test_the_generator_is_the_weighted_sum_at_each_time():
    process = SUPERPOSITIONS[1]
    x, t = torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    output = torch.ones(3, 1, dtype=torch.float64)
    whole = Sum(*process.generator(output, x, t).terms)
    flow = gm.Flow(LINE, "data").generator(output, x, t)
    diffusion = Sum(*gm.Diffusion(LINE).generator(output, x, t).terms)
    w = t.unsqueeze(-1)
    torch.testing.assert_close(whole.drift.velocity, w * flow.velocity + (1 - w) * diffusion.drift.velocity)
    torch.testing.assert_close(whole.brownian.variance, (1 - w) * torch.ones(3, 1, dtype=torch.float64))


@pytest.mark.parametrize("solver", ["exact", "euler"])
def test_marginals_by_simulation(solver):
    """Kolmogorov-Smirnov distance of 20,000 particles to the exact law at t = 0.9: 5 % critical value 0.0096."""
    process = SUPERPOSITIONS[0]
    atoms, weights = torch.tensor([[-1.0], [0.8]], dtype=torch.float64), torch.tensor([0.4, 0.6])
    start = torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = 1 - torch.logspace(0, -1, 201, dtype=torch.float64)
    times[0] = 0
    run = gm.simulate(process, gm.oracle(process, atoms, weights), start, times, solver=solver, rng=torch.Generator().manual_seed(1))
    x = run.states[-1].sort(0).values
    exact = torch.special.ndtr((x - 0.9 * atoms.T) / 0.1) @ weights.double()
    empirical = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    assert float((exact - empirical).abs().max()) < 0.015


class MovingCorrector(gm.Langevin):
    """A corrector that claims a draw of its own, to where no other process goes."""

    def transition(self, output, x, t, s, *, rng=None):
        return x + 100

    finish = transition


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_corrector_leads_nowhere_whatever_its_place(first):
    flow, corrector = gm.Flow(LINE, "data"), MovingCorrector(LINE)
    pairs = [(corrector, 0.5), (flow, 1.0)] if first else [(flow, 1.0), (corrector, 0.5)]
    processes, weights = zip(*pairs, strict=True)
    process = gm.Superposition(processes, weights, heads="shared")
    x, t = torch.zeros(5, 1, dtype=torch.float64), torch.full((5,), 0.2, dtype=torch.float64)
    assert torch.equal(process.finish(x + 1, x, t), flow.finish(x + 1, x, t))
    # A step of one process would leave the correction out, or be nothing else.
    assert "exact" not in gm.solvers.available(process)
    with pytest.raises(gm.GenmatchError, match="defines no `transition`; use solver='euler'"):
        process.transition(x + 1, x, t, t + 0.3)


def test_the_same_calls_train_and_sample_it():
    process = SUPERPOSITIONS[0]

    net = gm.nn.MLP(process.space, process.output_shape, width=16, depth=1)
    result = gm.train(process, net, torch.ones(20, 1), steps=3, seed=0)
    assert gm.sample(process, result.model, 5, steps=3, seed=0).shape == (5, 1)
    assert gm.solvers.available(process)[:2] == ["exact", "euler"]


def test_wrong_requests_say_why():
    flow = gm.Flow(LINE)
    with pytest.raises(gm.GenmatchError, match="must follow one path"):
        gm.Superposition([flow, gm.Flow(gm.paths.Gaussian((1,), schedule=gm.schedules.Cosine()))], weights=[0.5, 0.5])
    one, two = (gm.paths.Mixture((1,), 2, source=torch.tensor(law)) for law in ([0.5, 0.5], [0.4, 0.6]))
    with pytest.raises(gm.GenmatchError, match="must follow one path"):
        gm.Superposition([gm.CTMC(one), gm.CTMC(two)], weights=[0.5, 0.5])
    with pytest.raises(gm.GenmatchError, match="regress different ones"):
        gm.Superposition([flow, gm.Diffusion(LINE)], weights=[0.5, 0.5], heads="shared")
    with pytest.raises(gm.GenmatchError, match="one weight for each"):
        gm.Superposition([flow], weights=[0.5, 0.5])
    with pytest.raises(gm.GenmatchError, match="non-negative"):
        gm.Superposition([flow, flow], weights=[1.5, -0.5])
    with pytest.raises(gm.GenmatchError, match=r"got 0\.5 at t = 0"):
        gm.Superposition([flow, flow], weights=[lambda t: t, 0.5])
    with pytest.raises(gm.GenmatchError, match="'separate' or 'shared'"):
        gm.Superposition([flow, flow], weights=[0.5, 0.5], heads="both")
