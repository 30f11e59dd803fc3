"""Running all checks on one process."""

from __future__ import annotations

from typing import Any

from genmatch.checks.base import CHECKS
from genmatch.checks.report import Report
from genmatch.checks.subject import Subject
from genmatch.errors import unknown
from genmatch.processes.base import MarkovProcess, require_process

_INTERFACE = ("space", "kinds", "t_min", "output_shape", "caveats", "target", "generator", "natural_at", "mean_at", "average", "divergence", "supports")

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
    require_process(process, _INTERFACE)
    if level not in LEVELS:
        raise unknown("level", level, LEVELS)
    subject = Subject(process, data, seed, LEVELS[level])
    return Report(repr(process), tuple(run(subject) for run in CHECKS.values()))
