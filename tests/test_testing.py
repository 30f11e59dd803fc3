"""The checks as pytest tests: what passes, what fails and how it says so."""

import pytest

import genmatch as gm
from genmatch.testing import BoundCheck
from tests.mutants import Broken

LINE = gm.Flow(gm.paths.Gaussian((1,)))
NOISY = gm.Flow(gm.paths.Gaussian((1,), schedule=gm.schedules.VE()))


@gm.testing.parametrize_with_checks([LINE, gm.CTMC(gm.paths.Mixture((2,), vocab_size=3))], level="quick")
def test_processes_of_the_package(process, check):
    check(process)


def test_ids_name_the_process_and_the_check():
    rows = gm.testing.parametrize_with_checks([LINE]).args[1]
    assert [row.id for row in rows] == [f"{LINE}-{id}" for id in gm.checks.CHECKS]


def test_a_failure_tells_the_equation_the_figure_and_where_to_look():
    class Fast(Broken):
        def generator(self, output, x, t):
            return 1.1 * super().generator(output, x, t)

    with pytest.raises(pytest.fail.Exception, match=r"breaks d/dt E f\(X_t\) = E \(L_t f\)\(X_t\) given x1: .* > .*Look at"):
        BoundCheck("forward-conditional", 0, "full")(Fast(LINE))


def test_declared_failures_and_checks_that_do_not_apply_are_marked():
    with pytest.raises(pytest.xfail.Exception, match="VE ends with noise"):
        BoundCheck("data", 0, "full")(NOISY)
    with pytest.raises(pytest.skip.Exception, match="cannot be listed"):
        BoundCheck("rates", 0, "full")(LINE)


def test_wrong_requests():
    with pytest.raises(gm.GenmatchError, match="the class"):
        gm.testing.parametrize_with_checks([gm.Flow])
    with pytest.raises(gm.GenmatchError, match="did you mean `quick`"):
        gm.testing.parametrize_with_checks([LINE], level="quik")
    with pytest.raises(gm.GenmatchError, match="unknown level"):
        gm.check_process(LINE, level="slow")
    with pytest.raises(gm.GenmatchError, match="did you mean `affine`"):
        BoundCheck("afine", 0, "full")


def test_the_quick_level_still_sees_a_wrong_sign():
    class Backwards(Broken):
        def generator(self, output, x, t):
            return gm.generators.Drift(-super().generator(output, x, t).velocity)

    assert not gm.check_process(Backwards(LINE), level="quick").passed
