"""Metrics against closed forms and against samples made to be good, narrow or copied."""

import pytest
import torch

import genmatch as gm
from genmatch.compare.features import make_extractor
from genmatch.compare.metrics import class_balance, coverage, evaluate, frechet_distance, nearest_distance
from genmatch.errors import GenmatchError


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def exact_moments(mean, covariance, n=200):
    """`n` points whose sample mean and covariance are exactly the given ones."""
    d = len(mean)
    z = torch.randn(n, d, dtype=torch.float64, generator=rng())
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T)).T)
    return z @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_is_the_wasserstein_distance_of_gaussians():
    m1, m2 = torch.tensor([0.0, 1.0]).double(), torch.tensor([2.0, -1.0]).double()
    diagonal = torch.diag(torch.tensor([4.0, 9.0]).double()), torch.diag(torch.tensor([1.0, 16.0]).double())
    a, b = exact_moments(m1, diagonal[0]), exact_moments(m2, diagonal[1])
    assert frechet_distance(a, b) == pytest.approx(8 + (2 - 1) ** 2 + (3 - 4) ** 2, abs=1e-9)
    turn = torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64, generator=rng(1)))[0]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(10, abs=1e-9)


def test_frechet_distance_against_scipy_and_symmetric():
    from scipy.linalg import sqrtm

    x, y = torch.randn(60, 5, generator=rng()), 2 * torch.randn(80, 5, generator=rng(1)) @ torch.randn(5, 5, generator=rng(2))
    s, t = torch.cov(x.double().T).numpy(), torch.cov(y.double().T).numpy()
    exact = float(((x.double().mean(0) - y.double().mean(0)) ** 2).sum()) + (s + t - 2 * sqrtm(s @ t).real).trace()
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-8)
    assert frechet_distance(y, x) == pytest.approx(exact, rel=1e-8)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    with pytest.raises(GenmatchError, match="at least 2"):
        frechet_distance(x[:1], y)


def test_frechet_distance_takes_fewer_points_than_features():
    assert frechet_distance(torch.randn(5, 20, generator=rng()), torch.randn(6, 20, generator=rng(1))) > 0


def test_coverage_sees_dropped_modes_and_copies():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    real = torch.cat([c + torch.randn(50, 2, generator=rng(i)) for i, c in enumerate(centres)])
    assert coverage(real, real) == 1
    assert coverage(real[:50], real) == pytest.approx(0.5, abs=0.01)
    assert coverage(torch.full((10, 2), 100.0), real) == 0
    assert coverage(real + 1e-3, real, k=500) == 1


def test_nearest_distance_of_copies_is_zero():
    train = torch.randn(30, 1, 2, 2, generator=rng())
    assert nearest_distance(train[:10], train) == pytest.approx(0, abs=1e-6)
    assert nearest_distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [30.0, 40.0]])) == pytest.approx(5)


def test_class_balance_of_equal_and_single_classes():
    assert class_balance(torch.eye(4)) == pytest.approx(1)
    assert class_balance(torch.eye(4)[:1].expand(8, 4)) == pytest.approx(0)
    assert class_balance(torch.eye(4)[:2]) == pytest.approx(0.5)


def test_points_without_labels_are_their_own_features():
    data = gm.data.get("checkerboard")
    extractor = make_extractor(data)
    row = evaluate(data.train, extractor, extractor(data.test), data)
    assert {key for key in row if not key.endswith("_error")} == {"frechet", "coverage", "nearest_train"}
    assert all(row[key] >= 0 for key in row if key.endswith("_error"))
    assert row["coverage"] > 0.99


@pytest.mark.slow
def test_the_digits_classifier_knows_digits_and_is_kept(tmp_path):
    data = gm.data.get("digits")
    before = torch.random.get_rng_state()
    extractor = make_extractor(data, path=tmp_path / "classifier.safetensors")
    assert torch.equal(before, torch.random.get_rng_state())
    seen = extractor(data.test)
    assert float((seen.probabilities.argmax(-1) == data.labels[1]).double().mean()) > 0.97
    again = make_extractor(data, path=tmp_path / "classifier.safetensors", epochs=0)
    assert torch.equal(again(data.test).features, seen.features)
    good = evaluate(data.train, extractor, seen, data)
    noise = evaluate(torch.rand(len(data.train), 1, 8, 8, generator=rng()), extractor, seen, data)
    ones = evaluate(data.train[data.labels[0] == 1], extractor, seen, data)
    assert noise["frechet"] > 10 * good["frechet"]
    assert ones["frechet"] > 10 * good["frechet"]
    assert ones["balance"] < 0.2 < 0.95 < good["balance"]
    assert noise["coverage"] < 0.2
