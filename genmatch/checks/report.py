"""What a run of the checks found, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent, wrap

OUTCOMES = ("passed", "failed", "known", "skipped")


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        id: name of the check.
        equation: the identity that it tests.
        outcome: "passed", "failed", "known" (fails, as the process declares in `caveats`) or "skipped" (does not apply).
        figure: the size of the violation; None where nothing was measured.
        tolerance: the largest figure that passes; None where nothing was measured.
        message: where the figure is largest, why the check was skipped, or what went wrong.
    """

    id: str
    equation: str
    outcome: str
    figure: float | None = None
    tolerance: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Report:
    """The results of all checks of one process, in order. Printing it shows a table.

    Attributes:
        title: what was checked.
        results: one result for each check.

    Example:
        >>> report = Report("a process", (CheckResult("data", "X_1 = x1", "failed", 0.1, 0.0, "largest at x1[0]"),))
        >>> print(report)
        a process: 1 of 1 checks failed
        <BLANKLINE>
        check  outcome   figure  tolerance
        data   failed       0.1          0
        <BLANKLINE>
        data breaks  X_1 = x1
            largest at x1[0]
    """

    title: str
    results: tuple[CheckResult, ...]

    @property
    def failures(self) -> list[CheckResult]:
        """The checks that failed."""
        return [result for result in self.results if result.outcome == "failed"]

    @property
    def passed(self) -> bool:
        """Whether no check failed, apart from those that the process declares."""
        return not self.failures

    def __getitem__(self, id: str) -> CheckResult:
        return {result.id: result for result in self.results}[id]

    def __str__(self) -> str:
        return "\n".join([self._headline(), "", *self._table(), *self._notes()])

    def _headline(self) -> str:
        ran = [result for result in self.results if result.outcome != "skipped"]
        verdict = f"all {len(ran)} checks passed" if self.passed else f"{len(self.failures)} of {len(ran)} checks failed"
        counts = {outcome: sum(result.outcome == outcome for result in self.results) for outcome in ("known", "skipped")}
        extra = [f"{n} known to fail" if outcome == "known" else f"{n} skipped" for outcome, n in counts.items() if n]
        return f"{self.title}: {', '.join([verdict, *extra])}"

    def _table(self) -> list[str]:
        width = max(len("check"), *(len(result.id) for result in self.results))
        rows = [("check", "outcome", "figure", "tolerance")]
        rows += [(result.id, result.outcome, _number(result.figure), _number(result.tolerance)) for result in self.results]
        return [f"{id:<{width}}  {outcome:<8}{figure:>8}  {tolerance:>9}" for id, outcome, figure, tolerance in rows]

    def _notes(self) -> list[str]:
        verbs = {"failed": "breaks", "known": "is known to break", "skipped": "does not test"}
        notes = []
        for outcome, verb in verbs.items():
            for result in self.results:
                if result.outcome == outcome:
                    notes += ["", f"{result.id} {verb}  {result.equation}", indent("\n".join(wrap(result.message, 116)), "    ")]
        return notes


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
