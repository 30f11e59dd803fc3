"""What the benchmarks share: a record of each run, in JSON with its date, versions and machine, and as a table."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
DATA = ROOT / "docs" / "_data"
# The exact laws are those of the tests and of the documentation.
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "examples")]

PACKAGES = ("torch", "torchdiffeq", "flow_matching", "torchcfm", "torchsde")


def options(description: str | None) -> argparse.Namespace:
    """Command-line options of every script; one thread, so that times are those of the work."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="where to write the result; nowhere by default, docs/_data for `make bench`")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and samples, to see that it runs")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    return chosen


def setting() -> dict[str, str]:
    """Date, versions, machine, and how many processes wanted to run on it."""
    import genmatch

    versions = {"python": platform.python_version(), "genmatch": genmatch.__version__}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "load": f"{os.getloadavg()[0]:.1f}",
        **versions,
    }


def finish(chosen: argparse.Namespace, **tables: list[dict[str, Any]]) -> None:
    """Prints the tables, and writes them to `--json`."""
    for title, rows in tables.items():
        print(f"\n{title}")
        for line in lines(rows):
            print(line)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps({"setting": setting(), **tables}, indent=1) + "\n")


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """A table in columns."""
    columns = list(rows[0])
    cells = [[written(row[column]) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in cells)) for i, column in enumerate(columns)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [columns, *cells]]


def written(value: Any) -> str:
    """A number with three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor time of each, in seconds, measured in turn after a round that is not counted.

    On one thread that is the wall time, less what others on the machine take.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if round_:
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in taken.items()}
