"""Reference networks: every space in, every output shape out, positions and channels where they belong."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.errors import GenmatchError
from genmatch.spaces import SO3, Categorical, Euclidean, ProductSpace, Sphere, Torus

NETWORKS = [gm.nn.MLP, gm.nn.Transformer]
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
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("space", "output_shape"), CASES)
def test_shapes_and_gradients(network, space, output_shape):
    net = network(space, output_shape, width=16, depth=2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rng = torch.Generator().manual_seed(0)
    x = space.random(4, rng=rng)
    out = net(x, torch.rand(4, generator=rng))
    assert out.shape == (4, *output_shape)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_time_and_labels_matter_and_may_be_left_out(network):
    net = network(Euclidean((2,)), (2,), width=16, depth=1, labels={"digit": 3})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
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
    net = gm.nn.Transformer(Euclidean((2, 3, 3)), (2, 3, 3), width=8, depth=0, heads=2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    t = torch.full((1,), 0.3)
    changed = x.clone()
    changed[0, :, 1, 2] += 1
    moved = (net(x, t) - net(changed, t)).abs()[0] > 1e-6
    assert moved[:, 1, 2].all()
    assert moved.sum() == 2


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_see_no_seam_in_an_angle(network):
    net = network(Torus(1), (1,), width=16, depth=1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
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
    product = ProductSpace(a=Euclidean((2,)), b=Categorical((2,), 3))
    for network in NETWORKS:
        with pytest.raises(GenmatchError, match="Euclidean or Categorical"):
            network(product, (2,))
    with pytest.raises(GenmatchError, match="multiple of `heads`"):
        gm.nn.Transformer(Euclidean((2,)), (2,), width=10, heads=4)
    with pytest.raises(GenmatchError, match="must begin with the shape"):
        gm.nn.Transformer(Categorical((4,), 5), (3, 5))
