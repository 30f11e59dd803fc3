"""Running all checks on one process."""

from __future__ import annotations

from typing import Any

from genmatch.checks.base import CHECKS
from genmatch.checks.report import Report
from genmatch.checks.subject import Subject
from genmatch.errors import GenmatchError, unknown
from genmatch.processes.base import MarkovProcess

_INTERFACE = ("path", "space", "kinds", "t_min", "output_shape", "caveats", "target", "generator", "natural_at", "mean_at", "average", "divergence", "supports")


LEVELS = {"full": 0.5, "quick": 0.1}
"""How hard the checks that simulate look: each scales its number of draws by this."""


def check_process(process: MarkovProcess, *, data: Any = None, seed: int = 0, level: str = "full") -> Report:
    """Tests every identity that a Markov process must satisfy, in float64, and says which it breaks and by how much.

    Spaces of a few hundred states are enumerated and tested exactly; elsewhere the checks simulate, and raise a false alarm
    with probability 1e-6 each. States are drawn from the path, and mixtures of targets are weighted by the posterior, so a
    process may be undefined where it never goes. Failures that the process declares in `caveats` are reported as known.

    Args:
        process: the process.
        data: data points to lead to, (N, *shape), of which the first eight are used; a few arbitrary ones by default.
        seed: makes the report repeatable.
        level: "full", or "quick" with a fifth of the draws: the same false alarms, and less power to see small errors where
            checks simulate.

    Returns:
        A report with `passed`, `failures` and `results`; print it for a table. A check that raises has failed.

    Raises:
        GenmatchError: if `process` is not a process or `data` does not fit it.

    Example:
        >>> import genmatch as gm
        >>> report = gm.check_process(gm.CTMC(gm.paths.Mixture((1,), vocab_size=2)))
        >>> report.passed, report["forward-conditional"].outcome
        (True, 'passed')
    """
    missing = [name for name in _INTERFACE if not hasattr(process, name)]
    if isinstance(process, MarkovProcess) and missing:
        raise _incomplete(process, missing)
    if missing or isinstance(process, type):
        what = f"the class {process.__name__}" if isinstance(process, type) else type(process).__name__
        hint = f", which has no {', '.join(f'`{name}`' for name in missing[:3])}" if missing else ""
        raise GenmatchError(f"`process` must be a MarkovProcess, got {what}{hint}; pass an instance, such as `gm.Flow(path)`.")
    if level not in LEVELS:
        raise unknown("level", level, LEVELS)
    subject = Subject(process, data, seed, LEVELS[level])
    return Report(repr(process), tuple(run(subject) for run in CHECKS.values()))


def _incomplete(process: MarkovProcess, missing: list[str]) -> GenmatchError:
    """The error for a process that lacks an attribute, or whose path does."""
    name = type(process).__name__
    if "path" not in missing and not hasattr(process.path, "space"):
        return GenmatchError(f"the path of {name}, {type(process.path).__name__}, has no `space`; set it in the constructor of the path.")
    if missing[0] == "kinds":
        return GenmatchError(f"{name} has no `kinds`, the kinds of terms of its generator; declare it, such as `kinds = frozenset({{'jump'}})`.")
    return GenmatchError(f"{name} has no `{missing[0]}`; set it in the constructor, or declare it in the class.")
