"""`gm.plot` draws what it is given: figures are read back from the axes and compared with the library's."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch

import genmatch as gm

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    matplotlib.pyplot.close("all")


def test_a_schedule_is_its_coefficients():
    ax = gm.plot.schedule(gm.schedules.Cosine())
    alpha, sigma = (line.get_ydata() for line in ax.lines)
    t = torch.as_tensor(ax.lines[0].get_xdata())
    np.testing.assert_array_equal(alpha, gm.schedules.Cosine().alpha(t))
    np.testing.assert_array_equal(sigma, gm.schedules.Cosine().sigma(t))
    assert gm.plot.schedule(gm.paths.Gaussian((2,)), ax=ax) is ax


def test_a_path_in_the_plane_ends_at_the_data_point():
    ax = gm.plot.path(gm.paths.Gaussian((2,)), torch.tensor([3.0, -1.0]), times=(0.0, 1.0), n=50)
    first, last = (cloud.get_offsets() for cloud in ax.collections)
    np.testing.assert_allclose(last, np.tile([3.0, -1.0], (50, 1)))
    assert abs(np.mean(first)) < 0.5
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["t = 0", "t = 1"]


def test_a_path_of_tokens_is_their_law_over_time():
    path = gm.paths.Mixture((4,), vocab_size=3, source="uniform")
    ax = gm.plot.path(path, torch.tensor([2, 0, 1, 1]), times=(0.0, 0.5, 1.0), n=4000)
    edges = [area.get_paths()[0].vertices for area in ax.collections]
    # The upper edge of token 1 is P(X_j in {0, 1}): 2/3, then half of it, then none.
    upper = {t: max(y for x, y in edges[1] if x == t) for t in (0.0, 0.5, 1.0)}
    assert upper[0.0] == pytest.approx(2 / 3, abs=0.03)
    assert upper[0.5] == pytest.approx(1 / 3, abs=0.03)
    assert upper[1.0] == 0


@pytest.mark.parametrize(
    "states",
    [torch.randn(9, 1), torch.randn(9, 2), torch.randn(9, 1, 4, 4), torch.randint(5, (9, 6))],
    ids=["line", "plane", "images", "tokens"],
)
def test_samples_of_each_kind_are_drawn(states):
    ax = gm.plot.samples(states)
    assert ax.patches or ax.collections or ax.images


@pytest.mark.parametrize("process", [gm.Flow(gm.paths.Gaussian((1,))), gm.Diffusion(gm.paths.Gaussian((2,))), gm.CTMC(gm.paths.Mixture((3,), vocab_size=4))])
def test_trajectories_of_each_kind_are_drawn(process):
    data = process.data_space.random(4, rng=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    run = gm.simulate(process, gm.oracle(process, data), process.path.source(5, rng=rng), torch.linspace(0, 1, 9), rng=rng)
    ax = gm.plot.trajectories(run)
    assert len(ax.lines) == (0 if not run.states[0].is_floating_point() else 5)
    if len(ax.lines) and process.space.size == 1:
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [x[0, 0] for x in run.states])


def test_rates_are_the_rate_matrix():
    process = gm.CTMC(gm.paths.Mixture((2,), vocab_size=2, source="uniform"))
    x = process.space.enumerate()
    t = torch.full((len(x),), 0.3, dtype=torch.float64)
    generator = gm.marginal_generator(process, torch.tensor([[0, 1], [1, 1]]), x, t)
    ax = gm.plot.rates(generator, process.space)
    np.testing.assert_allclose(ax.images[0].get_array(), generator.dense(process.space))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["00", "01", "10", "11"]
    assert gm.plot.rates(generator.dense(process.space)).images


def test_what_cannot_be_drawn_says_what_to_pass():
    with pytest.raises(gm.GenmatchError, match=r"must have shape \(S, S\), got \(2, 3\)"):
        gm.plot.rates(torch.zeros(2, 3))
    with pytest.raises(gm.GenmatchError, match="needs the `space`"):
        gm.plot.rates(gm.generators.Drift(torch.zeros(1, 1)))
    with pytest.raises(gm.GenmatchError, match="of a product pass one part"):
        gm.plot.samples({"image": torch.zeros(1, 2)})
    with pytest.raises(gm.GenmatchError, match="must be a Schedule"):
        gm.plot.schedule("cosine")
    with pytest.raises(gm.GenmatchError, match="must be a path"):
        gm.plot.path("gaussian", torch.zeros(1))


def test_matplotlib_is_imported_when_it_is_needed_and_its_absence_is_explained():
    code = """
import sys
import importlib.util
import genmatch as gm
gm.plot.schedule
assert "matplotlib" not in sys.modules
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
try:
    gm.plot.schedule(gm.schedules.CondOT())
except gm.GenmatchError as error:
    assert "pip install genmatch[plot]" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
