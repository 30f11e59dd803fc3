import numpy as np
import pytest
import torch

import genmatch as gm
from genmatch.spaces import SO3, Categorical, Euclidean, ProductSpace, Sphere, Torus
from tests.toys import seeded

SPACES = [
    Euclidean((2, 3)),
    Euclidean((4,), dtype=torch.float64),
    Categorical((3,), 5),
    Categorical((2, 2), 3, mask=True),
    ProductSpace(image=Euclidean((2,)), text=Categorical((3,), 4)),
    Sphere(2),
    Torus(2, dtype=torch.float64),
    SO3(),
    ProductSpace(place=Sphere(2), turn=SO3()),
]
every = pytest.mark.parametrize("space", SPACES, ids=str)


@every
def test_random_states_are_valid_and_repeatable(space):
    one, two = (space.random(6, rng=seeded(3)) for _ in range(2))
    assert space.validate(one) is one or isinstance(space, ProductSpace)
    assert str(one) == str(two)
    assert str(one) != str(space.random(6, rng=seeded(4)))


@every
def test_prepare_keeps_valid_states(space):
    state = space.random(5, rng=seeded())
    assert str(space.prepare(state)) == str(state)


def test_prepare_takes_arrays_and_casts():
    assert Euclidean((2,)).prepare(np.zeros((3, 2))).dtype == torch.float32
    assert Euclidean((2,), dtype=torch.float64).prepare([[1.0, 2.0]]).dtype == torch.float64
    assert Categorical((2,), 300).prepare(np.array([[1, 255]], dtype=np.uint8)).dtype == torch.int64


def test_enumerate_and_index_are_inverse():
    space = Categorical((2, 2), 2, mask=True)
    states = space.enumerate()
    assert states.shape == (81, 2, 2)
    assert len(states.unique(dim=0)) == 81
    assert torch.equal(space.index(states), torch.arange(81))
    with pytest.raises(gm.GenmatchError, match="fewer positions"):
        Categorical((9,), 10).enumerate()


def test_sizes():
    assert [space.size for space in SPACES] == [6, 4, 3, 4, 5, 3, 2, 9, 12]
    assert SPACES[3].num_states == 4
    assert SPACES[3].mask_id == 3
    with pytest.raises(gm.GenmatchError, match=r"has no mask.*source='mask'"):
        _ = SPACES[2].mask_id


real, tokens = Euclidean((2,)), Categorical((2,), 4)
both = ProductSpace(image=real, text=tokens)
BAD_STATES = [
    (real, torch.zeros(3, 2, 1), r"shape \(B, 2\), got \(3, 2, 1\); pass `x.reshape"),
    (real, torch.zeros(3, 5), r"shape \(B, 2\), got \(3, 5\); pass a process on states of shape \(5,\)"),
    (real, torch.tensor(1.0), r"shape \(B, 2\), got \(\)"),
    (real, torch.zeros(0, 2), "at least one state"),
    (real, torch.zeros(3, 2, dtype=torch.int64), r"floating.*got torch.int64; pass `x.float\(\)`"),
    (real, torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), r"finite, got 1 value.*at \(1, 1\).*clean"),
    (real, torch.tensor([[0.0, float("inf")]]), "finite"),
    (real, [[0.0, 1.0]], "torch.Tensor, got list; pass `torch.as_tensor"),
    (tokens, torch.tensor([[0, 4]]), r"tokens 0 to 3, got 4 \(the mask is not data\); check the tokeniser or set vocab_size to at least 5"),
    (tokens, torch.tensor([[0, 9]]), "got 9; check the tokeniser or set vocab_size to at least 10"),
    (tokens, torch.tensor([[-1, 0]]), "got -1"),
    (tokens, torch.zeros(1, 2), r"int64 tokens.*got torch.float32; pass `x.long\(\)`"),
    (tokens, torch.zeros(1, 2, dtype=torch.int32), "got torch.int32"),
    (both, torch.zeros(1, 2), r"dictionary with keys \['image', 'text'\], got Tensor"),
    (both, {"image": torch.zeros(1, 2)}, r"keys \['image', 'text'\], got \['image'\]"),
    (both, {"image": torch.zeros(2, 2), "text": torch.zeros(1, 2, dtype=torch.int64)}, "same number of samples"),
    (both, {"image": torch.zeros(2, 3), "text": torch.zeros(2, 2, dtype=torch.int64)}, r"x\['image'\]` must have shape"),
]


@pytest.mark.parametrize(("space", "state", "message"), BAD_STATES)
def test_invalid_states_are_refused_with_the_mend(space, state, message):
    with pytest.raises(gm.GenmatchError, match=message):
        space.validate(state)


BAD_DATA = [
    (real, "words", "must be a tensor or an array, got str"),
    (real, [[1.0, 2.0], [3.0]], "tensor or an array"),
    (real, None, "tensor or an array, got NoneType"),
    (tokens, [[0.5, 1.0]], r"integer tokens.*got torch.float32; round and pass"),
    (tokens, torch.zeros(1, 2, dtype=torch.bool), "got torch.bool"),
]


@pytest.mark.parametrize(("space", "data", "message"), BAD_DATA)
def test_data_that_are_no_states_are_refused(space, data, message):
    with pytest.raises(gm.GenmatchError, match=message):
        space.prepare(data)


BAD_SPACES = [
    (lambda: Euclidean(()), r"positive integers, got \(\)"),
    (lambda: Euclidean((0,)), r"got \(0,\)"),
    (lambda: Euclidean((2.5,)), r"got \(2.5,\)"),
    (lambda: Euclidean(3), "got 3; pass e.g."),
    (lambda: Euclidean((2,), dtype=torch.int64), "must be floating, got torch.int64"),
    (lambda: Euclidean((2,), dtype="float32"), "must be floating, got 'float32'"),
    (lambda: Categorical((2,), 0), "`vocab_size` must be a positive integer, got 0"),
    (lambda: Categorical((2,), 2.5), "got 2.5"),
    (lambda: Categorical((2,), None), "got None"),
    (lambda: ProductSpace(), "at least one part"),
]


@pytest.mark.parametrize(("make", "message"), BAD_SPACES)
def test_impossible_spaces_are_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()


def test_product_spaces_compare_by_their_parts():
    same = ProductSpace(image=Euclidean((2,)), text=Categorical((2,), 4))
    assert both == same
    assert hash(both) == hash(same)
    assert both != ProductSpace(image=Euclidean((3,)), text=Categorical((2,), 4))
