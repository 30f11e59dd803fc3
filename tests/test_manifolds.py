"""Manifolds: exp and log are inverse to rounding everywhere, states stay where they belong, uniform means uniform."""

import math

import pytest
import torch

import genmatch as gm
from genmatch.spaces import SO3, Sphere, Torus
from tests.toys import seeded

F64, F32 = torch.float64, torch.float32
SPACES = [Sphere(1), Sphere(2), Sphere(3), Torus(1), Torus(3), SO3()]
every = pytest.mark.parametrize("space", SPACES, ids=lambda s: f"{type(s).__name__}{s.dim}")
dtypes = pytest.mark.parametrize("dtype", [F64, F32], ids=str)
LENGTHS = [0.0, 1e-30, 1e-12, 1e-8, 1e-4, 0.1, 1.0, 2.0, 3.0]


def directions(space, x, rng):
    """Unit tangent vectors at `x`; on a torus the longest entry is 1, as the cut locus lies at half a turn of one angle."""
    v = space.project(x, torch.randn(x.shape, dtype=x.dtype, generator=rng))
    v = space.project(x, v / space.norm(v).reshape(-1, *[1] * (x.dim() - 1)))  # a short one is not tangent to rounding
    size = v.abs().flatten(1).amax(1) if isinstance(space, Torus) else space.norm(v)
    return v / size.reshape(-1, *[1] * (x.dim() - 1))


def points(space, n, dtype=F64, seed=0):
    return space.random(n, rng=seeded(seed), dtype=dtype)


@every
@dtypes
@pytest.mark.parametrize("length", LENGTHS)
def test_log_is_the_inverse_of_exp(space, dtype, length):
    x, rng = points(space, 200, dtype), seeded(1)
    v = length * directions(space, x, rng)
    found = space.log(x, space.exp(x, v))
    assert float((found - v).abs().max()) < (1e-14 if dtype == F64 else 3e-6) * (1 if length < 2.5 else 10)


@every
@dtypes
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-12])
def test_log_keeps_its_digits_near_the_cut_locus(space, dtype, gap):
    """Its way has the right length and leads to the right point, where an arc cosine would be wrong by the root of the rounding."""
    x, rng, eps = points(space, 200, dtype), seeded(1), torch.finfo(dtype).eps
    y = space.exp(x, (math.pi - gap) * directions(space, x, rng))
    v = space.log(x, y)
    reached = space.log(y, space.exp(x, v))
    assert float(reached.abs().max()) < 40 * eps
    if not isinstance(space, Torus):
        assert float((space.norm(v) - (math.pi - gap)).abs().max()) < 40 * eps
        naive = torch.acos((x * y).sum(-1).clamp(-1, 1)) if isinstance(space, Sphere) else torch.acos((((x.mT @ y).diagonal(dim1=1, dim2=2).sum(-1)) - 1) / 2)
        if gap == 1e-6:
            assert not float((naive - (math.pi - gap)).abs().max()) < 40 * eps


@every
@dtypes
def test_on_the_cut_locus_log_has_the_right_length(space, dtype):
    x = points(space, 100, dtype)
    if isinstance(space, Sphere):
        y = -x
    elif isinstance(space, Torus):
        y = torch.where(x < 0, x + math.pi, x - math.pi)
    else:
        y = x @ torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=dtype))
    v = space.log(x, y)
    longest = v.abs().amax(1) if isinstance(space, Torus) else space.norm(v)
    torch.testing.assert_close(longest, torch.full((100,), math.pi, dtype=dtype), atol=1e-5 if dtype == F32 else 1e-12, rtol=0)
    torch.testing.assert_close(space.log(space.exp(x, v), y), torch.zeros_like(v), atol=1e-5 if dtype == F32 else 1e-12, rtol=0)


@every
def test_exp_of_nothing_and_log_of_the_same_point(space):
    for dtype in (F32, F64):
        x = points(space, 50, dtype)
        assert torch.equal(space.exp(x, torch.zeros_like(x)), x)
        assert float(space.dist(x, x).max()) < 10 * torch.finfo(dtype).eps


@every
def test_distances_are_symmetric_and_keep_the_triangle(space):
    x, y, z = (points(space, 300, seed=k) for k in range(3))
    torch.testing.assert_close(space.dist(x, y), space.dist(y, x), atol=1e-13, rtol=0)
    assert bool((space.dist(x, z) <= space.dist(x, y) + space.dist(y, z) + 1e-12).all())


@every
def test_tangent_vectors_are_those_of_curves(space):
    """exp_x(h v) leaves x with velocity v, project keeps v and removes what is across."""
    x, rng, h = points(space, 100), seeded(2), 1e-6
    v = directions(space, x, rng)
    slope = space.log(x, space.exp(x, h * v)) / h
    difference = (space.exp(x, h * v) - space.exp(x, -h * v)) / (2 * h)
    inside = difference.abs() < 2  # on the torus a few curves cross the seam
    torch.testing.assert_close(slope, v, atol=1e-8, rtol=0)
    assert float(((difference - v) * inside).abs().max()) < 1e-8
    torch.testing.assert_close(space.project(x, v), v, atol=1e-14, rtol=0)
    ambient = torch.randn(x.shape, dtype=F64, generator=rng)
    tangent = space.project(x, ambient)
    torch.testing.assert_close(space.project(x, tangent), tangent, atol=1e-14, rtol=0)
    assert float((v * (ambient - tangent)).flatten(1).sum(-1).abs().max()) < 1e-13


@every
def test_states_stay_on_the_manifold_for_a_thousand_steps(space):
    x, rng = points(space, 200, F32), seeded(3)
    for _ in range(1000):
        x = space.exp(x, space.project(x, 0.3 * torch.randn(x.shape, generator=rng)))
    off = (x.double() - space.nearest(x.double())).abs().max()
    assert float(off) < 1e-6
    space.validate(x)


def test_without_the_last_projection_they_would_drift():
    x, rng, sphere = points(Sphere(2), 200, F32), seeded(3), Sphere(2)
    raw = x
    for _ in range(1000):
        noise = 0.3 * torch.randn(x.shape, generator=rng)
        v = sphere.project(raw, noise)
        theta = v.norm(dim=-1, keepdim=True)
        raw = theta.cos() * raw + torch.sinc(theta / math.pi) * v
        x = sphere.exp(x, sphere.project(x, noise))
    kept, drifted = (float((y.double().norm(dim=-1) - 1).abs().max()) for y in (x, raw))
    assert kept < 2e-7
    assert drifted > 5e-7


@every
def test_the_stretch_of_volumes_is_the_jacobian_of_exp(space):
    """By finite differences in an orthonormal frame: log_x exp_x(v + h e) is flat, distances of neighbours are not."""
    x, rng, h = points(space, 1), seeded(4), 1e-5
    frame = []
    while len(frame) < space.dim:  # Gram-Schmidt on random tangent vectors, in the Riemannian product
        v = space.project(x, torch.randn(x.shape, dtype=F64, generator=rng))
        for e in frame:
            v = v - (v * e).sum() / (e * e).sum() * e
        frame.append(v / space.norm(v).item())
    for length in (0.3, 1.4, 2.8):
        v = length * directions(space, x, rng)
        y = space.exp(x, v)
        columns = []
        for e in frame:
            image = (space.log(y, space.exp(x, v + h * e)) - space.log(y, space.exp(x, v - h * e))) / (2 * h)
            columns.append(image.flatten() * space.norm(image) / image.norm())
        gram = torch.stack([torch.stack([a @ b for b in columns]) for a in columns])
        assert float(0.5 * torch.logdet(gram)) == pytest.approx(float(space.log_stretch(v)), abs=1e-7)
    assert space.log_stretch(1.2 * math.pi * directions(space, x, rng)).isneginf().all()


@every
def test_uniform_draws_look_the_same_from_everywhere(space):
    """The mean of f(X) is that of f(g X) for a motion g, and the moments that are known are right."""
    n = 400_000
    x = points(space, n)
    if isinstance(space, Sphere):
        values = {"mean": x[:, 0], "second": x[:, 0] ** 2 - 1 / (space.n + 1), "mixed": x[:, 0] * x[:, 1]}
    elif isinstance(space, Torus):
        values = {"cos": x[:, 0].cos(), "sin": x[:, 0].sin(), "cos 2": (2 * x[:, 0]).cos()}
    else:
        angle = space.norm(space.log(torch.eye(3, dtype=F64).expand(n, 3, 3), x))
        values = {"E cos omega = -1/2": angle.cos() + 0.5, "entry": x[:, 0, 1], "square": x[:, 2, 1] ** 2 - 1 / 3}
    for name, value in values.items():
        z = float(value.mean() / (value.std() / n**0.5))
        assert abs(z) < 4, (name, z)


BAD_STATES = [
    (Sphere(2), 1.001 * torch.eye(3), r"must lie on Sphere\(n=2.*to 1e-05, got a point that is 0.001 off, at row 0; pass `x / x.norm"),
    (Sphere(2), torch.zeros(1, 3), "got a point that is inf off"),
    (Sphere(2), torch.zeros(1, 2), r"shape \(B, 3\), got \(1, 2\)"),
    (Sphere(2), torch.ones(1, 3).long(), "must be floating"),
    (Sphere(2), torch.full((1, 3), math.nan), "finite, got 3 value"),
    (Torus(2), torch.tensor([[0.0, 4.0]]), r"a point that is 6.28 off.*pass `gm.spaces.Torus\(2\).nearest\(x\)`"),
    (SO3(), 1.1 * torch.eye(3).unsqueeze(0), r"must lie on SO3.*off.*linalg.svd\(x\)"),
    (SO3(), -torch.eye(3).unsqueeze(0), "off.*determinant must be 1"),
]


@pytest.mark.parametrize(("space", "state", "message"), BAD_STATES)
def test_points_off_the_manifold_are_refused_with_how_far_and_the_mend(space, state, message):
    with pytest.raises(gm.GenmatchError, match=message):
        space.validate(state)


def test_prepare_removes_rounding_and_nothing_else():
    rough = points(Sphere(2), 100, F32).double() * (1 + 3e-6)
    assert float((Sphere(2, F64).prepare(rough).norm(dim=-1) - 1).abs().max()) < 1e-15
    with pytest.raises(gm.GenmatchError, match=r"`data` must lie on Sphere.*0.01 off"):
        Sphere(2).prepare(1.01 * torch.eye(3))
    rough = points(SO3(), 100, F32).double() + 3e-6
    found = SO3(F64).prepare(rough)
    assert float((found.mT @ found - torch.eye(3, dtype=F64)).abs().max()) < 1e-14


BAD_SPACES = [
    (lambda: Sphere(0), "`n` must be a positive integer, got 0"),
    (lambda: Torus(1.5), "got 1.5"),
    (lambda: Sphere(2, dtype=torch.int64), "`dtype` of a sphere must be floating"),
    (lambda: SO3(dtype="float32"), "must be floating, got 'float32'"),
]


@pytest.mark.parametrize(("make", "message"), BAD_SPACES)
def test_impossible_manifolds_are_refused(make, message):
    with pytest.raises(gm.GenmatchError, match=message):
        make()
