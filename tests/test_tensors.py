"""The coins and the dice that every discrete step rolls."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.logits import draw_categorical
from genmatch.tensors import bernoulli, expand
from tests.toys import chi_square, seeded


def test_coins_are_float64():
    """float32 uniforms stand on a grid of 2^-24: they make 0 so often that a coin of 1e-9 falls 60 times too often."""
    dtypes, rand = [], torch.rand
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **how: dtypes.append(how["dtype"]) or rand(*shape, **how))
        bernoulli(torch.tensor([0.5]), torch.zeros(3, 1), rng=seeded())
        draw_categorical(torch.zeros(2, 3), rng=seeded())
    assert dtypes == [torch.float64, torch.float64]


def test_coins_fall_as_often_as_they_should():
    n = 200_000
    probability = torch.tensor([[0.0], [1e-3], [0.3], [1.0]], dtype=torch.float64)
    share = bernoulli(probability, torch.zeros(4, n), rng=seeded()).double().mean(-1)
    assert share[0] == 0
    assert share[3] == 1
    for p, s in ((1e-3, share[1]), (0.3, share[2])):
        assert abs(float(s) - p) < 4 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
def test_impossible_tokens_are_never_drawn(monkeypatch, uniform):
    monkeypatch.setattr(torch, "rand", lambda shape, **how: torch.full(shape, uniform, dtype=how["dtype"]))
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 1.0], [-math.inf, 3.0, -math.inf, -math.inf]])
    assert draw_categorical(logits, rng=None).tolist() == [1 if uniform == 0 else 3, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_tokens_are_drawn_by_their_probabilities(dtype):
    logits = torch.tensor([0.0, -6.0, 2.0, -math.inf, 1.0], dtype=dtype)
    draws = draw_categorical(logits.expand(60_000, 5), rng=seeded(1))
    assert chi_square(draws.bincount(minlength=5), logits.double().softmax(-1)) > 1e-4


def test_no_rows_give_no_tokens():
    assert draw_categorical(torch.zeros(0, 3), rng=None).shape == (0,)


@pytest.mark.parametrize("row", [[math.nan, 0.0], [-math.inf, -math.inf], [math.inf, 0.0]])
def test_rows_without_a_law_are_refused(row):
    with pytest.raises(gm.GenmatchError, match=r"must not be NaN, nor all -inf.*has diverged"):
        draw_categorical(torch.tensor([[0.0, 0.0], row]), rng=None)


def test_coefficients_take_the_precision_of_floating_states_only():
    t = torch.full((2,), 0.5, dtype=torch.float64)
    assert expand(t, torch.zeros(2, 3)).dtype == torch.float32
    assert expand(t, torch.zeros(2, 3, dtype=torch.int64)).dtype == torch.float64
    assert expand(t, torch.zeros(2, 3, 4)).shape == (2, 1, 1)
