"""Reference networks: every space in, every output shape out, positions and channels where they belong."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.errors import GenmatchError
from genmatch.spaces import SO3, Categorical, Euclidean, ProductSpace, Sphere, Torus
from genmatch.tensors import leaves

NETWORKS = [gm.nn.MLP, gm.nn.Transformer]
PAIR = ProductSpace(image=Euclidean((2, 4, 4)), type=Categorical((3,), 5, mask=True))
CASES = [
    (Euclidean((3,)), (3,)),
    (Euclidean((2, 4, 4)), (2, 4, 4)),
    (Euclidean((2, 4, 4)), (2, 4, 4, 5)),
    (Sphere(2), (3,)),
    (Torus(3), (3,)),
    (SO3(), (3, 3)),
    (Categorical((6,), 5), (6, 5)),
    (Categorical((6,), 5, mask=True), (6, 5)),
    (Categorical((2, 3), 5), (2, 3, 5)),
    (PAIR, {"image": (2, 4, 4), "type": (3, 5)}),
    (ProductSpace(pair=PAIR, place=Sphere(2)), {"pair": {"image": (2, 4, 4), "type": (3, 5)}, "place": (3,)}),
    (Euclidean((3,)), {"flow": (3,), "jump": (3, 8)}),
    (PAIR, {"product1": {"image": (2, 4, 4), "type": (3, 5)}, "product2": {"image": (2, 4, 4), "type": (3, 5)}}),
]


def shapes(state):
    return gm.tensors.tree_map(lambda v: v.shape, state)


def random_weights(net):
    torch.manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("space", "output_shape"), CASES)
def test_shapes_and_gradients(network, space, output_shape):
    net = random_weights(network(space, output_shape, width=16, depth=2, timed=True))
    rng = torch.Generator().manual_seed(0)
    x = space.random(4, rng=rng)
    out = net(x, torch.rand(4, generator=rng))
    assert shapes(out) == shapes(gm.tensors.tree_map(lambda shape: torch.zeros(4, *shape), output_shape))
    sum(part.square().sum() for part in leaves(out)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_time_and_labels_matter_and_may_be_left_out(network):
    net = random_weights(network(Euclidean((2,)), (2,), width=16, depth=1, labels={"digit": 3}))
    x, t = torch.ones(3, 2), torch.full((3,), 0.5)
    labels = [net(x, t, digit=torch.full((3,), k)) for k in range(3)]
    outputs = [*labels, net(x, t), net(x, t + 0.1)]
    for i, a in enumerate(outputs):
        for b in outputs[i + 1 :]:
            assert not torch.allclose(a, b)
    with pytest.raises(GenmatchError, match="'colour'"):
        net(x, t, colour=torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("network", NETWORKS)
def test_float64_times_and_states_are_taken(network):
    net = network(Euclidean((2,)), (2,), width=16, depth=1)
    assert net(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)).dtype == torch.float32


def test_transformer_keeps_pixels_and_channels_in_place():
    """With no blocks the output at a pixel depends on that pixel alone, channel by channel."""
    net = random_weights(gm.nn.Transformer(Euclidean((2, 3, 3)), (2, 3, 3), width=8, depth=0, heads=2))
    x = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    t = torch.full((1,), 0.3)
    changed = x.clone()
    changed[0, :, 1, 2] += 1
    moved = (net(x, t) - net(changed, t)).abs()[0] > 1e-6
    assert moved[:, 1, 2].all()
    assert moved.sum() == 2


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_see_no_seam_in_an_angle(network):
    net = random_weights(network(Torus(1), (1,), width=16, depth=1))
    near, t = torch.tensor([[-math.pi], [math.pi - 1e-6], [0.0]]), torch.full((3,), 0.5)
    out = net(near, t)
    torch.testing.assert_close(out[0], out[1], atol=1e-4, rtol=0)
    assert (out[0] - out[2]).abs() > 1e-2


def test_transformer_head_acts_on_each_position_alone():
    net = gm.nn.Transformer(Categorical((4,), 5), (4, 5), width=8, depth=1, heads=2)
    torch.nn.init.normal_(net.head.weight)
    x, t = torch.randint(5, (2, 4), generator=torch.Generator().manual_seed(0)), torch.rand(2)
    where = torch.tensor([[True, False, False, True], [False, False, True, False]])
    torch.testing.assert_close(net.head(net.features(x, t)[where]), net(x, t)[where])


def test_wrong_requests_say_what_fits():
    for network in NETWORKS:
        with pytest.raises(GenmatchError, match=r"products of these, got .*; write a network"):
            network(Strange((2,)), (2,))
    with pytest.raises(GenmatchError, match="must be a dictionary"):
        gm.nn.Transformer(PAIR, (2, 4, 4))
    with pytest.raises(GenmatchError, match="multiple of `heads`"):
        gm.nn.Transformer(Euclidean((2,)), (2,), width=10, heads=4)
    with pytest.raises(GenmatchError, match="must begin with the shape"):
        gm.nn.Transformer(Categorical((4,), 5), (3, 5))
    with pytest.raises(GenmatchError, match="must begin with the shape"):
        gm.nn.Transformer(PAIR, {"image": (2, 4, 4), "type": (4, 5)})


class Strange(gm.spaces.Space):
    """A space that no reference network knows."""

    size = 2
    validate = prepare = random = test_functions = None

    def __init__(self, shape):
        self.shape = shape


@pytest.mark.parametrize("network", NETWORKS)
def test_every_head_sees_every_modality(network):
    """A change of one coordinate of one part moves the outputs of all parts, of all positions."""
    net = random_weights(network(PAIR, {"image": (2, 4, 4), "type": (3, 5)}, width=16, depth=1)).double()
    x, t = PAIR.random(1, rng=torch.Generator().manual_seed(0)), torch.full((1,), 0.5)
    before = net(x, t)
    for part, change in (("image", lambda v: v + 1), ("type", lambda v: (v + 1) % 5)):
        moved = {**x, part: x[part].clone()}
        moved[part].flatten()[-1:] = change(x[part].flatten()[-1:])
        after = net(moved, t)
        assert all(bool((before[name] != after[name]).all()) for name in before)


def test_the_positions_of_a_product_keep_their_modality_and_place():
    """With no blocks each output depends on its own position alone."""
    net = random_weights(gm.nn.Transformer(PAIR, {"image": (2, 4, 4), "type": (3, 5)}, width=8, depth=0, heads=2))
    x, t = PAIR.random(1, rng=torch.Generator().manual_seed(0)), torch.full((1,), 0.5)
    changed = {"image": x["image"].clone(), "type": x["type"].clone()}
    changed["image"][0, 1, 2, 3] += 1
    changed["type"][0, 2] = (x["type"][0, 2] + 1) % 5
    before, after = net(x, t), net(changed, t)
    image, token = ((before[name] - after[name]).abs()[0] > 1e-6 for name in ("image", "type"))
    assert image[:, 2, 3].all()
    assert image.sum() == 2
    assert token[2].all()
    assert token.sum() == 5


def test_several_heads_on_one_space_have_a_trunk_in_common():
    for network in NETWORKS:
        one = network(Euclidean((3,)), (3,), width=16, depth=2)
        two = network(Euclidean((3,)), {"flow": (3,), "diffusion": (3,)}, width=16, depth=2)
        sizes = [sum(p.numel() for p in net.parameters()) for net in (one, two)]
        assert sizes[1] - sizes[0] == sum(p.numel() for p in one.heads.parameters())
    assert not hasattr(two, "head")
