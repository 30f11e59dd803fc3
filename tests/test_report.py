"""Reports: intervals that cover what they say, joined runs, and figures marked only where they differ."""

import io
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch

import genmatch as gm
from genmatch import animation
from genmatch.compare import Plan, Study, compare, load_comparison, write_report
from genmatch.compare.metrics import frechet_distance, frechet_error
from genmatch.compare.report import command, sentence, table_html
from genmatch.compare.study import Estimate, Line, estimate
from genmatch.data import DataSet, View, get
from genmatch.errors import GenmatchError
from genmatch.spaces import Categorical

SMALL = {"steps": 3, "batch_size": 16, "width": 16, "depth": 1, "nfe": (1, 2)}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Two seeds of a flow, and another family in a comparison of its own."""
    places = [tmp_path_factory.mktemp(name) for name in ("zero", "one", "other")]
    plans = [{"processes": ("flow",)}, {"processes": ("flow",), "seed": 1}, {"processes": ("tests.plugins:cosine_flow",)}]
    for plan, place in zip(plans, places, strict=True):
        compare(Plan(data="tests.plugins:blobs", **SMALL, **plan), place)
    return places


def study(places):
    return Study([load_comparison(place) for place in places], [str(place) for place in places])


def test_the_bootstrap_error_is_the_spread_over_draws_of_the_samples():
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(500, 3, generator=rng, dtype=torch.float64)

    def drawn():
        return 1.3 * torch.randn(400, 3, generator=rng, dtype=torch.float64) + 0.2

    spread = float(torch.tensor([frechet_distance(drawn(), real) for _ in range(300)]).std())
    found = sum(frechet_error(drawn(), real, seed=k) for k in range(5)) / 5
    # Both are known to about 6 %; without the root of N, or of the mean, it is 20 times as much or as little.
    assert abs(found / spread - 1) < 0.2


def test_the_interval_of_several_runs_is_students():
    values = [1.0, 2.0, 4.0]
    found = estimate(values, [0.1] * 3)
    mean = sum(values) / 3
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    assert found.value == pytest.approx(mean)
    assert found.half == pytest.approx(4.302653 * spread / math.sqrt(3), rel=1e-6)
    assert estimate([1.0], [None]) == Estimate(1.0)


def test_a_best_figure_is_marked_only_where_it_differs_from_every_other():
    def line(name, value, error):
        return Line(name, (SimpleNamespace(rows=[{"nfe": 1, "frechet": value, "frechet_error": error}]),), (0,), 1.0)

    def winners(*lines):
        made = Study.__new__(Study)
        made.lines = list(lines)
        return made.winners("frechet", lambda one: one.figure("frechet"), -1)

    close, far, best = line("close", 1.1, 0.1), line("far", 9.0, 0.1), line("best", 1.0, 0.1)
    assert winners(best, far) == {"best"}
    assert winners(best, close, far) == set()
    assert winners(best) == set(), "alone there is nothing to be better than"
    assert winners(best, line("unknown", 9.0, None)) == set(), "without an error nothing is known to differ"


def test_a_report_is_made_again_from_disk_without_training_sampling_or_measuring(three, monkeypatch, tmp_path):
    def never(*args, **kwargs):
        raise AssertionError("done again")

    for name in ("genmatch.runs.train", "genmatch.sampling.sample", "genmatch.sampling.simulate", "genmatch.compare.runner.evaluate"):
        monkeypatch.setattr(name, never)
    page = (three[0] / "report.html").read_text()
    (three[0] / "report.html").unlink()
    write_report(study(three[:1]), three[0])
    assert (three[0] / "report.html").read_text() == page
    assert json.loads(json.dumps(load_comparison(three[0]).results())) == json.loads((three[0] / "results.json").read_text())


def test_seeds_are_joined_to_a_mean_and_families_to_one_table(three, tmp_path):
    joined = study(three)
    assert [(line.name, line.seeds) for line in joined.lines] == [("flow", (0, 1)), ("tests.plugins:cosine_flow", (0,))]
    flow = joined.lines[0]
    values = [family.rows[1]["frechet"] for family in flow.families]
    assert flow.figure("frechet", 2).value == pytest.approx(sum(values) / 2)
    assert flow.figure("frechet", 2).half == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4)
    page = write_report(joined, tmp_path).read_text()
    assert "3 comparisons, joined." in page
    assert "mean of 2 seeds" in page
    assert page.count("genmatch compare --data tests.plugins:blobs") == 3
    assert f"genmatch report {three[0]} {three[1]} {three[2]}" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert {tuple(line["seeds"]) for line in joined.results()["lines"]} == {(0, 1), (0,)}


def test_other_settings_are_a_line_of_their_own_that_says_which(three, tmp_path):
    compare(Plan(data="tests.plugins:blobs", processes=("flow",), **{**SMALL, "steps": 4}), tmp_path)
    assert [line.name for line in study([three[0], tmp_path]).lines] == ["flow, steps=3", "flow, steps=4"]


def test_what_cannot_be_joined_is_refused_with_the_reason(three, tmp_path):
    with pytest.raises(GenmatchError, match=r"must differ in their seed to be joined, got seeds \[0, 0\]"):
        study([three[0], three[0]])
    with pytest.raises(GenmatchError, match="holds no comparison"):
        load_comparison(tmp_path)
    one, two = load_comparison(three[0]), load_comparison(three[1])
    two.floor["frechet"] *= 1.05
    with pytest.raises(GenmatchError, match="measured in other features"):
        Study([one, two], ["a", "b"])
    object.__setattr__(two, "data", get("chain"))
    with pytest.raises(GenmatchError, match="of one data set"):
        Study([one, two], ["a", "b"])


def test_a_notebook_shows_the_table(three):
    comparison = load_comparison(three[0])
    shown = comparison._repr_html_()
    assert shown == table_html(Study([comparison], ["blobs"]))
    assert "<table" in shown
    assert "× floor" in shown
    assert "<img" not in shown
    assert repr(comparison).startswith("Comparison(blobs, 1 of 1 families")


def test_compare_is_a_call_and_a_module(tmp_path):
    made = gm.compare("tests.plugins:blobs", tmp_path, processes=("flow",), **SMALL)
    assert isinstance(made, gm.compare.Comparison)
    assert json.dumps(gm.compare.load_comparison(tmp_path).results()) == json.dumps(made.results())


def test_the_sentence_names_calls_that_are_enough_and_suspects_copies(three):
    joined = study(three[:1])
    (line,) = joined.lines
    assert sentence(line, joined).startswith(line.over_floor().text("{:.2f}"))
    assert "no sign of copies" in sentence(line, joined)
    joined.test_nearest *= 100
    assert "look for copies" in sentence(line, joined)


def test_the_command_of_a_plan_is_the_plan():
    assert command(Plan(condition=True, seed=3, nfe=(4,)), "out put") == "genmatch compare --data digits --nfe 4 --seed 3 --condition --out 'out put'"


def test_points_on_the_way_say_what_is_not_known_yet():
    view = get("chain").views[0]
    tokens = view.train[:2].clone()
    tokens[0, 3] = 4  # the mask
    shown = view.show(tokens)
    assert shown[0].reshape(12, 4).isnan().any(-1).nonzero().flatten().tolist() == [3]
    assert torch.equal(shown[1], view.decode(tokens[1:])[0].double())
    assert torch.equal(view.show(view.train[:5]), view.decode(view.train[:5])), "data are what they are"
    letters = get("text")
    hidden = letters.views[0].train[:1].clone()
    hidden[0, :6] = letters.views[0].space.vocab_size
    assert letters.write(letters.views[0].show(hidden))[0].startswith("······Citizen")


def test_a_product_shows_what_is_known_of_each_part():
    data = get("digits+label")
    state = {"image": data.views[0].train["image"][:2], "label": torch.tensor([[10], [3]])}
    shown = data.views[0].show(state)
    assert shown[0, 64:].isnan().any()
    assert not shown[0, :64].isnan().any()
    assert not shown[1].isnan().any()


def test_frames_are_one_clock_from_first_to_last():
    from PIL import Image

    def draw(axes, points):
        axes.scatter(points[:, 0].numpy(), points[:, 1].numpy())

    frames = animation.draw_frames(draw, [torch.rand(5, 2) * k for k in (1, 2, 3)])
    clocked = animation.one_clock({"a": frames, "b": frames}, [0.0, 0.5, 1.0])
    image = Image.open(io.BytesIO(animation.to_gif(clocked)))
    assert image.n_frames == 3
    assert image.info["loop"] == 0
    assert clocked[0].size[0] == 2 * frames[0].size[0]
    assert animation.film_strip({"a": frames}, [0.0, 0.5, 1.0], shown=3).size[0] > 3 * frames[0].size[0]


def test_a_view_of_one_token_shows_itself():
    x = torch.zeros(2, 3, dtype=torch.int64)
    view = View("one", Categorical((3,), 1), x, x, lambda v: v)
    assert DataSet("one", (view,), lambda axes, points: None).views[0].show(x).equal(x)
