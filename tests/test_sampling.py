import math

import pytest
import torch

import genmatch as gm
from genmatch.generators import Drift
from tests.toys import SCHEDULES, GaussianMixture, chain, grid, line, name_of, seeded, token_data, token_law

F64 = torch.float64


def flow(prediction="velocity", schedule=None):
    return gm.Flow(line(schedule), prediction=prediction)


class Bare(gm.MarkovProcess):
    """A flow that defines no more than it must: no transition, no density of its own."""

    kinds = frozenset({"drift"})

    def __init__(self):
        self.path = line()

    def target(self, x, t, x1, *, x0=None):
        return x1

    def generator(self, output, x, t):
        return Drift((output - x) / (1 - t).unsqueeze(-1))


POINTS = torch.tensor([[-1.0], [0.5]], dtype=F64)
PROCESSES = [
    (flow("velocity"), POINTS),
    (flow("data", SCHEDULES[1]), POINTS),
    (flow("noise"), POINTS),
    (flow("score", SCHEDULES[4]), POINTS),
    (flow("data", SCHEDULES[5]), POINTS),
    (gm.Diffusion(line(), noise=1.0), POINTS),
    (gm.Diffusion(line(), noise=1.0, prediction="noise"), POINTS),
    (chain("mask"), token_data()[[5, 60]]),
    (chain("uniform", SCHEDULES[1]), token_data()[[5, 60]]),
    (chain("positions"), token_data()[[5, 60]]),
    (Bare(), POINTS),
]
CURVED = [(gm.Flow(gm.paths.Geodesic(space)), space.random(2, rng=seeded())) for space in (gm.spaces.Sphere(2), gm.spaces.Torus(2), gm.spaces.SO3())]
EVERY = [(process, data, name) for process, data in [*PROCESSES, *CURVED] for name in gm.solvers.available(process)]


@pytest.mark.parametrize(("process", "data", "name"), EVERY, ids=[f"{p}-{n}" for p, _, n in EVERY])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_solver_takes_any_number_of_steps(process, data, name, steps):
    model = gm.oracle(process, data)
    x = gm.sample(process, model, 5, solver=name, steps=steps, seed=0)
    assert process.space.validate(x).shape == (5, *process.space.shape)
    run = gm.simulate(process, model, process.path.source(5, rng=seeded()), grid(0, 1, steps), solver=name, rng=seeded())
    assert len(run.states) == len(run.times) == steps + 1
    calls = gm.solvers.get(name).calls
    if calls == 1:
        assert run.nfe == steps
    elif calls:
        assert (steps - 1) * calls + 1 <= run.nfe <= steps * calls + 1


@pytest.mark.parametrize(("process", "data"), PROCESSES, ids=[str(p) for p, _ in PROCESSES])
def test_one_step_ends_near_the_data(process, data):
    """From noise the first prediction is the mean of the data, or, for tokens, a draw of each from its marginal law."""
    x = gm.sample(process, gm.oracle(process, data), 4000, steps=1, seed=0)
    if process.space.size == 1:
        assert abs(float(x.mean()) - float(data.mean())) < 0.15
    else:
        assert x.unique(dim=0).tolist() == [[a, b, c] for a in (0, 3) for b in (1, 3) for c in (0, 1)]


def test_states_stand_on_the_grid_that_was_asked_for():
    times = torch.tensor([0.1, 0.15, 0.7, 0.95], dtype=F64)
    law = GaussianMixture(SCHEDULES[0])
    levels = torch.linspace(0.05, 0.95, 19, dtype=F64)
    run = gm.simulate(flow(), law.velocity, law.quantiles(levels, 0.1).unsqueeze(-1), times, solver="dopri5")
    assert torch.equal(run.times, times)
    for time, x in zip(times.tolist(), run.states, strict=True):
        assert torch.allclose(x[:, 0], law.quantiles(levels, time), atol=1e-4)


def test_the_model_is_asked_at_the_times_of_the_grid_and_never_at_one():
    asked = []

    def model(x, t):
        asked.append(t.unique().tolist())
        return -x

    gm.simulate(flow(), model, torch.ones(3, 1, dtype=F64), torch.tensor([0.0, 0.25, 1.0]), solver="euler")
    assert asked == [[0.0], [0.25]]
    for name in gm.solvers.available(flow()):
        asked.clear()
        gm.simulate(flow(), model, torch.ones(3, 1, dtype=F64), grid(0, 1, 4), solver=name)
        assert max(max(times) for times in asked) < 1


def test_a_process_without_a_transition_ends_with_a_method_of_first_order():
    process, asked = Bare(), []
    for name in ("heun", "rk4", "midpoint", "euler", "dopri5"):

        def model(x, t):
            asked.append(float(t.max()))
            return torch.full_like(x, 2.0)

        x = gm.sample(process, model, 4, solver=name, steps=4, seed=0)
        assert torch.allclose(x, torch.full_like(x, 2.0), atol=1e-6)
    assert max(asked) < 1


def test_simulation_may_stop_before_the_end_and_start_after_the_beginning():
    run = gm.simulate(flow(), lambda x, t: torch.ones_like(x), torch.zeros(2, 1, dtype=F64), torch.tensor([0.25, 0.5, 0.75]), solver="heun")
    assert [x[0].item() for x in run.states] == [0.0, 0.25, 0.5]
    assert run.nfe == 4
    assert float(gm.sample(flow(), lambda x, t: torch.ones_like(x), 2, times=torch.tensor([0.0, 0.5]), seed=0).std()) > 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("prediction", ["velocity", "noise", "score"])
def test_predictions_that_say_nothing_at_zero_start_a_moment_later(schedule, prediction):
    process, times = flow(prediction, schedule), []
    model = gm.oracle(process, POINTS)

    def watched(x, t):
        times.append(float(t.min()))
        return model(x, t)

    x = gm.sample(process, watched, 500, steps=16, seed=0)
    assert min(times) == process.t_min
    assert bool(x.isfinite().all())
    share = float((x > -0.25).double().mean())
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / 500) + 0.02
    early = gm.simulate(process, model, process.path.source(3, rng=seeded()), torch.tensor([0.0, 1e-5, 0.5], dtype=F64), rng=seeded())
    if process.t_min:
        assert torch.equal(early.states[0], early.states[1])
        assert early.nfe == 1


def test_seeds_repeat_and_leave_the_global_state_alone():
    process, model = chain("uniform"), gm.oracle(chain("uniform"), token_data(), token_law("weak"))
    before = torch.get_rng_state()
    one, two, other = (gm.sample(process, model, 50, steps=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(one, gm.sample(process, model, 50, steps=4, rng=seeded(1)))
    assert not torch.equal(*(gm.sample(process, model, 50, steps=4) for _ in range(2)))
    gm.sample(gm.Diffusion(line()), lambda x, t: 0 * x, 5, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(gm.GenmatchError, match="`seed` or `rng`, not both"):
        gm.sample(process, model, 2, seed=0, rng=seeded())


def test_batches_are_of_the_size_that_was_asked_for():
    sizes = []

    def model(x, t, condition):
        sizes.append(len(x))
        assert len(condition) == len(x)
        return condition.unsqueeze(-1) - x

    condition = torch.arange(10, dtype=F64)
    x = gm.sample(flow("velocity"), model, 10, steps=2, batch_size=4, condition=condition, solver="exact", seed=0)
    assert sizes[1:] == [4, 4, 4, 4, 2, 2]
    assert x.shape == (10, 1)
    assert sizes[0] == 1


def test_conditions_reach_the_model_by_name():
    wanted = torch.tensor([3.0, -2.0], dtype=F64)

    def plain(x, t, condition):
        return condition.unsqueeze(-1).expand_as(x)

    def named(x, t, label, scale):
        return (label * scale).unsqueeze(-1).expand_as(x)

    process = flow("data")
    assert gm.sample(process, plain, 2, condition=wanted, steps=3, seed=0)[:, 0].tolist() == [3.0, -2.0]
    assert gm.sample(process, named, 2, condition={"label": wanted, "scale": 2 * torch.ones(2)}, steps=3, seed=0)[:, 0].tolist() == [6.0, -4.0]
    run = gm.simulate(process, plain, torch.zeros(2, 1, dtype=F64), grid(0, 1, 2), condition=wanted)
    assert run.states[-1][:, 0].tolist() == [3.0, -2.0]


def test_a_module_samples_in_evaluation_mode_and_gets_its_mode_back():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Dropout(0.5)
            self.modes = []

        def forward(self, x, t):
            self.modes.append(self.training or self.inner.training)
            return self.inner(x)

    model = Model().train()
    model.inner.eval()
    gm.sample(flow(), model, 3, steps=2, seed=0)
    gm.simulate(flow(), model, torch.zeros(3, 1, dtype=F64), grid(0, 1, 2))
    assert not any(model.modes)
    assert model.training
    assert not model.inner.training


def test_nothing_is_written_to_in_place():
    process, x0, times = chain("uniform"), token_data()[:8].clone(), grid(0, 1, 3)
    run = gm.simulate(process, gm.oracle(process, token_data()), x0, times, rng=seeded())
    assert torch.equal(x0, token_data()[:8])
    assert torch.equal(times, grid(0, 1, 3))
    assert run.states[0] is x0


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_models_of_either_precision_get_times_in_theirs(dtype):
    seen = set()

    class Model(torch.nn.Module):
        def __init__(self, out):
            super().__init__()
            self.scale, self.out = torch.nn.Parameter(torch.ones(1, dtype=dtype)), out

        def forward(self, x, t):
            seen.add(t.dtype)
            return self.scale * torch.zeros(len(x), *self.out, dtype=dtype)

    for process in (gm.Flow(gm.paths.Gaussian((2,), dtype=dtype)), chain("mask")):
        gm.sample(process, Model(process.output_shape), 2, steps=2, seed=0)
    assert seen == {dtype}


def test_half_precision_models_get_times_that_do_not_round_to_one():
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

        def forward(self, x, t):
            seen.append(t)
            return 0 * x

    gm.simulate(gm.Flow(gm.paths.Gaussian((1,))), Model(), torch.zeros(1, 1), torch.tensor([0.999, 1.0]))
    assert seen[0].dtype == torch.float32
    assert float(seen[0]) < 1


def test_the_default_solver_samples_the_law_of_the_data():
    law, process, n = token_law("weak"), chain("mask"), 5000
    x = gm.sample(process, gm.oracle(process, token_data(), law), n, steps=32, seed=0)
    share = process.path.data_space.index(x).bincount(minlength=64) / n
    # The expected distance of 5000 draws of 64 equally likely states is 0.045.
    assert float((share - law).abs().sum() / 2) < 0.06
