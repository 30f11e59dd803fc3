"""What a check is, how it measures, and the list of all checks."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genmatch.checks.report import CheckResult
from genmatch.checks.statistics import z_limit
from genmatch.checks.subject import Subject
from genmatch.errors import GenmatchError

_LIBRARIES = (Path(__file__).parents[1], Path(torch.__file__).parent)
"""Folders of code that is not that of the author of a process."""


class Skip(Exception):
    """Raised by a check that does not apply; the message says why."""


@dataclass(frozen=True)
class Finding:
    """The largest violation that a check measured, and where."""

    figure: float
    tolerance: float
    message: str


class Tally:
    """Collects violations and keeps the largest.

    Args:
        tolerance: the largest that passes; by default the violations are z-scores, and their number sets the tolerance.
    """

    def __init__(self, tolerance: float | None = None) -> None:
        self._tolerance = tolerance
        self._count = 0
        self._worst, self._where = 0.0, "no place"

    def add(self, violation: Tensor | float, where: str) -> None:
        """Counts one violation, or the largest of several; one that is not a number is infinite."""
        value = float(torch.as_tensor(violation, dtype=torch.float64).abs().nan_to_num(nan=math.inf, posinf=math.inf).max())
        self._count += 1
        if value > self._worst or self._count == 1:
            self._worst, self._where = value, where

    def finding(self) -> Finding:
        """The largest violation against its tolerance."""
        tolerance = z_limit(self._count) if self._tolerance is None else self._tolerance
        return Finding(self._worst, tolerance, f"largest at {self._where}")


@dataclass(frozen=True)
class Check:
    """One identity, and how it is measured.

    Attributes:
        id: readable name, in kebab-case.
        equation: the identity.
        look: where to look when it fails.
        measure: takes a `Subject` and returns a `Finding`, or raises `Skip`.
    """

    id: str
    equation: str
    look: str
    measure: Callable[[Subject], Finding]

    def __call__(self, subject: Subject) -> CheckResult:
        """Runs the check. An exception inside it is a failure, unless it is a `Skip`."""
        try:
            with torch.no_grad():
                found = self.measure(subject)
        except Skip as reason:
            return CheckResult(self.id, self.equation, "skipped", message=str(reason))
        except Exception as error:
            return self._judge(subject, False, None, None, described_error(error), place(error) or self.look)
        return self._judge(subject, found.figure <= found.tolerance, found.figure, found.tolerance, found.message, self.look)

    def _judge(self, subject: Subject, passed: bool, figure: float | None, tolerance: float | None, message: str, look: str) -> CheckResult:
        if passed:
            return CheckResult(self.id, self.equation, "passed", figure, tolerance, message)
        caveat = subject.process.caveats.get(self.id)
        if caveat is not None:
            return CheckResult(self.id, self.equation, "known", figure, tolerance, f"{caveat} ({message})")
        return CheckResult(self.id, self.equation, "failed", figure, tolerance, f"{message}. Look at {look}.")


def described_error(error: Exception) -> str:
    """What was raised, as the beginning of a sentence."""
    return f"raised {type(error).__name__}: {error}".rstrip(".")


def place(error: Exception) -> str:
    """The line of the process's author that raised an error, or called what did; nothing if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(folder) for folder in _LIBRARIES)]
    return f"line {own[-1].lineno} of {Path(own[-1].filename).name}, in `{own[-1].name}`" if own else ""


CHECKS: dict[str, Check] = {}
"""Every check by its id, in the order of the report."""


def check(id: str, equation: str, look: str) -> Callable[[Callable[[Subject], Finding]], Check]:
    """A decorator that adds a check to `CHECKS`.

    Raises:
        GenmatchError: if the id is taken.
    """

    def add(measure: Callable[[Subject], Finding]) -> Check:
        if id in CHECKS:
            raise GenmatchError(f"the check id `{id}` is taken; choose another.")
        CHECKS[id] = Check(id, equation, look, measure)
        return CHECKS[id]

    return add
