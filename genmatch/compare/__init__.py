"""`genmatch compare`: one data set, every process family that fits, one report. From Python, `gm.compare("digits", "runs/digits")`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from genmatch.compare.report import write_report
from genmatch.compare.runner import Comparison, compare
from genmatch.compare.saved import load_comparison
from genmatch.compare.study import Study
from genmatch.settings import Plan

__all__ = ["Comparison", "Plan", "Study", "compare", "load_comparison", "write_report"]


class _Callable(ModuleType):
    """This module, which is a package and what it does at once, so that `gm.compare` is both."""

    def __call__(
        self, plan: str | Plan, out: str | Path, *, progress: bool = False, say: Callable[[str], None] = lambda line: None, **settings: Any
    ) -> Comparison:
        """Runs a comparison; see `genmatch.compare.compare`.

        Args:
            plan: a data set by name, or a whole plan.
            out: the folder of the results and of report.html.
            progress: shows a progress bar while training.
            say: receives a line at each stage.
            **settings: of the plan, such as `processes=("flow", "mask")`, `steps` or `nfe`, if it is not given whole.
        """
        return compare(Plan(data=plan, **settings) if isinstance(plan, str) else plan, Path(out), progress=progress, say=say)


sys.modules[__name__].__class__ = _Callable
