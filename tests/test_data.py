"""Data sets: fixed splits, views that show the same points, and laws that sample what they claim."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.data import Checkerboard, DataSet, GaussianMixture, MarkovChain, View
from genmatch.data.airports import degrees, unit_vectors
from genmatch.errors import GenmatchError
from genmatch.spaces import Categorical, Euclidean
from genmatch.tensors import leaves


@pytest.mark.parametrize("name", [name for name in gm.data.available() if name != "prepared"])
def test_every_data_set_is_the_same_each_time_and_its_views_agree(name):
    data, again = gm.data.get(name), gm.data.get(name)
    assert torch.equal(data.train, again.train)
    assert torch.equal(data.test, again.test)
    for view in data.views:
        assert all(map(torch.equal, leaves(view.space.validate(view.train)), leaves(view.train)))
        decoded = view.decode(view.test)
        assert decoded.shape == data.test.shape
        assert (decoded - data.test).abs().max() <= 4 / 48  # at most a bin of the toys; images agree exactly
    assert data.train.shape[1:] == data.test.shape[1:]


def test_digits_are_split_once_and_lose_nothing_as_vectors_or_tokens():
    data = gm.data.get("digits")
    vectors, tokens, levels = data.views
    assert vectors.train.shape == (1297, 1, 8, 8)
    assert torch.equal(levels.decode(levels.train), tokens.decode(tokens.train))
    assert tokens.test.shape == (500, 64)
    assert torch.equal(vectors.decode(vectors.train), tokens.decode(tokens.train))
    assert vectors.train.min() == -1
    assert vectors.train.max() == 1
    assert tokens.train.max() == 16
    assert len(data.labels[0]) == 1297
    seen = {tuple(row.tolist()) for row in tokens.train}
    assert sum(tuple(row.tolist()) in seen for row in tokens.test) == 0


def test_digits_with_labels_are_the_same_digits_and_points_keep_both_parts():
    data, images = gm.data.get("digits+label"), gm.data.get("digits")
    (view,) = data.views
    assert torch.equal(view.train["image"], images.views[0].train)
    assert torch.equal(view.test["label"].squeeze(-1), images.labels[1])
    assert data.train.shape == (1297, 74)
    assert torch.equal(data.classified(data.test), images.test)
    right = torch.nn.functional.one_hot(images.labels[1], 10).double()
    figure = data.figures[0].of
    assert figure(data.test, right) == 1
    assert figure(data.test, right.roll(1, 0)) < 0.2
    with pytest.raises(GenmatchError, match="there is none"):
        figure(data.test, None)


def test_airports_are_places_on_the_sphere_and_maps_find_them_again():
    data = gm.data.get("airports")
    sphere, vectors = data.views
    assert (len(data.train), len(data.test)) == (8000, 2000)
    assert isinstance(sphere.space, gm.spaces.Sphere)
    assert float(torch.cdist(data.test.double(), data.train.double()).min()) > 0  # no place is in both
    torch.testing.assert_close(vectors.decode(3 * vectors.test), vectors.decode(vectors.test))
    latitude, longitude = degrees(data.train.double()).unbind(-1)
    assert float((latitude < -60).double().mean()) < 0.01  # Antarctica has few, the contiguous United States many
    assert float(((latitude > 25) & (latitude < 49) & (longitude > -125) & (longitude < -67)).double().mean()) > 0.2
    known = torch.tensor([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0], [-33.9, 151.2]], dtype=torch.float64)
    torch.testing.assert_close(degrees(unit_vectors(known)), known, atol=1e-12, rtol=0)
    torch.testing.assert_close(unit_vectors(known)[:3], torch.eye(3, dtype=torch.float64)[[0, 2, 1]], atol=1e-15, rtol=0)


def test_decoding_rounds_to_grey_levels():
    vectors = gm.data.get("digits").views[0]
    noisy = vectors.test + 0.05
    assert torch.equal(vectors.decode(noisy), vectors.decode(vectors.test))
    assert vectors.decode(torch.full((1, 1, 8, 8), 9.0)).max() == 1


def test_gaussian_mixture_density_integrates_to_one_and_gives_its_moments():
    law = GaussianMixture(torch.tensor([[-1.0], [0.8]]), torch.tensor([0.3, 0.25]), torch.tensor([0.4, 0.6]))
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    density = law.log_prob(grid.unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-9)
    x = law.sample(200_000, rng=torch.Generator().manual_seed(0)).double()
    exact_mean, exact_second = float(torch.trapezoid(grid * density, grid)), float(torch.trapezoid(grid**2 * density, grid))
    std = math.sqrt(exact_second - exact_mean**2)
    assert abs(float(x.mean()) - exact_mean) < 4 * std / math.sqrt(len(x))
    assert float((x**2).mean()) == pytest.approx(exact_second, rel=0.01)


def test_a_view_by_name():
    data = gm.data.get("checkerboard")
    assert data.view("levels") is data.views[2]
    with pytest.raises(GenmatchError, match=r"view of checkerboard `token`; did you mean `tokens`"):
        data.view("token")


def test_gaussian_mixture_posterior_mean_by_quadrature():
    law = GaussianMixture(torch.tensor([[-1.0], [0.8]]), torch.tensor([0.3, 0.25]), torch.tensor([0.4, 0.6]))
    grid = torch.linspace(-5, 5, 20001, dtype=torch.float64)
    prior = law.log_prob(grid.unsqueeze(-1)).exp()
    for x, alpha, sigma in [(0.3, 0.4, 0.6), (-0.7, 0.9, 0.1), (2.0, 0.1, 0.9)]:
        weight = prior * torch.exp(-((x - alpha * grid) ** 2) / (2 * sigma**2))
        exact = torch.trapezoid(grid * weight, grid) / torch.trapezoid(weight, grid)
        assert float(law.posterior_mean(torch.tensor([[x]], dtype=torch.float64), alpha, sigma)) == pytest.approx(float(exact), abs=1e-9)


def test_gaussian_mixture_posterior_mean_at_a_time_for_each_state():
    law = GaussianMixture(torch.tensor([[-1.0, 0.2], [0.8, 0.0]]), torch.tensor([0.3, 0.25]))
    x, t = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 0.9, 5, dtype=torch.float64)
    one_by_one = [law.posterior_mean(x[i : i + 1], float(t[i]), 1 - float(t[i])) for i in range(5)]
    torch.testing.assert_close(law.posterior_mean(x, t, 1 - t), torch.cat(one_by_one), atol=1e-14, rtol=0)


def test_checkerboard_lies_on_dark_squares_evenly():
    law = Checkerboard(squares=4, side=2.0)
    x = law.sample(80_000, rng=torch.Generator().manual_seed(0))
    assert law.log_prob(x).isfinite().all()
    assert float(law.log_prob(x)[0]) == pytest.approx(-math.log(8))
    cells = torch.floor(x + 2).long()
    counts = torch.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    dark = counts[counts > 0].double()
    assert len(dark) == 8
    assert float(((dark - 10_000) ** 2 / 10_000).sum()) < 30  # chi-square, 7 degrees: p = 1e-4
    assert law.log_prob(torch.tensor([[-1.5, -0.5], [3.0, 0.0]])).isneginf().all()


def test_markov_chain_is_a_law_and_is_stationary():
    transition = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8]])
    law = MarkovChain(transition, 4)
    states = Categorical((4,), 3).enumerate()
    probs = law.log_prob(states).exp()
    assert float(probs.sum()) == pytest.approx(1, abs=1e-12)
    for position in range(4):
        marginal = torch.zeros(3, dtype=torch.float64).index_add_(0, states[:, position], probs)
        torch.testing.assert_close(marginal, law.start, atol=1e-9, rtol=0)
    x = law.sample(100_000, rng=torch.Generator().manual_seed(0))
    counts = torch.bincount(Categorical((4,), 3).index(x), minlength=81).double()
    assert float(((counts - 1e5 * probs) ** 2 / (1e5 * probs)).sum()) < 140  # chi-square, 80 degrees: p < 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Checkerboard(squares=3),
        lambda: MarkovChain(torch.ones(2, 2), 3),
        lambda: GaussianMixture(torch.zeros(2, 1), torch.ones(3)),
        lambda: gm.data.get("digit"),
        lambda: gm.data.get("genmatch.data.digits:nothing"),
        lambda: gm.data.get("genmatch.spaces:Euclidean"),
    ],
)
def test_wrong_requests_are_refused(wrong):
    with pytest.raises(GenmatchError):
        wrong()


def test_a_data_set_refuses_views_that_disagree():
    one = View("a", Euclidean((2,)), torch.zeros(5, 2), torch.zeros(3, 2), lambda x: x)
    two = View("b", Euclidean((2,)), torch.zeros(4, 2), torch.zeros(3, 2), lambda x: x)
    with pytest.raises(GenmatchError, match="same split"):
        DataSet("both", (one, two), lambda axes, points: None)
    with pytest.raises(GenmatchError, match=r"`views` of the data set one must be a tuple of views, got .*; pass `\(view,\)`"):
        DataSet("one", one, lambda axes, points: None)
    with pytest.raises(GenmatchError, match="`labels` of the data set one must be those of the training and of the test points, got Tensor"):
        DataSet("one", (one,), lambda axes, points: None, labels=torch.zeros(5))
    with pytest.raises(GenmatchError, match="must be finite"):
        View("c", Euclidean((2,)), torch.full((5, 2), torch.nan), torch.zeros(3, 2), lambda x: x)
