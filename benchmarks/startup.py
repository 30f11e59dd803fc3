"""How long the package takes to start, as ratios measured side by side: `python benchmarks/startup.py`.

`import genmatch` alone loads nothing, so it is also timed with its main names used.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time

RUNS = 7
NAMES = "genmatch.Flow, genmatch.CTMC, genmatch.train, genmatch.sample, genmatch.oracle, genmatch.solvers"


def seconds(command: list[str]) -> float:
    """Wall time of one run of a command."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Times the commands in turn and prints the median of each as a multiple of `import torch`."""
    program = shutil.which("genmatch", path=str(sys.prefix) + "/bin") or "genmatch"
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "import genmatch": [sys.executable, "-c", "import genmatch"],
        "import genmatch and use it": [sys.executable, "-c", f"import genmatch; {NAMES}"],
        "genmatch --help": [program, "--help"],
        "genmatch list": [program, "list"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(RUNS + 1):  # the first round warms the file cache
        for name, command in commands.items():
            taken = seconds(command)
            if run:
                times[name].append(taken)
    base = statistics.median(times["import torch"])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:28} median {median:.3f} s, {median / base:.2f} times `import torch`")


if __name__ == "__main__":
    main()
