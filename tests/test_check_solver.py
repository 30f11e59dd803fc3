"""`check_solver`: silent on the solvers of the package, and a wrong declaration is told from a right one."""

import re

import pytest
import torch

import genmatch as gm
from genmatch.solvers import Solver
from genmatch.solvers.general import Euler, Exact


@pytest.mark.parametrize("name", gm.solvers.names())
def test_every_solver_is_what_it_declares(name):
    report = gm.check_solver(name)
    assert report.passed, str(report)


class Wrong(Solver):
    """Euler, and what a subclass gets wrong."""

    order = 1
    calls = 1
    inner = Euler()

    def step(self, process, predict, x, t, s, *, rng=None):
        return self.inner.step(process, predict, x, t, s, rng=rng)


class TooProud(Wrong):
    order = 2


class TooFast(Wrong):
    def step(self, process, predict, x, t, s, *, rng=None):
        return super().step(process, predict, x, t, t + 1.2 * (s - t), rng=rng)


class OnlyTheEndIsRight(Wrong):
    """Waits until the last step and then does everything at once, as a solver that always jumps to the data would."""

    inner = Exact()
    needs = ("transition",)

    def step(self, process, predict, x, t, s, *, rng=None):
        return x if float(s[0]) < 0.79 else super().step(process, predict, x, torch.full_like(t, 0.1), s, rng=rng)


class Hidden(Wrong):
    def step(self, process, predict, x, t, s, *, rng=None):
        predict(x, t)
        return super().step(process, predict, x, t, s, rng=rng)


class Global(Wrong):
    def step(self, process, predict, x, t, s, *, rng=None):
        torch.rand(1)
        return super().step(process, predict, x, t, s, rng=rng)


class Deaf(Wrong):
    kinds = frozenset({"drift", "brownian"})

    def step(self, process, predict, x, t, s, *, rng=None):
        return super().step(process, predict, x, t, s, rng=torch.Generator().manual_seed(torch.seed() % 2**31))


@pytest.mark.parametrize(
    ("solver", "check"),
    [(TooProud, "order"), (TooFast, "order"), (OnlyTheEndIsRight, "order"), (Hidden, "calls"), (Global, "seeds"), (Deaf, "seeds")],
)
def test_a_wrong_solver_is_caught(solver, check):
    report = gm.check_solver(solver())
    assert {failure.id.split(":")[0] for failure in report.failures} >= {check}, str(report)
    assert check in str(report)


def test_a_right_copy_is_not():
    assert gm.check_solver(Wrong()).passed


def test_what_fits_no_toy_and_what_is_unknown_is_refused():
    class Nothing(Wrong):
        needs = ("no_such_ability",)

    with pytest.raises(gm.GenmatchError, match="fits none of the toy processes: Nothing needs `no_such_ability`"):
        gm.check_solver(Nothing())
    for calls in (0, -1, 1.5, "one"):
        Nothing.calls = calls
        with pytest.raises(gm.GenmatchError, match=r"Nothing declares .* `calls` a step; they are a positive integer, or None"):
            gm.check_solver(Nothing())
    with pytest.raises(gm.GenmatchError, match="did you mean `heun`"):
        gm.check_solver("huen")


class Floats(Wrong):
    """Returns tokens as floats."""

    def step(self, process, predict, x, t, s, *, rng=None):
        return super().step(process, predict, x, t, s, rng=rng).float()


class NoRng(Wrong):
    def step(self, process, predict, x, t, s):
        return super().step(process, predict, x, t, s)


@pytest.mark.parametrize(("solver", "place"), [(Floats, "line [0-9]+ of test_check_solver.py, in `step`"), (NoRng, "`step`, which must return states")])
def test_a_solver_that_raises_has_failed_and_the_report_says_where(solver, place):
    failure = gm.check_solver(solver()).failures[-1]
    assert failure.id == "runs: ctmc, uniform"
    assert re.search(rf"^raised .*\. Look at {place}", failure.message), failure.message
