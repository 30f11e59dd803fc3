"""How good the conformance kit is: which mutants it catches, and how often it cries wolf. `python benchmarks/conformance.py`.

Every broken process of `tests/mutants.py` is shown to the check that must catch it, and every correct process of
`tests/test_checks.py` to all checks under many seeds. Writes `docs/_data/conformance.json`. With 20 seeds at the quick level it takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "_data" / "conformance.json"
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "examples")]


def judge_mutant(row: int) -> dict[str, Any]:
    """What the check named for a mutant says of it."""
    from genmatch.checks import CHECKS
    from genmatch.checks.subject import Subject
    from tests.mutants import MUTANTS

    name, process, check = MUTANTS[row]
    # A tenth of the draws is enough for most.
    for effort in (0.1, 0.4, 1.0):
        result = CHECKS[check](Subject(process, effort=effort))
        if result.outcome == "failed":
            break
    return {"mutant": name, "check": check, "figure": result.figure, "tolerance": result.tolerance, "caught": result.outcome == "failed"}


def judge_correct(task: tuple[int, int, str]) -> dict[str, Any]:
    """All checks of a correct process under `seeds` seeds; each check runs in float64 and in float32."""
    import genmatch as gm
    from tests.test_checks import CORRECT

    row, seeds, level = task
    process = CORRECT[row]
    alarms, seconds, checks = [], 0.0, 0
    for seed in range(seeds):
        start = time.process_time()
        report = gm.check_process(process, seed=seed, level=level)
        seconds = max(seconds, time.process_time() - start)
        checks += sum(result.outcome == "passed" for result in report.results)
        alarms += [{"seed": seed, "check": failure.id, "figure": failure.figure} for failure in report.failures]
    return {"process": repr(process), "seeds": seeds, "checks": checks, "alarms": alarms, "seconds": round(seconds, 2)}


def main() -> None:
    """Runs everything on all cores and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--level", choices=("full", "quick"), default="quick")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        from tests.mutants import MUTANTS
        from tests.test_checks import CORRECT

        correct = pool.map(judge_correct, [(row, options.seeds, options.level) for row in range(len(CORRECT))], chunksize=1)
        mutants = pool.map(judge_mutant, range(len(MUTANTS)), chunksize=4)
    import torch

    about = {"date": date.today().isoformat(), "torch": torch.__version__, "python": platform.python_version(), "level": options.level}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"about": about, "mutants": mutants, "correct": correct}, indent=1) + "\n")
    caught, alarms = sum(row["caught"] for row in mutants), sum(len(row["alarms"]) for row in correct)
    print(
        f"{caught} of {len(mutants)} mutants caught; {alarms} false alarms in {sum(row['checks'] for row in correct)} checks of {len(correct)} correct processes"
    )
    sys.exit(caught < len(mutants) or alarms > 0)


if __name__ == "__main__":
    main()
