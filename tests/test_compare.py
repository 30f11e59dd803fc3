"""`compare` from plan to report: resuming, refusing, plug-ins, and figures that agree with each other."""

import functools
import json
import re

import pytest
import torch

import genmatch as gm
from genmatch.compare import Plan, compare, runner
from genmatch.compare.metrics import evaluate
from genmatch.errors import GenmatchError
from genmatch.runs import load_run

SMALL = {"steps": 3, "batch_size": 16, "width": 16, "depth": 1, "nfe": (1, 3)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    lines = []
    comparison = compare(Plan(data="checkerboard", **SMALL), out, say=lines.append)
    return comparison, out, lines


def test_every_family_that_fits_is_trained_and_measured(finished):
    comparison, _out, lines = finished
    assert [f.name for f in comparison.families] == ["flow", "diffusion", "mask", "uniform", "uniform-reversal", "metric", "jump", "level-flow", "flow+jump"]
    assert [f.run.view.name for f in comparison.families] == ["vectors"] * 2 + ["tokens"] * 4 + ["levels"] * 3
    for family in comparison.families:
        assert [row["nfe"] for row in family.rows] == [1, 3]
        assert family.best["frechet"] == min(row["frechet"] for row in family.rows)
        assert family.points[3].shape == (8000, 2)
    assert any("[4/9] uniform: training 3 steps" in line for line in lines)


def test_the_report_stands_alone_and_its_figures_are_those_of_the_json(finished):
    _comparison, out, _ = finished
    page = (out / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 5
    assert page.count("data:image/gif;base64,") == 1
    results = json.loads((out / "results.json").read_text())
    assert results["plan"]["steps"] == 3
    for family in results["families"]:
        assert f"{family['best_over_floor']:.2f}" in page
        assert family["process"].replace("'", "&#39;") in page
    assert "genmatch compare --data checkerboard --steps 3 --nfe 1 --nfe 3" in page
    assert results["versions"]["torch"] in page
    for name in ("overview", "quality", "budgets", "neighbours", "generation"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_data_set_brings_figures_of_its_own(tmp_path):
    comparison = compare(Plan(data="digits+label", **{**SMALL, "nfe": (2,)}), tmp_path)
    (family,) = comparison.families
    assert family.name == "product"
    assert 0 <= family.best["agreement"] < 0.5
    assert comparison.floor["agreement"] > 0.95
    page = (tmp_path / "report.html").read_text()
    assert "label agrees" in page
    assert f"{family.best['agreement']:.1%}" in page


def test_metrics_can_be_measured_again_from_what_is_on_disk(finished):
    comparison, out, _ = finished
    family = comparison.families[2]
    extractor = runner.make_extractor(comparison.data)
    row = evaluate(family.points[3], extractor, extractor(comparison.data.test), comparison.data)
    saved = json.loads((out / "mask" / "nfe-3.json").read_text())
    assert {key: saved[key] for key in row} == row
    model = load_run(out / "mask").model
    x, t = torch.zeros(2, 2, dtype=torch.int64), torch.full((2,), 0.5)
    torch.testing.assert_close(model(x, t), family.run.model(x, t))


def test_a_finished_comparison_is_not_done_again(finished, monkeypatch):
    _comparison, out, _ = finished

    def never(*args, **kwargs):
        raise AssertionError("trained or sampled again")

    monkeypatch.setattr("genmatch.runs.train", never)
    monkeypatch.setattr("genmatch.sampling.sample", never)
    again = compare(Plan(data="checkerboard", **SMALL), out)
    assert again.results()["families"] == json.loads((out / "results.json").read_text())["families"]


def test_a_stopped_comparison_keeps_what_was_finished_and_goes_on(tmp_path, monkeypatch):
    plan = Plan(data="tests.plugins:blobs", processes=("flow", "diffusion"), **SMALL)
    real = runner.train_run

    def stop_at_diffusion(settings, *args, **kwargs):
        if settings.process == "diffusion":
            raise KeyboardInterrupt
        return real(settings, *args, **kwargs)

    monkeypatch.setattr(runner, "train_run", stop_at_diffusion)
    with pytest.raises(KeyboardInterrupt):
        compare(plan, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Still to come: diffusion" in page
    first = (tmp_path / "flow" / "run.json").read_bytes()
    monkeypatch.setattr(runner, "train_run", real)
    lines = []
    whole = compare(plan, tmp_path, say=lines.append)
    assert [f.name for f in whole.families] == ["flow", "diffusion"]
    assert (tmp_path / "flow" / "run.json").read_bytes() == first
    assert any("flow: already trained" in line for line in lines)
    assert "Still to come" not in (tmp_path / "report.html").read_text()
    fresh = compare(plan, tmp_path / "fresh")
    for one, two in zip(whole.families, fresh.families, strict=True):
        assert one.best["frechet"] == two.best["frechet"]


def test_more_budgets_and_families_join_a_finished_comparison(tmp_path):
    small = {**SMALL, "nfe": (2,)}
    compare(Plan(data="tests.plugins:blobs", processes=("flow",), **small), tmp_path)
    stamp = (tmp_path / "flow" / "nfe-2.json").stat().st_mtime_ns
    more = compare(Plan(data="tests.plugins:blobs", processes=("flow", "tests.plugins:cosine_flow"), **{**small, "nfe": (2, 4)}), tmp_path)
    assert [row["nfe"] for row in more.families[0].rows] == [2, 4]
    assert (tmp_path / "flow" / "nfe-2.json").stat().st_mtime_ns == stamp
    assert more.families[1].run.process.prediction == "data"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processes": ("flwo",)}, "did you mean `flow`"),
        ({"processes": ("mask",)}, "fits no view"),
        ({"processes": ("tests.plugins:not_a_process",)}, "expected a process"),
        ({"processes": ("flow", "flow")}, "named twice"),
        ({"data": "digit"}, "did you mean `digits`"),
        ({"nfe": (0,)}, "`nfe` must be a positive integer, got 0"),
        ({"nfe": ()}, "positive integers"),
        ({"steps": 0}, "`steps` must be a positive integer"),
        ({"lr": float("nan")}, "`lr` must be a number in (0, inf)"),
        ({"network": "mpl"}, "did you mean `mlp`"),
        ({"width": 0}, "`width` must be a positive integer"),
    ],
)
def test_a_wrong_plan_fails_before_any_work(tmp_path, change, message):
    with pytest.raises(GenmatchError, match=re.escape(message)):
        compare(Plan(**{"data": "tests.plugins:blobs", **SMALL, **change}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_of_other_settings_are_refused_and_kept(tmp_path):
    compare(Plan(data="tests.plugins:blobs", processes=("flow",), **SMALL), tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(GenmatchError, match="steps=3 \\(now 4\\)"):
        compare(Plan(data="tests.plugins:blobs", processes=("flow",), **{**SMALL, "steps": 4}), tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before


def test_samples_are_drawn_by_class_and_the_report_says_how_many_are_as_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "make_extractor", functools.partial(runner.make_extractor, epochs=1))
    plan = Plan(data="digits", processes=("flow",), condition=True, **SMALL | {"nfe": (2,)})
    comparison = compare(plan, tmp_path)
    for family in comparison.families:
        assert family.run.model.null == {"label": 10}
        assert 0 <= family.rows[0]["as_asked"] < 0.5, "three steps teach nothing"
    assert comparison.floor.get("as_asked") is None
    assert "as asked" in (tmp_path / "report.html").read_text()
    run = load_run(tmp_path / "flow")
    assert run.settings.condition
    one, two = (gm.sample(run.process, run.model, 4, steps=2, seed=0, condition=told) for told in (None, {"label": torch.full((4,), 10)}))
    assert torch.equal(one, two), "without a label it is not given"


def test_a_comparison_by_class_needs_labels(tmp_path):
    with pytest.raises(gm.GenmatchError, match="`condition` needs data with labels, and checkerboard has none"):
        compare(Plan(data="checkerboard", condition=True, **SMALL), tmp_path)


def test_a_solver_without_a_fixed_number_of_calls_has_no_budget():
    process = gm.Flow(gm.paths.Gaussian((1,)))
    process.solver = "dopri5"
    with pytest.raises(gm.GenmatchError, match=r"Dopri5, the recommended solver of Flow.*takes as many calls as it needs"):
        runner.steps_for(process, 8)
