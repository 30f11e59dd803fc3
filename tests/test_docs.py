"""The documentation builds without a warning, its examples run, and the worked example is as short and as right as it says."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import genmatch as gm

DOCS = Path(__file__).parent.parent / "docs"
BIRTH = DOCS / "examples" / "birth.py"


@pytest.mark.slow
def test_the_examples_run(tmp_path):
    """`make docs`, which `make test` calls last, builds the pages."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "doctest", str(DOCS), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def code_lines(source):
    """Lines that are neither blank nor a comment nor part of a docstring."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [node.body[0] for node in ast.walk(ast.parse(source)) if isinstance(node, described) and ast.get_docstring(node)]
    skipped = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    return [line for number, line in enumerate(source.splitlines(), 1) if number not in skipped and line.strip() and not line.strip().startswith("#")]


def test_code_lines_skips_what_is_not_code():
    assert code_lines('"""A module.\n\nMore."""\n\n# why\nx = 1\n\ndef f():\n    """It."""\n    return x\n') == ["x = 1", "def f():", "    return x"]


def test_the_worked_example_is_one_short_file():
    assert len(code_lines(BIRTH.read_text())) < 40


@pytest.fixture(scope="module")
def birth():
    spec = importlib.util.spec_from_file_location("birth", BIRTH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape", [(1,), (2,)])
def test_the_worked_example_passes_every_check(birth, shape):
    report = gm.check_process(birth.Birth(gm.spaces.Categorical(shape, vocab_size=5)))
    assert report.passed, str(report)
    assert {"forward-conditional", "forward-marginal", "transition-path"} <= {result.id for result in report.results if result.outcome == "passed"}


def test_the_worked_example_refuses_what_is_not_a_count(birth):
    process = birth.Birth(gm.spaces.Euclidean((2,)))
    with pytest.raises(gm.GenmatchError, match="Birth predicts tokens"):
        gm.check_process(process)


def test_a_wrong_rate_of_the_worked_example_is_caught(birth):
    class Forgetful(birth.Birth):
        def generator(self, output, x, t):
            return super().generator(output, x, t) * (1 - t)

    report = gm.check_process(Forgetful(gm.spaces.Categorical((1,), vocab_size=5)))
    assert "forward-conditional" in {failure.id for failure in report.failures}


def test_the_space_and_path_of_the_extension_page_pass_every_check():
    spec = importlib.util.spec_from_file_location("box", DOCS / "examples" / "box.py")
    box = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(box)
    report = gm.check_process(gm.Flow(box.Shrinking(box.Box((2,)))), level="quick")
    assert report.passed, str(report)
    assert {"path-samples", "forward-conditional", "forward-marginal", "transition-path"} <= {
        result.id for result in report.results if result.outcome == "passed"
    }
    assert box.corners().train.shape == (800, 2)
