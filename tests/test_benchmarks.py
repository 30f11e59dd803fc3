"""The benchmarks run beside the real peers, and the results that the documentation shows say what is claimed of them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHOWN = ("quality_continuous", "quality_discrete", "overhead", "stiff", "couplings", "endpoints")


def result(name):
    return json.loads((ROOT / "docs" / "_data" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_has_its_date_versions_and_machine(name):
    setting = result(name)["setting"]
    assert {"date", "machine", "genmatch", "torch", "flow_matching", "torchcfm"} <= set(setting)
    assert setting["flow_matching"] != "absent"
    assert (ROOT / "benchmarks" / f"{name}.py").exists()


def test_adams_has_a_third_of_the_error_of_every_fixed_step_method_of_flow_matching():
    rows = [row for row in result("quality_continuous")["best"] if row["law"] == "two" and row["t"] >= 0.9]
    assert len(rows) == 6
    for row in rows:
        assert row["ratio"] <= 1 / 3, row


def test_on_a_law_that_it_was_not_chosen_for_it_is_still_ahead():
    for row in result("quality_continuous")["best"]:
        if row["law"] == "three" and row["t"] >= 0.9:
            assert row["ratio"] < 1, row


def test_token_solvers_are_ahead_at_every_time_and_budget():
    rows = result("quality_discrete")["best"]
    assert len(rows) == 64
    for row in rows:
        assert row["ratio"] < 1, row
        if row["data"] == "weak" and row["calls"] == 16 and row["source"] == "mask":
            assert row["ratio"] <= 0.5, row


def test_a_stiff_sample_leaves_the_others_alone():
    own, *others = result("stiff")["stiff"]
    assert own["method"] == "adaptive"
    assert own["times"] == 1
    assert all(row["times"] > 10 for row in others)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stiff", "endpoints"])
def test_the_scripts_run_alone(name, tmp_path):
    if importlib.util.find_spec("flow_matching") is None:
        pytest.skip("flow_matching is not installed: pip install -e .[bench]")
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json", str(tmp_path / "out.json")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    here, shown = json.loads((tmp_path / "out.json").read_text()), result(name)
    assert len(here[name]) == len(shown[name])


def test_the_entropy_of_tokens_is_that_of_the_data_however_many_steps():
    rows = result("token_entropy")["entropy"]
    ours, loop = ({row["steps"]: row for row in rows if row["sampler"] == name} for name in ("genmatch exact", "float32 Gumbel loop"))
    assert set(ours) == {16, 256, 1024, 4096}
    for row in ours.values():
        assert abs(row["from_data"]) < 2 * row["error"], row
    assert loop[1024]["from_data"] < -2 * loop[1024]["error"]
