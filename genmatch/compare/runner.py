"""The comparison: train each family with the same budget, sample at several budgets of network calls, measure, report.

Every finished piece is on disk at once: a run that is stopped goes on where it was when started again.
"""

from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import genmatch
from genmatch import data as data_sets
from genmatch import processes, sampling, solvers
from genmatch.compare.features import Extractor, Measure, make_extractor
from genmatch.compare.metrics import evaluate, nearest_distance
from genmatch.compare.report import require_report, table_html, write_report
from genmatch.compare.study import Study
from genmatch.data import DataSet
from genmatch.errors import GenmatchError
from genmatch.files import make_folder, read_json, write_json, write_tensors
from genmatch.likelihood import elbo
from genmatch.processes import MarkovProcess
from genmatch.runs import Run, build_network, fit_view, is_finished, labels_of, lacks, train_run
from genmatch.settings import Plan

_DRAWS = 16
"""States on the way to each test point from which its likelihood is estimated."""
_FRAMES = 24
"""Steps of the simulation that is shown."""


@dataclass(frozen=True, eq=False)
class Family:
    """One family's part of a comparison.

    Attributes:
        name: of the family.
        run: the trained run.
        rows: metrics at each budget, with `nfe`, `steps` and `seconds`.
        points: the samples at each budget, by nfe.
        likelihood: of the test split, if the data have a unit and the process a bound: `bits` a unit with `error`, whether it is a
            `bound` and a `tight` one, and of which `process`.
        generation: a few samples on their way, as points at `times`, (T, n, ...).
    """

    name: str
    run: Run
    rows: list[dict[str, float]]
    points: dict[int, Tensor]
    likelihood: dict[str, Any] | None = None
    generation: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Family({self.name}: {self.run.process}, measured at {', '.join(str(row['nfe']) for row in self.rows)} calls)"

    @property
    def best(self) -> dict[str, float]:
        """The row with the smallest Frechet distance."""
        return min(self.rows, key=lambda row: row["frechet"])


@dataclass(frozen=True)
class Comparison:
    """What a comparison found so far.

    Attributes:
        plan: what was asked for.
        data: the data set.
        features: what the metrics see.
        floor: metrics of the training split, as if it were samples: the best that a model of it can reach.
        test_nearest: mean distance from a test point to the nearest training point.
        families: one entry for each finished family.
        planned: names of all families.
        versions: of what ran.
    """

    plan: Plan
    data: DataSet
    features: str
    floor: dict[str, float]
    test_nearest: float
    planned: tuple[str, ...]
    families: list[Family] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def __repr__(self) -> str:
        best = ", ".join(f"{family.name} {over(family.best['frechet'], self.floor['frechet']):.2f}" for family in self.families)
        return f"Comparison({self.data.name}, {len(self.families)} of {len(self.planned)} families; Frechet distance / floor: {best or 'none yet'})"

    def _repr_html_(self) -> str:
        """The table of the report, for notebooks."""
        return table_html(Study([self], [self.data.name])) if self.families else f"<p>{self!r}</p>"

    def results(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON."""
        families = [
            {
                "name": family.name,
                "process": repr(family.run.process),
                "view": family.run.view.name,
                "parameters": sum(p.numel() for p in family.run.model.parameters()),
                "training": family.run.history,
                "rows": family.rows,
                "best": family.best,
                "likelihood": family.likelihood,
                "best_over_floor": over(family.best["frechet"], self.floor["frechet"]),
            }
            for family in self.families
        ]
        return {
            "genmatch": genmatch.__version__,
            "torch": torch.__version__,
            "versions": self.versions,
            "plan": asdict(self.plan),
            "planned": list(self.planned),
            "features": self.features,
            "floor": self.floor,
            "test_nearest_train": self.test_nearest,
            "families": families,
        }


def versions() -> dict[str, str]:
    """What runs here, by name."""
    threads = torch.get_num_threads()
    return {
        "genmatch": genmatch.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {threads} thread{'s' if threads > 1 else ''}",
    }


def over(value: float, floor: float) -> float:
    """A figure in units of the floor."""
    return value / floor if floor > 0 else math.inf


def compare(plan: Plan, out: Path, *, progress: bool = False, say: Callable[[str], None] = lambda line: None) -> Comparison:
    """Runs a comparison into the folder `out`, and writes its report there after each family.

    Args:
        plan: what to compare.
        out: the folder; what it holds of the same plan is not done again.
        progress: shows a progress bar while training.
        say: receives a line at each stage.

    Raises:
        GenmatchError: if anything in the plan does not fit, before training starts; or if `out` holds results of other
            settings.
    """
    require_report()
    data = data_sets.get(plan.data)
    labels_of(plan, data)
    names = plan.processes or fitting_families(data, plan.network, say)
    fitted = {name: fit_view(name, data)[0] for name in names}
    for name, process in fitted.items():
        is_finished(folder_of(out, name), plan.run_settings(name))
        build_network(plan.run_settings(name), process, labels_of(plan, data))
        for nfe in plan.nfe:
            steps_for(process, nfe)
    make_folder(out, "results")
    extractor = _extractor(data, out, say)
    test = extractor(data.test)
    floor = evaluate(data.train, extractor, test, data)
    comparison = Comparison(plan, data, extractor.description, floor, nearest_distance(data.test, data.train, data.distance), tuple(names))
    for i, name in enumerate(names, 1):
        settings = plan.run_settings(name)
        done = "already trained" if is_finished(folder_of(out, name), settings) else f"training {settings.steps} steps"
        say(f"[{i}/{len(names)}] {name}: {done}")
        run = train_run(settings, folder_of(out, name), data=data, progress=progress, label=name)
        family = _measure(name, run, plan, out, extractor, test, data)
        comparison.families.append(family)
        best = family.best
        say(f"      best Frechet distance {best['frechet']:.3g} = {over(best['frechet'], floor['frechet']):.2f} x floor, at {best['nfe']} calls")
        write_json(out / "results.json", comparison.results())
        write_report(Study([comparison], [str(out)]), out)
    return comparison


def fitting_families(data: DataSet, network: str, say: Callable[[str], None] = lambda line: None) -> tuple[str, ...]:
    """Names of all registered families that fit a view of the data and can be learned by the network of that name.

    Args:
        data: the data set.
        network: name of the network.
        say: receives a line for each family that only the network does not fit.
    """
    names = []
    for name in processes.available():
        try:
            process, _ = fit_view(name, data)
        except GenmatchError:
            continue
        if lacking := lacks(network, process):
            say(f"left out {name}, which needs a network with {lacking}: --network transformer offers it")
        else:
            names.append(name)
    return tuple(names)


def steps_for(process: MarkovProcess, nfe: int) -> int:
    """Steps of the recommended solver that make `nfe` network calls.

    Raises:
        GenmatchError: if that is not a whole number of steps, or no step has a fixed number of calls.
    """
    solver = solvers.resolve(process, None)
    if solver.calls is None:
        raise GenmatchError(
            f"{type(solver).__name__}, the recommended solver of {process}, takes as many calls as it needs, and a comparison sets their number; "
            "let the process's `solver` name one with a fixed number of calls a step."
        )
    if nfe % solver.calls:
        raise GenmatchError(f"{type(solver).__name__} makes {solver.calls} calls a step, so `nfe` must be a multiple of that, got {nfe}.")
    return nfe // solver.calls


def _measure(name: str, run: Run, plan: Plan, out: Path, extractor: Extractor, test: Measure, data: DataSet) -> Family:
    """Samples and metrics of a trained run at each budget, taken from disk where they are there."""
    rows, points = [], {}
    for nfe in sorted(set(plan.nfe)):
        place = folder_of(out, name) / f"nfe-{nfe}"
        if not place.with_suffix(".json").exists():
            steps = steps_for(run.process, nfe)
            start = time.perf_counter()
            labels = data.labels[0] if plan.condition and data.labels else None
            told = None if labels is None else {"label": labels}
            states = sampling.sample(run.process, run.model, len(data.train), steps=steps, seed=plan.seed, condition=told)
            seconds = time.perf_counter() - start
            decoded = run.view.decode(states)
            speed = {} if data.unit is None else {"per_second": len(states) * run.process.space.size / seconds}
            row = {"nfe": nfe, "steps": steps, "seconds": seconds, **speed, **evaluate(decoded, extractor, test, data, labels)}
            write_tensors(place.with_suffix(".safetensors"), {"points": decoded})
            write_json(place.with_suffix(".json"), row)
        rows.append(read_json(place.with_suffix(".json")))
        points[nfe] = load_file(place.with_suffix(".safetensors"))["points"]
    likelihood = _likelihood(run, folder_of(out, name) / "likelihood.json", data, plan.seed)
    return Family(name, run, rows, points, likelihood, generation(run, folder_of(out, name) / "generation.safetensors", data))


def generation(run: Run, place: Path, data: DataSet) -> dict[str, Tensor]:
    """A few samples of a run on their way from noise, as `points` at `times`, taken from disk where they are there."""
    if not place.exists():
        # A picture shows more points of a plane than images.
        n = 512 if data.test[0].numel() <= 3 else 16
        rng = torch.Generator().manual_seed(run.settings.seed)
        x0 = run.process.path.source(n, rng=rng)
        told = {"label": data.labels[0][:n]} if run.settings.condition and data.labels else None
        found = sampling.simulate(run.process, run.model, x0, torch.linspace(0, 1, _FRAMES + 1), condition=told, rng=rng)
        shown = torch.stack([run.view.show(x).double() for x in found.states])
        write_tensors(place, {"points": shown.float(), "times": found.times})
    return load_file(place)


def _likelihood(run: Run, place: Path, data: DataSet, seed: int) -> dict[str, Any] | None:
    """Bits a unit of the test split, taken from disk where they are there."""
    if data.unit is None or not run.process.has_noise:
        return None
    if not place.exists():
        found = elbo(run.process, run.model, run.view.test, draws=_DRAWS, seed=seed)
        finite = math.isfinite(found.mean)
        bits, error = (found.bits_per_coordinate, found.bits_error) if finite else (None, None)
        write_json(place, {"bits": bits, "error": error, "bound": found.bound, "tight": found.tight, "process": found.process})
    return read_json(place)


def _extractor(data: DataSet, out: Path, say: Callable[[str], None]) -> Extractor:
    if data.labels is not None:
        say("training the classifier whose features measure the samples")
    # Not of the plan's seed: comparisons that differ in it are measured by the same features, and can be joined.
    return make_extractor(data, path=out / "classifier.safetensors")


def folder_of(out: Path, name: str) -> Path:
    """Where a family's run and samples are in the folder of a comparison."""
    return out / re.sub(r"[^\w.-]+", "-", name)
