"""A conformance kit: which identity of generator matching does a process break, and by how much?

`check_process(process)` is to Markov processes what `check_estimator` of scikit-learn is to estimators. Its heart is the
Kolmogorov forward identity, d/dt E f(X_t) = E (L_t f)(X_t), on the path to one data point and on the marginal path of a
small data set. It needs nothing but the interface of a `MarkovProcess`.
"""

from genmatch.checks import paths, forward, learning, simulation, ending, contract  # noqa: I001 (the order of the report)
from genmatch.checks.base import CHECKS, Check, check
from genmatch.checks.report import CheckResult, Report
from genmatch.checks.run import check_process
from genmatch.checks.solver import check_solver

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "Report",
    "check",
    "check_process",
    "check_solver",
    "contract",
    "ending",
    "forward",
    "learning",
    "paths",
    "simulation",
]
