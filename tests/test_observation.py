"""Linear observations: exact for normal data by closed forms, what they are worth elsewhere, what is refused."""

import pytest
import torch

import genmatch as gm
from genmatch.paths.conversion import convert
from tests.toys import PREDICTIONS, GaussianMixture, chain, full, grid, line, name_of, seeded

F64 = torch.float64
MEAN = torch.tensor([0.5, -1.0, 0.3], dtype=F64)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.4, 0.3, 0.7]], dtype=F64)
COVARIANCE = ROOT @ ROOT.T
MATRIX = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, -1.0]], dtype=F64)
Y = torch.tensor([1.2, -0.7], dtype=F64)
SCHEDULES = [gm.schedules.CondOT(), gm.schedules.Cosine(), gm.schedules.VP()]


def normal(schedule, prediction, mean=MEAN, covariance=COVARIANCE):
    """The exact network for normal data."""

    def model(x, t, **condition):
        alpha, sigma = schedule.alpha(t).reshape(-1, 1, 1), schedule.sigma(t).reshape(-1, 1, 1)
        gap = (x - alpha.squeeze(-1) * mean).unsqueeze(-1)
        data = mean + (alpha * covariance @ torch.linalg.solve(alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=F64), gap)).squeeze(-1)
        return convert(data, x, t, schedule, "data", prediction)

    return model


def posterior(noise, y=Y):
    """Mean and covariance of normal data given the observation."""
    gain = COVARIANCE @ MATRIX.T @ torch.linalg.inv(MATRIX @ COVARIANCE @ MATRIX.T + noise**2 * torch.eye(2, dtype=F64))
    return MEAN + gain @ (y - MATRIX @ MEAN), COVARIANCE - gain @ MATRIX @ COVARIANCE


def flow(schedule=SCHEDULES[0], prediction="velocity", size=3):
    return gm.Flow(gm.paths.Gaussian((size,), schedule=schedule, dtype=F64), prediction)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_guided_network_is_that_of_normal_data_given_the_observation(prediction, schedule, noise):
    process, model = flow(schedule, prediction), normal(schedule, prediction)
    guided = gm.guidance.linear_observation(process, model, MATRIX, noise=noise, observed=Y)
    x = 2 * torch.randn(20, 3, dtype=F64, generator=seeded())
    for time in (0.002, 0.3, 0.7, 0.99):
        t = full(time, 20)
        wanted = normal(schedule, prediction, *posterior(noise))(x, t)
        torch.testing.assert_close(guided(x, t), wanted, atol=1e-7, rtol=1e-5 if noise == 0 else 1e-8)
        assert time < 0.1 or not torch.allclose(guided(x, t), model(x, t), rtol=1e-2)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_samples_have_the_law_given_the_observation(noise):
    """The flow is affine: where it takes the origin and the unit vectors gives mean and covariance without a draw."""
    process = flow()
    guided = gm.guidance.linear_observation(process, normal(SCHEDULES[0], "velocity"), MATRIX, noise=noise)
    x0 = torch.cat([torch.zeros(1, 3, dtype=F64), torch.eye(3, dtype=F64)])
    other = Y + 1
    for y in (Y, other):
        run = gm.simulate(process, guided, x0, grid(0, 1, 256), solver="adams-4", condition={"observed": y.expand(4, -1)})
        mean, root = run.states[-1][0], (run.states[-1][1:] - run.states[-1][0]).T
        wanted, covariance = posterior(noise, y)
        torch.testing.assert_close(mean, wanted, atol=3e-3, rtol=0)
        torch.testing.assert_close(root @ root.T, covariance, atol=3e-3, rtol=0)


def test_a_diffusion_is_guided_alike():
    process = gm.Diffusion(gm.paths.Gaussian((3,), dtype=F64), noise=lambda t: torch.sqrt(2 * (1 - t)), prediction="data")
    guided = gm.guidance.linear_observation(process, normal(SCHEDULES[0], "data"), MATRIX, noise=0.3, observed=Y)
    x = gm.sample(process, guided, 4000, steps=64, seed=0)
    wanted, covariance = posterior(0.3)
    error = (x.mean(0) - wanted) / (covariance.diagonal() / 4000).sqrt()
    assert float(error.abs().max()) < 4
    torch.testing.assert_close(x.T.cov(), covariance, atol=0.05, rtol=0)


def test_a_fixed_spread_is_exact_for_such_data_and_not_for_others():
    process, x, t = flow(prediction="data"), torch.randn(20, 3, dtype=F64, generator=seeded()), full(0.4, 20)
    for covariance, right in ((4 * torch.eye(3, dtype=F64), True), (COVARIANCE, False)):
        model, zero = normal(SCHEDULES[0], "data", torch.zeros(3, dtype=F64), covariance), torch.zeros(3, dtype=F64)
        gain = covariance @ MATRIX.T @ torch.linalg.inv(MATRIX @ covariance @ MATRIX.T + 0.09 * torch.eye(2, dtype=F64))
        wanted = normal(SCHEDULES[0], "data", zero + gain @ Y, covariance - gain @ MATRIX @ covariance)(x, t)
        guided = gm.guidance.linear_observation(process, model, MATRIX, noise=0.3, observed=Y, spread=2.0)
        assert torch.allclose(guided(x, t), wanted, atol=1e-9) == right
        exact = gm.guidance.linear_observation(process, model, MATRIX, noise=0.3, observed=Y)
        assert torch.allclose(exact(x, t), wanted, atol=1e-9)


def test_one_call_of_the_network_a_step_and_nothing_left_of_the_graph():
    calls = []

    def model(x, t):
        calls.append(len(x))
        return 0.5 * x

    process = flow(prediction="data")
    guided = gm.guidance.linear_observation(process, model, MATRIX, noise=0.3, observed=Y)
    found = guided(torch.zeros(5, 3, dtype=F64), full(0.5, 5))
    assert calls == [5]
    assert not found.requires_grad


@pytest.mark.parametrize("covariance", [COVARIANCE, torch.eye(3, dtype=F64)], ids=["full", "equal eigenvalues"])
def test_the_likelihood_of_a_guided_flow_is_that_of_the_law_given_the_observation(covariance):
    process, model = flow(), normal(SCHEDULES[0], "velocity", MEAN, covariance)
    guided = gm.guidance.linear_observation(process, model, torch.eye(3, dtype=F64)[:2], noise=0.5, observed=Y)
    seen = covariance[:, :2] @ torch.linalg.inv(covariance[:2, :2] + 0.25 * torch.eye(2, dtype=F64))
    law = torch.distributions.MultivariateNormal(MEAN + seen @ (Y - MEAN[:2]), covariance - seen @ covariance[:2])
    x1 = torch.randn(5, 3, dtype=F64, generator=seeded())
    found, plain = (gm.log_likelihood(process, one, x1, seed=0).log_prob for one in (guided, model))
    assert float((found - law.log_prob(x1)).abs().max()) < 1e-2
    assert float((plain - law.log_prob(x1)).abs().max()) > 0.1


def test_two_signs_that_agree_are_inpainted_better_than_by_a_clamp():
    """Signs that agree with probability 0.8; the first is known. The known one alone is held in both; the other is approximate."""
    process = flow(prediction="data", size=2)
    data = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]], dtype=F64)
    model = gm.oracle(process, data, torch.tensor([0.4, 0.4, 0.1, 0.1]))
    guided = gm.guidance.linear_observation(process, model, torch.tensor([[1.0, 0.0]], dtype=F64), observed=torch.ones(1, dtype=F64))
    n = 4000
    clamped = gm.sample(process, model, n, steps=128, clamp={0: 1.0}, seed=0)
    seen = gm.sample(process, guided, n, steps=128, seed=0)
    shares = [float((x[:, 1] > 0).double().mean()) for x in (clamped, seen)]
    assert float((seen[:, 0] - 1).abs().max()) < 0.01
    assert abs(shares[0] - 0.8) > 0.1
    assert abs(shares[1] - 0.8) < 0.03


@pytest.mark.parametrize(("noise", "flows", "diffusions"), [(0.3, 0.254, 0.084), (1.0, 0.091, 0.037)])
def test_data_that_are_not_normal_are_approximated_as_the_documentation_says(noise, flows, diffusions):
    """Two clusters seen through noise: the error of the distribution function, of quantiles carried by the flow, and of draws of a diffusion."""
    law = GaussianMixture(gm.schedules.CondOT())
    weights = law.weights * torch.exp(-((Y[0] - 1 - law.means) ** 2) / 2 / (law.stds**2 + noise**2)) / (law.stds**2 + noise**2).sqrt()
    gain = law.stds**2 / (law.stds**2 + noise**2)
    given = GaussianMixture(law.schedule)
    given.weights, given.means = weights / weights.sum(), law.means + gain * (Y[0] - 1 - law.means)
    given.stds = ((1 - gain) * law.stds**2).sqrt()
    process = gm.Flow(line(), "data")
    guided = gm.guidance.linear_observation(process, law.model("data"), torch.ones(1, 1, dtype=F64), noise=noise, observed=Y[:1] - 1)
    levels = (torch.arange(200, dtype=F64) + 0.5) / 200
    errors = []
    for model in (guided, law.model("data")):
        x = gm.simulate(process, model, torch.special.ndtri(levels).unsqueeze(-1), grid(0, 1, 64)).states[-1]
        errors.append(float((given.cdf(x, full(1.0, 200)) - levels).abs().max()))
    assert errors[0] == pytest.approx(flows, abs=0.002)
    assert errors[1] > 1.2 * errors[0]
    noisy = gm.Diffusion(line(), noise=lambda t: torch.sqrt(8 * (1 - t)))
    x = gm.sample(noisy, guided, 2000, steps=128, seed=0).sort(0).values
    levels = (torch.arange(2000, dtype=F64) + 0.5) / 2000
    assert float((given.cdf(x, full(1.0, 2000)) - levels).abs().max()) == pytest.approx(diffusions, abs=0.03)


def test_shapes_with_more_axes():
    process = gm.Flow(gm.paths.Gaussian((1, 2, 2)), prediction="data")
    guided = gm.guidance.linear_observation(process, lambda x, t: 0.5 * x, torch.eye(4)[:2], observed=torch.tensor([1.0, 2.0]))
    x = gm.sample(process, guided, 3, steps=8, seed=0)
    torch.testing.assert_close(x.flatten(1)[:, :2], torch.tensor([1.0, 2.0]).expand(3, -1), atol=1e-2, rtol=0)


def test_what_is_refused_says_why():
    process, model, make = flow(), normal(SCHEDULES[0], "velocity"), gm.guidance.linear_observation
    coupled = gm.Flow(gm.paths.Gaussian((3,), coupling=gm.couplings.OptimalTransport()))
    x, t = torch.zeros(2, 3, dtype=F64), full(0.5, 2)
    for ask, reason in (
        (lambda: make(chain(), model, MATRIX), "adds to a score, and CTMC"),
        (lambda: make(coupled, model, MATRIX), "without a coupling"),
        (lambda: make(gm.Flow(gm.paths.Geodesic(gm.spaces.Sphere(2))), model, MATRIX), "adds to a score"),
        (lambda: make(process, 3, MATRIX), "must be callable"),
        (lambda: make(process, model, MATRIX.T), r"`matrix` must be a floating tensor \(m, 3\)"),
        (lambda: make(process, model, MATRIX.long()), "floating tensor"),
        (lambda: make(process, model, MATRIX / 0), "must be finite"),
        (lambda: make(process, model, MATRIX, noise=-1), "`noise` must be"),
        (lambda: make(process, model, MATRIX, spread=0), "`spread` must be"),
        (lambda: make(process, model, torch.cat([MATRIX, MATRIX])), "rows and rank 2"),
        (lambda: make(process, model, MATRIX, observed=Y[:1]), r"must have shape \(2,\)"),
        (lambda: make(process, model, MATRIX)(x, t), "got neither"),
        (lambda: make(process, model, MATRIX, observed=Y)(x, t, observed=Y.expand(2, -1)), "got both"),
        (lambda: make(process, model, MATRIX)(x, t, observed=Y), r"must have shape \(2, 2\)"),
        (lambda: make(process, lambda x, t: x.detach(), MATRIX, observed=Y)(x, t), None),
        (lambda: make(flow(prediction="data"), lambda x, t: x.detach(), MATRIX, observed=Y)(x, t), "differentiable"),
    ):
        if reason is None:
            ask()  # a velocity that is no function of x still says that the data are one
            continue
        with pytest.raises(gm.GenmatchError, match=reason):
            ask()
