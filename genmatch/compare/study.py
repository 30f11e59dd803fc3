"""What a report is made of: one comparison, or several joined, as one line a family with intervals.

The figure of a family that was run once is known up to the draw of its samples, and its interval is 1.96 standard errors on both
sides. Of k runs that differ in their seed alone, the mean has the interval of Student's t,

    mean  +-  t_{k-1}(0.975) s / sqrt(k),

which covers weights, order of the data and samples. Two figures differ, where their difference is more than its own interval, the root of
the sum of both squared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from genmatch.errors import GenmatchError

if TYPE_CHECKING:
    from genmatch.compare.runner import Comparison, Family

_NORMAL = 1.96
_SAME = 0.01
"""How much the floors of joined comparisons may differ, relatively: more means that other features measured them."""


@dataclass(frozen=True)
class Estimate:
    """A figure, and half of its interval of 95 %; None where nothing is known of its error."""

    value: float
    half: float | None = None

    def scaled(self, factor: float) -> Estimate:
        """The figure in another unit."""
        return Estimate(self.value * factor, None if self.half is None else self.half * factor)

    def differs(self, other: Estimate) -> bool:
        """Whether the two differ by more than the interval of their difference; not, if no error is known."""
        if self.half is None or other.half is None:
            return False
        return abs(self.value - other.value) > math.hypot(self.half, other.half)

    def text(self, form: str = "{:.3g}") -> str:
        """The figure with its interval.

        Example:
            >>> Estimate(1.234, 0.05).text("{:.2f}"), Estimate(0.5, 0.01).text("{:.1%}"), Estimate(3.0).text("{:.0f}")
            ('1.23 ± 0.05', '50.0% ± 1.0%', '3')
            >>> Estimate(1.6, 0.01514).text()
            '1.600 ± 0.015'
        """
        return " ± ".join(self.parts(form))

    def parts(self, form: str) -> tuple[str, ...]:
        """The figure, and half of its interval if there is one; to two digits of that, if the format is free to choose."""
        if self.half is None:
            return (form.format(self.value),)
        if form.endswith("g}") and 0 < self.half < math.inf:
            form = f"{{:.{max(0, 1 - math.floor(math.log10(self.half)))}f}}"
        return form.format(self.value), form.format(self.half)


def estimate(values: Sequence[float], errors: Sequence[float | None]) -> Estimate:
    """The mean of one value a run with its interval; the standard error counts where there is one run only.

    Args:
        values: one of each run.
        errors: their standard errors, or None where there is none.

    Example:
        >>> estimate([1.0], [0.1]).half
        0.196
        >>> round(estimate([1.0, 2.0, 3.0], [None] * 3).half, 3)  # 4.303 / sqrt(3)
        2.484
    """
    k, mean = len(values), math.fsum(values) / len(values)
    if k == 1:
        return Estimate(mean, None if errors[0] is None else _NORMAL * errors[0])
    from scipy.stats import t

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (k - 1))
    return Estimate(mean, float(t.ppf(0.975, k - 1)) * spread / math.sqrt(k))


@dataclass(frozen=True, eq=False)
class Line:
    """A family in a report: one run, or several with other seeds.

    Attributes:
        name: of the family, with the settings that tell it from another line of the same.
        families: its part of each comparison.
        seeds: of each.
        floor: the Frechet distance of the training split from the test split.
    """

    name: str
    families: tuple[Family, ...]
    seeds: tuple[int, ...]
    floor: float

    @property
    def first(self) -> Family:
        """The run whose samples are shown."""
        return self.families[0]

    @property
    def budgets(self) -> list[int]:
        """Network calls a sample at which every run was measured."""
        common = set.intersection(*({int(row["nfe"]) for row in family.rows} for family in self.families))
        return sorted(common)

    @property
    def best(self) -> int:
        """The budget with the smallest Frechet distance."""
        return min(self.budgets, key=lambda nfe: self.figure("frechet", nfe).value)

    def rows(self, nfe: int) -> list[dict[str, float]]:
        """The row of each run at a budget."""
        return [next(row for row in family.rows if row["nfe"] == nfe) for family in self.families]

    def figure(self, key: str, nfe: int | None = None) -> Estimate:
        """A figure at a budget, the best by default.

        Args:
            key: its name in results.json.
            nfe: network calls; the best budget if None.
        """
        rows = self.rows(self.best if nfe is None else nfe)
        return estimate([row[key] for row in rows], [row.get(f"{key}_error") for row in rows])

    def over_floor(self, nfe: int | None = None) -> Estimate:
        """The Frechet distance in units of the floor."""
        found = self.figure("frechet", nfe)
        return found.scaled(1 / self.floor) if self.floor > 0 else Estimate(math.inf)

    @property
    def training(self) -> Estimate:
        """Seconds of training."""
        return estimate([family.run.history["seconds"] for family in self.families], [None] * len(self.families))

    @property
    def likelihood(self) -> dict[str, Any] | None:
        """Of the test split, as of a family; the mean over the runs."""
        found = [family.likelihood for family in self.families]
        if any(one is None for one in found):
            return None
        known = [one for one in found if one and one["bits"] is not None]
        bits = estimate([one["bits"] for one in known], [one["error"] for one in known]) if len(known) == len(found) else None
        return {**found[0], "bits": bits}  # type: ignore[dict-item]


class Study:
    """One comparison, or several of one data set, joined.

    Runs of a family whose settings differ in the seed alone are one line, with the interval over the seeds; others are lines of their own.

    Args:
        comparisons: what is joined.
        places: where each is, for messages and for the report.

    Raises:
        GenmatchError: if they are of different data or were measured by different features, or the same run is there twice.
    """

    def __init__(self, comparisons: Sequence[Comparison], places: Sequence[str]) -> None:
        self.comparisons, self.places = list(comparisons), list(places)
        _check_joinable(self.comparisons, self.places)
        self.data = comparisons[0].data
        self.floor = comparisons[0].floor
        self.test_nearest = comparisons[0].test_nearest
        self.lines = _lines(self.comparisons, self.floor["frechet"])

    def __repr__(self) -> str:
        return f"Study({self.data.name}: {', '.join(line.name for line in self.lines)}, of {len(self.comparisons)} comparisons)"

    @property
    def ranked(self) -> list[Line]:
        """The lines, closest to the data first."""
        return sorted(self.lines, key=lambda line: line.figure("frechet").value)

    @property
    def waiting(self) -> list[str]:
        """Families that are still to come."""
        return [name for one in self.comparisons for name in one.planned[len(one.families) :]]

    def winners(self, key: str, of: Callable[[Line], Estimate], better: int) -> set[str]:
        """The line with the best figure, if it differs from every other one; `better` is 1 where more is better, -1 where less is.

        Args:
            key: name of the figure.
            of: the figure of a line.
            better: 1 where more is better, -1 where less is, 0 where neither is.
        """
        lines = [line for line in self.lines if key in line.rows(line.best)[0]]
        if better == 0 or len(lines) < 2:
            return set()
        found = {line.name: of(line) for line in lines}
        first = max(found, key=lambda name: better * found[name].value)
        return {first} if all(found[first].differs(found[name]) for name in found if name != first) else set()

    def results(self) -> dict[str, Any]:
        """The figures of the report as JSON: of one comparison with all it saw, of several with intervals."""
        keys = [key for key in self.lines[0].rows(self.lines[0].best)[0] if not key.endswith("_error")]
        lines = [
            {
                "name": line.name,
                "seeds": list(line.seeds),
                "best_nfe": line.best,
                "over_floor": asdict(line.over_floor()),
                "rows": [{key: asdict(line.figure(key, nfe)) for key in keys if key in line.rows(nfe)[0]} for nfe in line.budgets],
            }
            for line in self.ranked
        ]
        return {"data": self.data.name, "floor": self.floor, "runs": self.places, "lines": lines}


def _check_joinable(comparisons: Sequence[Comparison], places: Sequence[str]) -> None:
    first = comparisons[0]
    for one, place in zip(comparisons, places, strict=True):
        if not one.families:
            raise GenmatchError(f"`{place}` holds no finished family yet; go on with the same `genmatch compare` first.")
        if one.data.name != first.data.name:
            raise GenmatchError(f"a report is of one data set, and `{places[0]}` is of {first.data.name}, `{place}` of {one.data.name}; make two reports.")
        gap = abs(one.floor["frechet"] - first.floor["frechet"])
        if gap > _SAME * first.floor["frechet"]:
            raise GenmatchError(
                f"`{place}` was measured in other features than `{places[0]}` (floor {one.floor['frechet']:.4g}, not {first.floor['frechet']:.4g}), "
                "so that their distances cannot be compared; copy one `classifier.safetensors` to both, delete the nfe-*.json of one, and compare again."
            )


def _lines(comparisons: Sequence[Comparison], floor: float) -> list[Line]:
    groups: dict[tuple[Any, ...], list[Family]] = {}
    for family in (family for one in comparisons for family in one.families):
        settings = {name: value for name, value in asdict(family.run.settings).items() if name != "seed"}
        groups.setdefault(tuple(settings.items()), []).append(family)
    for families in groups.values():
        seeds = [family.run.settings.seed for family in families]
        if len(set(seeds)) < len(seeds):
            raise GenmatchError(f"the runs of {families[0].name} must differ in their seed to be joined, got seeds {seeds}; leave one out.")
    names = _names([dict(key) for key in groups], [families[0].name for families in groups.values()])
    return [
        Line(name, tuple(families), tuple(family.run.settings.seed for family in families), floor)
        for name, families in zip(names, groups.values(), strict=True)
    ]


def _names(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The name of each line: that of the family, with the settings in which it differs from others of the same."""
    found = []
    for own, name in zip(settings, names, strict=True):
        others = [other for other, theirs in zip(settings, names, strict=True) if theirs == name]
        differing = [key for key in own if any(other[key] != own[key] for other in others)]
        found.append(name + "".join(f", {key}={own[key]}" for key in differing))
    return found
