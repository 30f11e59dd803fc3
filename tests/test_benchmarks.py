"""The benchmarks run beside the real peers, and the results that the documentation shows say what is claimed of them."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHOWN = ("quality_continuous", "quality_discrete", "overhead", "stiff", "likelihood", "couplings", "endpoints", "few_step")


def result(name):
    return json.loads((ROOT / "docs" / "_data" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_has_its_date_versions_and_machine(name):
    setting = result(name)["setting"]
    assert {"date", "machine", "genmatch", "torch", "flow_matching", "torchcfm"} <= set(setting)
    assert setting["flow_matching"] != "absent"
    assert (ROOT / "benchmarks" / f"{name}.py").exists()


def test_the_best_flow_solver_has_a_third_of_the_error_of_the_best_fixed_step_method_of_flow_matching():
    rows = result("quality_continuous")["best"]
    assert len(rows) == 24
    assert [row for row in rows if row["ratio"] > 1 / 3] == []


def test_token_solvers_are_ahead_at_every_time_and_budget():
    rows = result("quality_discrete")["best"]
    assert len(rows) == 64
    for row in rows:
        assert row["ratio"] < 1, row
        if row["data"] == "weak" and row["calls"] == 16:
            assert row["ratio"] <= 0.5, row


def test_a_stiff_sample_leaves_the_others_alone():
    own, *others = result("stiff")["stiff"]
    assert own["method"] == "adaptive"
    assert own["times"] == 1
    assert all(row["times"] > 10 for row in others)


def test_likelihoods_are_exact_and_their_standard_errors_right():
    rows = [row for row in result("likelihood")["likelihood"] if row["package"] == "genmatch"]
    for exact, *probes in (rows[:5], rows[5:]):
        assert exact["rms error, nats"] < 1e-8
        for row in probes:
            assert 0.8 < row["error in standard errors"] < 1.25, row
            n = int(row["divergence"].split()[0])
            assert row["standard error"] * n**0.5 == pytest.approx(probes[0]["standard error"] * 2**0.5, rel=0.1)


def test_fewer_steps_do_after_the_recipes():
    found = result("few_step")
    first, second, _ = found["flow"]
    assert second["1 calls"] < 1.1 * second["data"] < 0.25 * first["1 calls"]
    assert second["straightness"] < 0.01 * first["straightness"]
    for before, after in itertools.pairwise(found["chain"]):
        assert after["conditional total correlation, nats"] < before["conditional total correlation, nats"]
        assert all(after[f"{k} calls"] < before[f"{k} calls"] for k in (1, 2, 4, 8))
    for before, after in itertools.pairwise(found["codes"]):
        assert all(after[f"{k} calls"] < before[f"{k} calls"] for k in (1, 2, 4, 8))
    assert found["codes"][-1]["1 calls"] < 0.02
    bits = {(row["model"].split(",")[0], row["calls"], "trained" in row["model"]): row["bits under the teacher"] for row in found["text"]}
    for calls in (1, 2):
        assert bits["student", calls, False] < min(bits["teacher", calls, False], bits["teacher", calls, True])


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
