"""`genmatch explain` and `genmatch list`: every name is explained from its own docstrings, those of other packages too."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

import genmatch as gm
from genmatch import registry
from genmatch.cli import main
from genmatch.cli.group import Command
from genmatch.explain import _EXPLAIN, explain, fits, plain, recipe

NAMES = [(kind, name) for kind in ("process", "path", "solver", "schedule") for name in _EXPLAIN[kind][0]()]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_everything_with_a_name_is_explained_without_latex(kind, name):
    found = explain(name, kind=kind)
    assert found.kind == kind
    assert found.title.startswith(f"{name}: ")
    assert all(found.sections.values())
    for sign in ("\\", "$", "Args:", "Source: ", "Sources: "):
        assert sign not in str(found), sign


def test_a_family_is_explained_by_its_formulas():
    flow = explain("flow").sections
    assert "X_t = α_t x_1 + σ_t x_0" in flow["path"]
    assert "α' x_1 + σ' x_0" in flow["target"]
    assert "dX = u_t(X) dt" in flow["generator"]
    assert "Squared error" in flow["divergence"]
    assert flow["solvers"].startswith("exact (recommended), euler")
    assert "p_t(x | x1) = prod_j [(1 - κ_t) p_0^j(x_j)" in explain("mask").sections["path"]
    assert "π^j(v | x) = p(x_1^j = v | X_t = x)" in explain("mask").sections["target"]
    assert explain("metric").kind == "process"
    assert explain("metric", kind="path").kind == "path"


def test_a_process_of_someone_else_supplies_its_recipe_without_any_other_edit():
    class Mine(gm.MarkovProcess):
        """Stands still."""

        kinds = frozenset({"drift"})
        recipe = {"generator": r"$u = \kappa \cdot 0$"}  # noqa: RUF012

        def __init__(self):
            self.path = gm.paths.Gaussian((2,))

        def target(self, x, t, x1, *, x0=None):
            """Nothing: $m = 0$.

            Args:
                x: states.
            """
            return 0 * x

        def generator(self, output, x, t):
            return gm.generators.Drift(0 * x)

    found = recipe(Mine())
    assert found["target"] == "Nothing: m = 0."
    assert found["generator"] == "u = κ · 0"
    assert explain("tests.plugins:cosine_flow").title == "tests.plugins:cosine_flow: A flow on the cosine schedule."


def test_what_fits_what_is_what_the_library_says():
    found = fits()
    by_data, by_process = found.values()
    assert by_data["checkerboard"] == [
        "flow",
        "diffusion",
        "mask",
        "uniform",
        "uniform-reversal",
        "metric",
        "block",
        "autoregressive",
        "jump",
        "level-flow",
        "flow+jump",
    ]
    assert set(by_process) == set(registry.processes.names())
    assert by_process["mask"] == gm.solvers.available(gm.CTMC(gm.paths.Mixture((2,), vocab_size=3)))


def test_an_unknown_name_names_the_near_ones():
    with pytest.raises(gm.GenmatchError, match="did you mean `heun`"):
        explain("huen")
    assert run("explain", "flwo").exit_code == 1
    assert run("explain", "heun", "--kind", "nothing").exit_code == 2


def test_latex_becomes_signs():
    assert plain(r"$\tfrac12 g^2$, $\frac{a}{b}$, $\sqrt{x}$, $\hat x_1 \ne \mathcal L$, kappa") == "1/2 g², (a)/(b), √(x), x_1 ≠ L, kappa"


def test_every_command_has_examples_of_commands_that_exist():
    for name, command in main.commands.items():
        assert isinstance(command, Command)
        assert command.examples, name
        shown = run(name, "--help")
        assert shown.exit_code == 0
        assert "Examples:" in shown.output
        assert all(f"  $ {example}" in shown.output for example in command.examples)
        for example in command.examples:
            assert f"genmatch {name}" in example


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell):
    found = run("completion", shell)
    assert found.exit_code == 0
    assert "_GENMATCH_COMPLETE" in found.output
    assert run("completion", "powershell").exit_code == 2


def test_completion_knows_commands_and_options():
    words = {"COMP_WORDS": "genmatch expl", "COMP_CWORD": "1", "_GENMATCH_COMPLETE": "bash_complete"}
    code = "from genmatch.cli import main; main(prog_name='genmatch')"
    found = subprocess.run([sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True, check=False)
    assert "plain,explain" in found.stdout


def test_json_is_alone_on_standard_output():
    for command in (["list", "--json"], ["explain", "flow", "--json"], ["check", "tests.plugins:small_flow", "--level", "quick", "--json"]):
        found = run(*command)
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)
    assert json.loads(run("list", "solver", "--json").stdout)["solver"]["heun"]["from"] == "genmatch"
    report = json.loads(run("check", "tests.plugins:small_flow", "--level", "quick", "--json").stdout)
    assert report["passed"] is True
    assert report["results"][0].keys() >= {"id", "equation", "outcome", "figure", "tolerance"}


def test_quiet_says_nothing_but_the_result():
    assert "genmatch explain NAME" in run("list", "data").stderr
    quiet = run("list", "data", "--quiet")
    assert quiet.stderr == ""
    assert "digits" in quiet.stdout


def broken(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (gm.GenmatchError("a wrong input."), 1, "Error: a wrong input."),
        (ZeroDivisionError("by zero"), 1, "Error: unexpected ZeroDivisionError: by zero; add --debug to see where it comes from."),
        (KeyboardInterrupt(), 130, "Error: stopped."),
    ],
)
def test_how_a_command_ends(monkeypatch, error, code, message):
    monkeypatch.setattr("genmatch.runs.find_process", broken(error))
    found = run("check", "flow")
    assert found.exit_code == code
    assert found.stderr.startswith(message)
    assert found.stdout == ""
    assert len(found.stderr.strip().splitlines()) == 1
    if code == 1:
        traced = run("check", "flow", "--debug")
        assert traced.exception is error


def test_what_is_not_registered_is_explained_as_what_it_is():
    assert explain("genmatch.solvers.ode:Heun").kind == "solver"
    assert explain("genmatch.paths:Gaussian").kind == "path"
    assert explain("genmatch.data.toys:chain", kind="data").title.startswith("genmatch.data.toys:chain: A Markov chain")


def test_a_command_that_cannot_be_read_is_2():
    for command in (["nothing"], ["check"], ["check", "flow", "--nothing"], ["train", "--steps", "many", "--process", "flow"]):
        assert run(*command).exit_code == 2
