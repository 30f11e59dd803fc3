"""Guidance: exact where it says so, by enumeration and closed forms; what it does not sample; what it refuses."""

import itertools
import math

import pytest
import torch

import genmatch as gm
from genmatch.guidance.free import combine
from genmatch.guidance.rates import ClassifierRates
from genmatch.models import Predictor
from tests.toys import (
    PREDICTIONS,
    SCHEDULES,
    SOURCES,
    GaussianMixture,
    L,
    V,
    full,
    grid,
    line,
    name_of,
    seeded,
    token_data,
    token_law,
    token_marginal,
    token_marginal_rate,
    total_variation,
)

F64 = torch.float64
sources = pytest.mark.parametrize("source", SOURCES)


def chain(source="mask", rates=None, prediction="posterior"):
    return gm.CTMC(gm.paths.Mixture((L,), V, source=SOURCES[source]), prediction, rates)


def class_table():
    """p(c given x1) of a class that depends on all tokens together, (64,)."""
    return torch.rand(V**L, dtype=F64, generator=seeded(3)).clamp(0.02, 0.98)


def laws():
    """The law of the data, and that given the class."""
    law = token_law("strong")
    return law, law * class_table() / (law * class_table()).sum()


def labelled(process):
    """The exact model with and without the class, by whether there is a label."""
    law, given = laws()
    models = [gm.oracle(process, token_data(), weights) for weights in (law, given)]
    return lambda x, t, label=None: models[label is not None](x, t)


def rates_of(process, model, time, **condition):
    states = process.space.enumerate()
    t = full(time, len(states))
    return process.generator(model(states, t, **condition), states, t).dense(process.space)


LABEL = {"label": torch.zeros(1)}


# Classifier-free


@pytest.mark.parametrize("make", [lambda x: x, lambda x: {"a": x, "b": {"c": 2 * x}}])
def test_one_is_the_condition_and_zero_none_to_the_last_bit_with_one_call(make):
    calls = []

    def model(x, t, label=None):
        calls.append(label is not None)
        return make(torch.sin(x * 3) if label is None else torch.cos(x * 7) / 3)

    x, t = torch.randn(5, 3, generator=seeded()), torch.rand(5, generator=seeded())
    given, free, label = model(x, t, label=x), model(x, t), {"label": torch.ones(5)}
    for scale, wanted, call in ((1, given, True), (0, free, False)):
        calls.clear()
        found = gm.guidance.classifier_free(model, scale)(x, t, **label)
        assert all(map(torch.equal, *map(gm.tensors.leaves, (found, wanted))))
        assert calls == [call]
    found = gm.tensors.leaves(gm.guidance.classifier_free(model, 3.0)(x, t, **label))
    for value, c, u in zip(found, *map(gm.tensors.leaves, (given, free)), strict=True):
        torch.testing.assert_close(value, u + 3 * (c - u))


def test_a_token_that_either_excludes_stays_excluded():
    given, free = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf]]), torch.tensor([[0.0, 2.0, -torch.inf, -torch.inf]])
    for scale in (0.5, 2.0):
        assert combine(given, free, scale).tolist() == [[0, -math.inf, -math.inf, -math.inf]]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_leads_to_the_same_guided_velocity(prediction):
    schedule = gm.schedules.Cosine()
    free, given = GaussianMixture(schedule), GaussianMixture(schedule)
    given.weights = torch.tensor([0.9, 0.1], dtype=F64)
    x, t = torch.linspace(-2, 2, 9, dtype=F64).unsqueeze(-1), torch.linspace(0.1, 0.9, 9, dtype=F64)

    def guided(name):
        model = gm.guidance.classifier_free(lambda x, t, label=None: (free if label is None else given).model(name)(x, t), 2.5)
        return gm.Flow(line(schedule), name).predict(model(x, t, label=t), x, t, "velocity")

    torch.testing.assert_close(guided(prediction), guided("velocity"), atol=1e-11, rtol=0)


@sources
def test_cavities_and_posteriors_guide_alike(source):
    time, scale = 0.4, 2.0
    found = []
    for prediction in ("posterior", "cavity"):
        process = chain(source, prediction=prediction)
        found.append(rates_of(process, gm.guidance.classifier_free(labelled(process), scale), time, **LABEL))
    p = token_marginal(source, time, token_law("strong"))
    assert float((found[0] - found[1])[:, p > 0].abs().max()) < 1e-9


def revealed_one_by_one(model):
    """The law of three tokens that are revealed one after the other, in every order with the same chance: exact for a masked model."""
    process = chain()
    states = process.space.enumerate()
    probs = model(states, full(0.5, len(states)), **LABEL).softmax(-1)
    total = torch.zeros(V**L, dtype=F64)
    for order in itertools.permutations(range(L)):
        chance, x = torch.ones(V**L, dtype=F64), torch.full((V**L, L), V)
        for j in order:
            chance = chance * probs[process.space.index(x), j].gather(-1, token_data()[:, j : j + 1]).squeeze(-1)
            x[:, j] = token_data()[:, j]
        total += chance / math.factorial(L)
    return total


def test_guided_tokens_have_the_law_given_the_class_at_one_and_not_the_tempered_one_beyond():
    law, given = laws()
    model = labelled(chain())
    for scale, wanted in ((1.0, given), (0.0, law)):
        assert total_variation(revealed_one_by_one(gm.guidance.classifier_free(model, scale)), wanted) < 1e-12
    tempered = given**2 / law
    found = revealed_one_by_one(gm.guidance.classifier_free(model, 2.0))
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    assert total_variation(found, tempered / tempered.sum()) > 0.01
    assert total_variation(found, given) > 0.01


def normal(mean, std):
    """The exact prediction of the data for N(mean, std^2) with straight lines."""

    def model(x, t):
        alpha, sigma = t.unsqueeze(-1), 1 - t.unsqueeze(-1)
        return mean + alpha * std**2 * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    return model


def test_a_guided_flow_has_less_spread_than_the_tempered_law():
    """Both laws are normal, so the guided flow is linear: two trajectories give its spread."""
    process, given, free = gm.Flow(line(), "data"), normal(1.0, 0.25), normal(0.0, 0.6)
    std = {}
    for scale in (0, 1, 2):
        model = gm.guidance.classifier_free(lambda x, t, label=None: (free if label is None else given)(x, t), scale)
        run = gm.simulate(process, model, torch.tensor([[0.0], [1.0]], dtype=F64), grid(0, 1, 200), solver="rk4", condition={"label": torch.ones(2)})
        std[scale] = float(run.states[-1].diff(dim=0))
    assert std[1] == pytest.approx(0.25, abs=1e-4)
    assert std[0] == pytest.approx(0.6, abs=1e-4)
    tempered = (2 / 0.25**2 - 1 / 0.6**2) ** -0.5
    assert std[2] < 0.9 * tempered


def test_guidance_acts_inside_its_interval_only():
    def model(x, t, label=None):
        return x if label is None else 3 * x + 0.1

    x, t = torch.ones(4, 1), torch.tensor([0.1, 0.2, 0.5, 0.6])
    guided = gm.guidance.classifier_free(model, 2.0, interval=(0.2, 0.6))(x, t, label=x)
    assert torch.equal(guided[[0, 3]], model(x, t, x)[[0, 3]])
    torch.testing.assert_close(guided[[1, 2]], torch.full((2, 1), 5.2))


def test_rescaling_brings_back_the_spread_and_is_for_vectors():
    def model(x, t, label=None):
        return x if label is None else x.flip(-1) * 2

    x, t = torch.randn(6, 8, generator=seeded()), torch.full((6,), 0.5)
    plain, whole, half = (gm.guidance.classifier_free(model, 4.0, rescale=share)(x, t, label=x) for share in (0.0, 1.0, 0.5))
    torch.testing.assert_close(whole.std(-1), model(x, t, x).std(-1))
    torch.testing.assert_close(half, (plain + whole) / 2)
    assert bool((plain.std(-1) > whole.std(-1)).all())
    with pytest.raises(gm.GenmatchError, match="spread of vectors"):
        gm.guidance.classifier_free(lambda x, t, label=None: torch.zeros(1, 1, 2), rescale=0.5)(torch.zeros(1, 1).long(), torch.zeros(1), label=x)


def network(timed=False):
    torch.manual_seed(0)
    process = gm.CTMC(gm.paths.Mixture((6,), vocab_size=5))
    net = gm.nn.Transformer(process.space, process.output_shape, width=16, depth=1, heads=2, labels={"digit": 3}, timed=timed).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return process, net


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.7)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_a_split_network_stays_split_and_draws_the_same_samples(scale, interval):
    process, net = network()
    guided = gm.guidance.classifier_free(net, scale, interval=interval)
    whole = gm.guidance.classifier_free(lambda x, t, **condition: net(x, t, **condition), scale, null={"digit": 3}, interval=interval)
    assert callable(guided.features)
    assert not hasattr(whole, "features")
    assert guided.time_free == (interval == (0.0, 1.0))
    condition = {"digit": torch.tensor([0, 1, 2, 0])}
    x, t = process.path.source(4, rng=seeded()), torch.tensor([0.1, 0.5, 0.69, 0.9], dtype=F64)
    mask = torch.rand(x.shape, generator=seeded(1)) < 0.4
    lazy = Predictor(process, guided, condition).where_read(x, t)
    torch.testing.assert_close(lazy[mask], whole(x, t, **condition)[mask], atol=1e-12, rtol=0)
    one, two = (gm.sample(process, model, 4, steps=8, seed=0, condition=condition) for model in (guided, whole))
    assert torch.equal(one, two)
    assert guided.features(x, t, **condition).shape == (4, 6, 33)


# What the call without a condition gets


def seen_by_null(null, model=None, **condition):
    seen = {}

    def spy(x, t, **given):
        seen.update(x=x, given=given)
        return x.float()

    spy.null = getattr(model, "null", None)
    x = torch.zeros(2, 1)
    gm.guidance.classifier_free(spy, 0, null)(x, torch.zeros(2), **condition)
    return seen


def test_null_replaces_leaves_out_passes_on_or_is_a_function():
    label, mask = torch.tensor([1, 2]), torch.ones(2, 1)
    assert seen_by_null(None, label=label)["given"] == {}
    given = seen_by_null({"label": 7}, label=label, mask=mask)["given"]
    assert given["label"].tolist() == [7, 7]
    assert given["label"].dtype == label.dtype
    assert given["mask"] is mask
    assert list(seen_by_null({"label": None}, label=label, mask=mask)["given"]) == ["mask"]
    assert seen_by_null(0.5, condition=mask)["given"]["condition"].tolist() == [[0.5], [0.5]]
    assert seen_by_null(None, network()[1], digit=label)["given"]["digit"].tolist() == [3, 3]
    assert seen_by_null(lambda x, condition: (x + 9, {}), label=label)["x"].tolist() == [[9.0], [9.0]]
    with pytest.raises(gm.GenmatchError, match=r"'lable', and the conditions given are \['label'\]"):
        seen_by_null({"lable": 7}, label=label)
    with pytest.raises(gm.GenmatchError, match=r"'label', and no condition is given; pass `condition=\{'label': \.\.\.\}`"):
        seen_by_null({"label": 7})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -1}, r"`scale` must be a number in \[0, inf\)"),
        ({"scale": math.inf}, "`scale`"),
        ({"interval": (0.5, 0.2)}, "0 <= low < high <= 1"),
        ({"interval": 3}, "two times"),
        ({"rescale": 2}, r"`rescale` must be a number in \[0, 1\]"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(gm.GenmatchError, match=message):
        gm.guidance.classifier_free(lambda x, t: x, **arguments)


def test_a_declared_null_is_a_mapping():
    model = torch.nn.Linear(1, 1)
    model.null = 3
    with pytest.raises(gm.GenmatchError, match=r"`model.null` must map"):
        gm.guidance.classifier_free(model)


# A classifier on Gaussian paths

CHANCE = torch.tensor([0.9, 0.2], dtype=F64)
"""p(c given the component) of the mixture of two normals."""


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_true_classifier_gives_the_exact_conditional_prediction(schedule, prediction):
    free, given = GaussianMixture(schedule), GaussianMixture(schedule)
    given.weights = free.weights * CHANCE / (free.weights * CHANCE).sum()

    def log_prob(x, t):
        return (free._parts(x, t)[-1].softmax(-1) * CHANCE).sum(-1).log()

    process = gm.Flow(line(schedule), prediction)
    model = gm.guidance.classifier(process, free.model(prediction), log_prob)
    t = torch.linspace(0.1, 0.95, 10, dtype=F64)
    x = torch.linspace(-1.5, 1.5, 10, dtype=F64).unsqueeze(-1) * (schedule.alpha(t) + schedule.sigma(t)).unsqueeze(-1)
    wanted = given.model(prediction)(x, t)
    gap = ((model(x, t) - wanted) / wanted.abs().clamp(min=1)).abs()
    assert float(gap.max()) < 1e-12
    plain = (free.model(prediction)(x, t) - wanted).abs()
    assert float(plain.max()) > 1e-3
    if prediction == "velocity":
        # The drift of a diffusion is pushed by velocity and score alike.
        diffusion = gm.Diffusion(line(schedule), noise=0.7, prediction=prediction)
        found, exact = (
            diffusion.generator(output, x, t).drift.velocity for output in (gm.guidance.classifier(diffusion, free.velocity, log_prob)(x, t), wanted)
        )
        torch.testing.assert_close(found, exact, atol=1e-9, rtol=1e-12)


def test_a_classifier_is_sampled_with_from_the_start_under_no_grad():
    free, given = GaussianMixture(gm.schedules.CondOT()), GaussianMixture(gm.schedules.CondOT())
    given.weights = free.weights * CHANCE / (free.weights * CHANCE).sum()
    process = gm.Flow(line())
    model = gm.guidance.classifier(process, free.velocity, lambda x, t, chance: (free._parts(x, t)[-1].softmax(-1) * chance).sum(-1).log())
    x0 = grid(-2, 2, 40).unsqueeze(-1)
    found = gm.simulate(process, model, x0, grid(0, 1, 64), solver="rk4", condition={"chance": CHANCE.expand(41, 2)}).states[-1]
    exact = gm.simulate(process, given.velocity, x0, grid(0, 1, 64), solver="rk4").states[-1]
    assert float((found - exact).abs().max()) < 5e-3


def test_the_likelihood_of_a_guided_flow_is_that_of_the_conditional_law():
    free, given = GaussianMixture(gm.schedules.CondOT()), GaussianMixture(gm.schedules.CondOT())
    given.weights = free.weights * CHANCE / (free.weights * CHANCE).sum()
    process, x1 = gm.Flow(line()), grid(-1.5, 1.5, 6).unsqueeze(-1)
    guided = gm.guidance.classifier(process, free.velocity, lambda x, t: (free._parts(x, t)[-1].softmax(-1) * CHANCE).sum(-1).log())
    found, exact, plain = (gm.log_likelihood(process, model, x1, seed=0).log_prob for model in (guided, given.velocity, free.velocity))
    # The classifier is asked from t = 1e-3 on.
    assert float((found - exact).abs().max()) < 5e-3
    assert float((plain - exact).abs().max()) > 0.05


def test_a_classifier_acts_in_its_interval_and_not_at_all_with_scale_zero():
    process = gm.Flow(gm.paths.Gaussian((1,)))
    x, t = torch.ones(2, 1), torch.tensor([0.2, 0.8])
    for settings, moved in (({"interval": (0.5, 1.0)}, [False, True]), ({"scale": 0.0}, [False, False])):
        model = gm.guidance.classifier(process, lambda x, t: x, lambda x, t: -(x**2).sum(-1), **settings)
        assert (model(x, t) != x).flatten().tolist() == moved


@pytest.mark.parametrize(
    "process",
    [
        gm.Flow(gm.paths.Geodesic(gm.spaces.Sphere(2))),
        gm.Flow(gm.paths.Gaussian((2,), coupling=gm.couplings.OptimalTransport())),
    ],
    ids=["sphere", "coupling"],
)
def test_a_classifier_needs_a_score(process):
    with pytest.raises(gm.GenmatchError, match="has no score; a Gaussian path without a coupling has one"):
        gm.guidance.classifier(process, lambda x, t: x, lambda x, t: x)


def test_a_classifier_must_be_differentiable_and_one_number_a_state():
    process, x, t = gm.Flow(gm.paths.Gaussian((1,))), torch.ones(2, 1), torch.full((2,), 0.5)
    for log_prob in (lambda x, t: torch.zeros(2), lambda x, t: x, lambda x, t: 0.0):
        with pytest.raises(gm.GenmatchError, match="`log_prob` must return"):
            gm.guidance.classifier(process, lambda x, t: x, log_prob)(x, t)


# A classifier of tokens


def joint(source, time):
    """p_t(x given x1) p(x1), (states, data)."""
    process = chain(source)
    states, data, law = process.space.enumerate(), token_data(), token_law("strong")
    pairs = [process.path.log_prob(states, full(time, len(states)), data[i].expand(len(states), L)).exp() for i in range(len(data))]
    return torch.stack(pairs, -1) * law


def class_given_state(source, time):
    """log p_t(c given x) as a function of the states."""
    weights, index = joint(source, time), chain(source).space.index
    table = torch.where(weights.sum(-1) > 0, (weights @ class_table()) / weights.sum(-1), 1.0).log()
    return lambda x, t: table[index(x)]


def class_given_token(source, time):
    """log p(c given x1_j = v and x), (states, L, V)."""
    weights, one_hot = joint(source, time), torch.nn.functional.one_hot(token_data(), V).double()
    both, one = (torch.einsum("sd,djv->sjv", weights * factor, one_hot) for factor in (class_table(), torch.ones(V**L, dtype=F64)))
    return torch.where(one > 0, both / one, 1.0).log()


@sources
@pytest.mark.parametrize("time", [0.2, 0.7])
def test_guidance_of_the_posterior_is_exact_for_every_source_and_rates(source, time):
    law, given = laws()
    table = class_given_token(source, time)
    p, slope = (f(source, *at, given) for f, at in ((token_marginal, (time,)), (token_marginal_rate, (time, 1.0))))
    for rates in ("mixture", "reversal"):
        process = chain(source, rates)
        model = gm.guidance.classifier_posterior(gm.oracle(process, token_data(), law), lambda x, t: table)
        states = process.space.enumerate()
        found, wanted = (m(states, full(time, len(states))).softmax(-1) for m in (model, gm.oracle(process, token_data(), given)))
        assert float((found - wanted)[p > 0].abs().max()) < 1e-12
        q = rates_of(process, model, time)
        assert float((q @ p - slope).abs().max()) < 1e-9
        assert float((rates_of(process, gm.oracle(process, token_data(), law), time) @ p - slope).abs().max()) > 5e-3


def test_a_table_of_the_wrong_shape_is_named():
    model = gm.guidance.classifier_posterior(lambda x, t: torch.zeros(1, 2, 3), lambda x, t: torch.zeros(1, 2))
    with pytest.raises(gm.GenmatchError, match=r"\(1, 2, 3\), got \(1, 2\)"):
        model(torch.zeros(1, 2), torch.zeros(1))
    assert gm.guidance.classifier_posterior(lambda x, t: x, lambda x, t: None, 0.0)("same", 0) == "same"


def doob_residual(source, rates, time):
    """The largest residual of the forward equation of p_t given c."""
    law, given = laws()
    process = chain(source, rates)
    guided = ClassifierRates(process, class_given_state(source, time), 1.0, 1000)
    q = rates_of(guided, gm.oracle(process, token_data(), law), time)
    assert float(q.sum(0).abs().max()) < 1e-9
    return float((q @ token_marginal(source, time, given) - token_marginal_rate(source, time, 1.0, given)).abs().max())


@sources
@pytest.mark.parametrize("time", [0.2, 0.7])
def test_guidance_of_the_rates_is_exact_for_a_time_reversal_and_refused_elsewhere(source, time):
    assert doob_residual(source, "reversal", time) < 1e-9
    assert gm.guidance.classifier_rates(chain(source, "reversal"), lambda x, t: t)
    if source == "mask":
        assert doob_residual(source, "mixture", time) < 1e-9
    else:
        assert doob_residual(source, "mixture", time) > 5e-3
        with pytest.raises(gm.GenmatchError, match=r"those of a time reversal.*rates='reversal'"):
            gm.guidance.classifier_rates(chain(source, "mixture"), lambda x, t: t)


@pytest.mark.parametrize("solver", ["euler", "tau-leaping"])
@pytest.mark.parametrize(("source", "rates"), [("mask", "mixture"), ("uniform", "reversal")])
def test_guided_rates_are_simulated_from_noise_to_data(source, rates, solver):
    """A class that the data decide: every sample is of it, though a process without guidance hits it in part of them."""
    process, data = gm.CTMC(gm.paths.Mixture((2,), 3, source=source), rates=rates), torch.tensor([[0, 1], [2, 2], [1, 0]])
    oracle = gm.oracle(process, data)
    wanted = torch.tensor([1.0, 0.0, 1.0], dtype=F64)
    guided = gm.guidance.classifier_rates(process, lambda x, t: (oracle.posterior(x, t) @ wanted).log())
    x = gm.sample(guided, oracle, 400, steps=48, solver=solver, seed=0)
    kinds = [int((x == point).all(-1).sum()) for point in data]
    # Tokens of one step are drawn independently, so a few samples are no data points.
    assert kinds[1] == 0
    assert min(kinds[0], kinds[2]) > 170
    assert int((gm.sample(process, oracle, 400, steps=48, seed=0) == 2).all(-1).sum()) > 90


@sources
@pytest.mark.parametrize("rates", ["mixture", "reversal"])
def test_rates_without_a_classifier_are_the_geometric_mean(source, rates):
    process, time = chain(source, rates), 0.35
    model = labelled(process)
    given, free = rates_of(process, model, time, **LABEL), rates_of(process, model, time)
    off = ~torch.eye(len(given), dtype=torch.bool)

    def guided(scale):
        wrapped, pair = gm.guidance.classifier_free_rates(process, model, scale)
        return rates_of(wrapped, pair, time, **LABEL)

    for scale, wanted in ((1.0, given), (0.0, free)):
        assert float((guided(scale) - wanted).abs().max()) < 1e-11
    mean = torch.where((given > 0) & (free > 0), given**2 / free, 0)
    torch.testing.assert_close(guided(2.0)[off], mean[off], atol=1e-10, rtol=1e-9)
    posterior = rates_of(process, gm.guidance.classifier_free(model, 2.0), time, **LABEL)
    assert float((posterior - guided(2.0)).abs().max()) > 1e-3


def test_rates_of_a_pair_are_simulated_and_end_like_the_posterior():
    process = chain()
    wrapped, pair = gm.guidance.classifier_free_rates(process, labelled(process), 1.0)
    x = gm.sample(wrapped, pair, 3000, steps=64, solver="euler", seed=0, condition={"label": torch.zeros(3000)})
    counts = gm.spaces.Categorical((L,), V).index(x).bincount(minlength=V**L) / 3000
    assert total_variation(counts, laws()[1]) < 0.09


def test_guided_rates_are_for_tokens_that_jump_and_are_not_trained():
    for process in (gm.Flow(gm.paths.Gaussian((1,))), gm.CTMC(gm.paths.Mixture((2,), 3), rates="corrector")):
        with pytest.raises(gm.GenmatchError, match="does not move by these alone"):
            gm.guidance.classifier_free_rates(process, lambda x, t: x)
    guided = gm.guidance.classifier_rates(chain(), lambda x, t: x)
    with pytest.raises(gm.GenmatchError, match="train the network on CTMC"):
        guided.target(None, None, None)
    with pytest.raises(gm.GenmatchError, match=r"of shape \(B,\) = \(1,\), got \(1, 3\)"):
        guided.generator(torch.zeros(1, L, V), torch.zeros(1, L, dtype=torch.int64), full(0.5, 1))
