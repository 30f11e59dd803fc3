"""A package of its own brings a process and a solver: installed, they are found by name everywhere, with nothing to edit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ralston import Ralston

import genmatch as gm
from genmatch.runs import find_process, fit_view

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment in which the package of docs/examples is installed, apart from this one."""
    folder = tmp_path_factory.mktemp("plugin")
    source, site = folder / "source", folder / "site"
    shutil.copytree(EXAMPLES, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(source)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(site)}


def run(environment, *arguments, cwd):
    command = [sys.executable, "-c", "from genmatch.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_package_is_listed_checked_compared_and_sampled(installed, tmp_path):
    listed = run(installed, "list", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    for line in ("birth", "binomial", "ralston", "genmatch-birth"):
        assert line in listed.stdout
    checked = run(installed, "check", "birth", "--level", "quick", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    budget = ["--steps", 3, "--batch-size", 16, "--width", 16, "--depth", 1]
    compared = run(installed, "compare", "--data", "chain", "--process", "birth", "--process", "mask", "--nfe", 2, "--out", "out", *budget, cwd=tmp_path)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "birth" in (tmp_path / "out" / "report.html").read_text()
    trained = run(installed, "train", "--data", "checkerboard", "--process", "flow", "--out", "flow", *budget, cwd=tmp_path)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    sampled = run(installed, "sample", "flow", "--solver", "ralston", "--steps", 3, "--out", "x.npy", cwd=tmp_path)
    assert sampled.returncode == 0, sampled.stdout + sampled.stderr


def test_the_solver_is_what_it_declares():
    report = gm.check_solver(Ralston())
    assert report.passed, str(report)


def test_a_family_that_refuses_no_space_is_made_on_the_first_that_it_starts_on():
    state = torch.get_rng_state()
    assert find_process("tests.plugins:TokensOnly").space == gm.spaces.Categorical((2,), 3)
    assert fit_view("tests.plugins:TokensOnly", gm.data.get("checkerboard"))[1].name == "tokens"
    assert torch.equal(state, torch.get_rng_state())
