"""Every option of a solver is checked where it is given: what was expected, what was found, and how to mend it."""

import importlib
import inspect
import math
import re
from pathlib import Path

import pytest

import genmatch as gm
from genmatch.solvers.adaptive import Adaptive
from genmatch.solvers.base import Solver
from genmatch.solvers.churn import Churn
from genmatch.solvers.circle import Adams, CircleRK4, CircleRK5
from genmatch.solvers.ode import Dopri5
from genmatch.solvers.remask import Psi, ReMDM, ReMDMLoop
from genmatch.solvers.reveal import EntropyBounded, Threshold, TopK
from genmatch.solvers.sde import SDEExponential
from genmatch.solvers.thinning import Thinning
from genmatch.solvers.trapezoid import ThetaTrapezoidal
from genmatch.solvers.wrappers import Corrector, Gibbs

NUMBERS = [
    (Adams, "scale", "(0, inf)"),
    (CircleRK4, "scale", "(0, inf)"),
    (CircleRK5, "scale", "(0, inf)"),
    (Adaptive, "atol", "[0, inf)"),
    (Adaptive, "rtol", "[0, inf)"),
    (Churn, "amount", "[0, inf)"),
    (Dopri5, "atol", "[0, inf)"),
    (Dopri5, "rtol", "[0, inf)"),
    (EntropyBounded, "gamma", "[0, inf]"),
    (Psi, "keep", "[0, 1]"),
    (ReMDM, "eta", "[0, 1]"),
    (ReMDMLoop, "at", "(0, 1)"),
    (ReMDMLoop, "share", "[0, 1]"),
    (SDEExponential, "eta", "[0, inf)"),
    (ThetaTrapezoidal, "theta", "(0, 1)"),
    (Threshold, "threshold", "(0, 1]"),
]
COUNTS = [(Adams, "slopes"), (Adaptive, "max_calls"), (Gibbs, "moves"), (ReMDMLoop, "moves"), (Thinning, "max_calls"), (TopK, "k")]


@pytest.mark.parametrize(("solver", "option", "interval"), NUMBERS)
def test_a_number_outside_its_interval_is_refused(solver, option, interval):
    low, high = (float(end) for end in interval[1:-1].split(","))
    below, above = low if interval[0] == "(" else low - 1, high if interval[-1] == ")" else high + 1
    for value in [below, math.nan, "high", None] + [above] * (interval[-2:] != "f]"):
        with pytest.raises(gm.GenmatchError, match=rf"`{option}` must be a number in {re.escape(interval)}, got {value!r}; \w"):
            solver(**{option: value})


@pytest.mark.parametrize("value", [0, -1, 2.5, "many", math.inf])
@pytest.mark.parametrize(("solver", "option"), COUNTS)
def test_a_count_is_a_positive_integer(solver, option, value):
    with pytest.raises(gm.GenmatchError, match=f"`{option}` must be a positive integer, got {value!r}"):
        solver(**{option: value})


@pytest.mark.parametrize("make", [Dopri5, Adaptive])
def test_no_step_is_small_enough_for_tolerances_of_zero(make):
    with pytest.raises(gm.GenmatchError, match="must not both be zero"):
        make(0.0, 0.0)


def test_every_option_of_a_solver_is_checked():
    """A solver with a number among its options is in one of the lists above."""
    listed = {(solver.__name__, option) for solver, option, *_ in [*NUMBERS, *COUNTS]}
    modules = [importlib.import_module(f"genmatch.solvers.{file.stem}") for file in sorted(Path(gm.solvers.__file__).parent.glob("[a-z]*.py"))]
    classes = {made for module in modules for made in vars(module).values() if inspect.isclass(made) and issubclass(made, Solver | Corrector)}
    missing = [
        (made.__name__, option.name)
        for made in classes
        for option in inspect.signature(made).parameters.values()
        if not made.__subclasses__() and (isinstance(option.default, int | float) or option.name == "k") and (made.__name__, option.name) not in listed
    ]
    assert len(classes) > 30
    assert not missing, missing
