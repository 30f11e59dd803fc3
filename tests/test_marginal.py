"""The marginalization trick and the oracle."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.marginal import log_marginal
from tests.toys import PREDICTIONS, SCHEDULES, chain, full, line, name_of, seeded, token_data, token_law, token_marginal

F64 = torch.float64
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
DATA, WEIGHTS = torch.tensor([[-1.0], [0.2], [1.5]], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64)


def posterior(schedule, x, t):
    alpha, sigma = schedule.alpha(t).unsqueeze(-1), schedule.sigma(t).unsqueeze(-1)
    joint = WEIGHTS * torch.exp(-((x - alpha * DATA.T) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    return joint / joint.sum(-1, keepdim=True), joint.sum(-1)


@every
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_oracle_is_the_posterior_mean_of_the_target(schedule, prediction):
    process = gm.Flow(line(schedule), prediction=prediction)
    t = torch.tensor([0.3, 0.6, 0.9], dtype=F64)
    x = process.path.sample(DATA, t, rng=seeded())
    weights, density = posterior(schedule, x, t)
    targets = torch.stack([process.target(x, t, z.expand(3, 1)) for z in DATA], 1).squeeze(-1)
    assert torch.allclose(gm.oracle(process, DATA, WEIGHTS)(x, t), (weights * targets).sum(-1, keepdim=True), rtol=1e-10, atol=1e-10)
    assert torch.allclose(gm.oracle(process, DATA, WEIGHTS).posterior(x, t), weights, rtol=1e-10, atol=1e-14)
    assert torch.allclose(log_marginal(process, DATA, x, t, weights=WEIGHTS), density.log(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", [gm.Flow(line(), prediction="velocity"), gm.Diffusion(line(), noise=0.7), chain("mask"), chain("uniform")], ids=str)
def test_the_marginal_action_is_the_average_of_conditional_actions(process):
    tokens = process.space.size == 3
    data, weights = (token_data()[[0, 7, 22, 63]], torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)) if tokens else (DATA, WEIGHTS)
    t = full(0.4, 6)
    x = process.path.sample(data[torch.arange(6) % len(data)], t, rng=seeded())
    f = lambda x: torch.cos(x.double() @ torch.linspace(0.3, 1, x.shape[-1], dtype=F64))  # noqa: E731
    actions = torch.stack([gm.conditional_generator(process, x, t, z.expand_as(x)).apply(f, x) for z in data], -1)
    share = gm.oracle(process, data, weights).posterior(x, t)
    marginal = gm.marginal_generator(process, data, x, t, weights=weights).apply(f, x)
    assert torch.allclose(marginal, (share * actions).sum(-1), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(marginal, actions.mean(-1), rtol=1e-3)


def test_log_marginal_of_tokens_is_normalised():
    process, law = chain("tokens"), token_law("weak")
    states = process.space.enumerate()
    p = log_marginal(process, token_data(), states, full(0.7, len(states)), weights=law).exp()
    assert torch.allclose(p, token_marginal("tokens", 0.7, law), rtol=1e-11)


def test_equal_weights_are_the_default_and_scale_does_not_matter():
    process, x, t = chain("uniform"), token_data()[:5], full(0.3, 5)
    data = token_data()[10:20]
    plain = gm.oracle(process, data)(x, t)
    for weights in (torch.ones(10), torch.full((10,), 7.0)):
        assert torch.allclose(gm.oracle(process, data, weights)(x, t), plain)


def test_states_off_the_path_get_a_finite_answer():
    process = chain("mask")
    model = gm.oracle(process, torch.tensor([[0, 0, 0]]))
    weights = model.posterior(torch.tensor([[1, 4, 4]]), full(0.5, 1))
    assert weights.tolist() == [[1.0]]
    assert not bool(model(torch.tensor([[1, 4, 4]]), full(0.5, 1)).isnan().any())


def test_large_batches_are_cut_without_a_trace(monkeypatch):
    process = gm.Flow(line(), prediction="data")
    model = gm.oracle(process, DATA, WEIGHTS)
    x, t = torch.randn(11, 1, dtype=F64, generator=seeded()), torch.linspace(0.1, 0.9, 11, dtype=F64)
    whole = model(x, t)
    monkeypatch.setattr("genmatch.marginal._CHUNK", 6)
    assert torch.allclose(model(x, t), whole, rtol=1e-14)


def test_the_oracle_takes_the_dtype_of_the_states():
    process = gm.Flow(gm.paths.Gaussian((1,)), prediction="data")
    model = gm.oracle(process, DATA.float())
    for dtype in (torch.float32, F64):
        assert model(torch.zeros(2, 1, dtype=dtype), torch.full((2,), 0.5)).dtype == dtype


class Wall(gm.MarkovProcess):
    """Its statistic has no value for data that the path cannot have come from."""

    kinds = frozenset({"jump"})
    path = gm.paths.Mixture((1,), 3)
    output_shape = (1,)

    def target(self, x, t, x1, *, x0=None):
        return torch.where((x == 3) | (x == x1), x1.double(), math.nan)

    def generator(self, output, x, t):
        return None


def test_data_that_a_state_excludes_may_have_no_target():
    model = gm.oracle(Wall(), torch.tensor([[0], [2]]))
    assert model(torch.tensor([[3], [2], [0]]), full(0.5, 3)).flatten().tolist() == [1.0, 2.0, 0.0]


class NoDensity(gm.paths.Path):
    space = gm.spaces.Euclidean((1,))

    def _source(self, n, rng):
        return torch.zeros(n, 1)

    def _sample(self, x1, t, x0, rng):
        return x1


BAD = [
    (lambda p: gm.oracle(p, torch.zeros(3, 2)), r"`data` must have shape \(B, 1\), got \(3, 2\)"),
    (lambda p: gm.oracle(p, torch.full((3, 1), math.nan)), "`data` must be finite"),
    (lambda p: gm.oracle(p, DATA, torch.ones(2)), r"`weights` must be 3 finite non-negative numbers.*got shape \(2,\)"),
    (lambda p: gm.oracle(p, DATA, torch.tensor([1.0, -1.0, 1.0])), "non-negative numbers"),
    (lambda p: gm.oracle(p, DATA, torch.zeros(3)), "non-negative numbers"),
    (lambda p: gm.oracle(p, DATA, torch.tensor([1.0, math.inf, 1.0])), "finite non-negative numbers"),
    (lambda p: gm.oracle(p, DATA)(DATA, full(1.0, 3)), "defined for t < 1, got t = 1; end with"),
    (lambda p: gm.oracle(p, DATA)(DATA, full(0.5, 2)), r"shape \(B,\) = \(3,\), got \(2,\)"),
    (lambda p: gm.conditional_generator(p, DATA, full(1.5, 3), DATA), r"lie in \[0, 1\]"),
    (lambda p: gm.marginal_generator(p, DATA, DATA, full(0.5, 2)), r"got \(2,\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(gm.GenmatchError, match=message):
        call(gm.Flow(line()))


def test_a_path_without_a_density_has_no_oracle():
    process = gm.Flow(line())
    process.path = NoDensity()
    with pytest.raises(gm.GenmatchError, match="needs a path with a density"):
        gm.oracle(process, DATA)
    with pytest.raises(gm.GenmatchError, match="NoDensity has no density"):
        process.path.log_prob(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1))
