"""A comparison as it stands on disk: for a report that is made again, or of several runs together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from genmatch import data as data_sets
from genmatch.compare.runner import Comparison, Family, folder_of, generation
from genmatch.errors import GenmatchError
from genmatch.files import read_json
from genmatch.runs import load_run
from genmatch.settings import Plan


def load_comparison(out: Path) -> Comparison:
    """What `compare` found so far in the folder `out`: nothing is trained, sampled or measured again.

    Raises:
        GenmatchError: if there is nothing, or a part of it is gone.
    """
    if not (out / "results.json").exists():
        raise GenmatchError(f"`{out}` holds no comparison (no results.json); make one with `genmatch compare --out {out}`.")
    found = read_json(out / "results.json")
    try:
        asked: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found["plan"].items()}
        plan = Plan(**asked)
        data = data_sets.get(plan.data)
        families = [_family(one, out, data) for one in found["families"]]
        versions = found.get("versions", {name: found[name] for name in ("genmatch", "torch")})
        return Comparison(plan, data, found["features"], found["floor"], found["test_nearest_train"], tuple(found["planned"]), families, versions)
    except (KeyError, TypeError) as error:
        raise GenmatchError(f"`{out / 'results.json'}` is not of this version ({error}); give the same `genmatch compare` again.") from error


def _family(found: dict[str, Any], out: Path, data: data_sets.DataSet) -> Family:
    folder = folder_of(out, found["name"])
    run = load_run(folder, data=data)
    files = {int(row["nfe"]): folder / f"nfe-{int(row['nfe'])}.safetensors" for row in found["rows"]}
    if gone := [str(file) for file in files.values() if not file.exists()]:
        raise GenmatchError(f"the samples `{gone[0]}` are gone; delete the .json beside it, and give the same `genmatch compare` again.")
    points = {nfe: load_file(file)["points"] for nfe, file in files.items()}
    return Family(found["name"], run, found["rows"], points, found["likelihood"], generation(run, folder / "generation.safetensors", data))
