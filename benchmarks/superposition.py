"""Does adding a jump to a flow help? `python benchmarks/superposition.py`

One network a seed predicts the grey levels of the digits, and serves a flow, jumps and their superposition: what differs is the
process alone. Writes `docs/_data/superposition.json`; three seeds take about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "_data" / "superposition.json"
NFE = (16, 64)


def main() -> None:
    """Trains, samples and measures; prints a table and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()

    import torch

    import genmatch as gm
    from genmatch.compare.features import make_extractor
    from genmatch.compare.metrics import frechet_distance

    data = gm.data.get("digits")
    view = next(view for view in data.views if view.name == "levels")
    path, levels = gm.paths.Gaussian(view.space.shape), view.space.levels
    flow, jumps = gm.LevelFlow(path, levels), gm.JumpProcess(path, levels)
    kinds = {"flow": flow, "jump": jumps}
    for share in (0.75, 0.5, 0.25):
        kinds[f"{share:g} flow + {1 - share:g} jump"] = gm.Superposition([flow, jumps], weights=[share, 1 - share], heads="shared")
    extractor = make_extractor(data)
    test, floor = extractor(data.test), frechet_distance(extractor(data.train).features, extractor(data.test).features)
    figures: dict[str, dict[str, list[float]]] = {name: {str(nfe): [] for nfe in NFE} for name in kinds}
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = gm.nn.MLP(jumps.space, jumps.output_shape, width=256, depth=3)
        model = gm.train(jumps, model, view.train, steps=options.steps, batch_size=128, lr=2e-3, seed=seed).model
        for name, process in kinds.items():
            for nfe in NFE:
                samples = gm.sample(process, model, len(data.train), solver="euler", steps=nfe, seed=seed)
                figures[name][str(nfe)].append(frechet_distance(extractor(view.decode(samples)).features, test.features) / floor)
        print(f"seed {seed}: " + ", ".join(f"{name} {figures[name][str(NFE[-1])][-1]:.2f}" for name in kinds), file=sys.stderr)
    about = {"date": date.today().isoformat(), "torch": torch.__version__, "python": platform.python_version(), "steps": options.steps, "solver": "euler"}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"about": about, "frechet_over_floor": figures}, indent=1) + "\n")
    for name, by_nfe in figures.items():
        print(f"{name:24s}" + "   ".join(f"{nfe} calls {statistics.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for nfe, v in by_nfe.items()))


if __name__ == "__main__":
    main()
