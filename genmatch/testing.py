"""The checks as pytest tests: one test for each process and check, with a readable id.

    @gm.testing.parametrize_with_checks([MyProcess()])
    def test_my_process(process, check):
        check(process)

pytest is needed only where this module is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genmatch.checks import CHECKS
from genmatch.checks.run import LEVELS
from genmatch.checks.subject import Subject
from genmatch.errors import GenmatchError, unknown
from genmatch.processes.base import MarkovProcess


class BoundCheck:
    """One check, ready to be called with a process inside a test.

    Args:
        id: of the check, one of `genmatch.checks.CHECKS`.
        seed: of its draws.
        level: "full" or "quick".

    Raises:
        GenmatchError: if there is no such check or level.
    """

    def __init__(self, id: str, seed: int, level: str) -> None:
        if id not in CHECKS:
            raise unknown("check", id, CHECKS)
        if level not in LEVELS:
            raise unknown("level", level, LEVELS)
        self.id, self.seed, self.level = id, seed, level

    def __call__(self, process: MarkovProcess) -> None:
        """Fails the test with the broken equation, skips it where the check does not apply, and marks a declared failure."""
        import pytest

        result = CHECKS[self.id](Subject(process, seed=self.seed, effort=LEVELS[self.level]))
        if result.outcome == "failed":
            measured = "" if result.figure is None else f": {result.figure:.3g} > {result.tolerance:.3g}"
            pytest.fail(f"{process} breaks {result.equation}{measured}. {result.message}", pytrace=False)
        if result.outcome == "skipped":
            pytest.skip(result.message)
        if result.outcome == "known":
            pytest.xfail(result.message)


def parametrize_with_checks(processes: Sequence[MarkovProcess], *, seed: int = 0, level: str = "full") -> Callable[[Any], Any]:
    """A decorator for a test of `(process, check)`: it runs once for each process and each check.

    Args:
        processes: the processes to test, as instances.
        seed: of the random states and draws.
        level: "full", or "quick" with a fifth of the draws.

    Raises:
        GenmatchError: if a process is a class instead of an instance, or the level is unknown.

    Example:
        >>> import genmatch as gm
        >>> decorate = parametrize_with_checks([gm.Flow(gm.paths.Gaussian((1,)))], level="quick")
        >>> len(decorate.args[1]) == len(gm.checks.CHECKS)
        True
    """
    import pytest

    if classes := [process.__name__ for process in processes if isinstance(process, type)]:
        raise GenmatchError(f"`processes` must hold instances, got the class(es) {', '.join(classes)}; call them first.")
    rows = [pytest.param(process, BoundCheck(id, seed, level), id=f"{process}-{id}") for process in processes for id in CHECKS]
    return pytest.mark.parametrize(("process", "check"), rows)


__all__ = ["BoundCheck", "parametrize_with_checks"]
